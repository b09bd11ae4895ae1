"""A real client with steady traffic: what it was answered with, by version, and what failed."""

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

from serving.local.envoy_config import REVISION_HEADER


@dataclass
class Client:
    """Sends predictions at a steady pace from some connections; use it as a context.

    Attributes:
        address: host:port of the gateway.
        host: name of the service, or of one version alone.
        model: name of the model in the path.
        per_second: requests per second, all connections together.
        by_revision: answers that were good, by version.
        failed: requests with an answer of 500 and above or none, as (seconds since the epoch, what).
    """

    address: str
    host: str
    model: str
    per_second: float = 50
    connections: int = 4
    rows: list[Any] = field(default_factory=lambda: [[number / 10] for number in range(100)])
    by_revision: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[float, str]] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self._over, self._lock = threading.Event(), threading.Lock()
        self._threads: list[threading.Thread] = []
        self._since = 0.0

    def __enter__(self) -> Self:
        for number in range(self.connections):
            self._threads.append(threading.Thread(target=self._run, args=(number,), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)

    def reset(self) -> None:
        """Count anew, only what is sent from now on."""
        with self._lock:
            self._since = time.monotonic()
            self.by_revision.clear()
            self.failed.clear()
            self.sent = 0

    def counts(self) -> dict[str, int]:
        with self._lock:
            return dict(self.by_revision)

    def wait(self, number: int, seconds: float = 20) -> None:
        """Return when so many more requests were sent."""
        goal, ends = self.sent + number, time.monotonic() + seconds
        while self.sent < goal:
            assert time.monotonic() < ends, f"{self.sent} requests, {goal} wanted; failed: {self.failed[-3:]}"
            time.sleep(0.02)

    def send(self, row: Any) -> tuple[int, str, Any]:
        """One request: status, version, answer."""
        connection = http.client.HTTPConnection(self.address, timeout=5)
        try:
            return self._ask(connection, row)
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, row: Any) -> tuple[int, str, Any]:
        body = json.dumps({"instances": [row]})
        headers = {"Host": self.host, "Content-Type": "application/json"}
        connection.request("POST", f"/v1/models/{self.model}:predict", body, headers)
        response = connection.getresponse()
        text = response.read()
        answer = json.loads(text) if response.headers.get_content_type() == "application/json" else text.decode()
        return response.status, response.headers.get(REVISION_HEADER, ""), answer

    def _run(self, number: int) -> None:
        pause = self.connections / self.per_second
        due = time.monotonic() + pause * number / self.connections
        connection = http.client.HTTPConnection(self.address, timeout=5)
        turn = number
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += pause
            turn += self.connections
            began = time.monotonic()
            try:
                status, revision, answer = self._ask(connection, self.rows[turn % len(self.rows)])
                wrong = f"{status} {revision} {answer}" if status >= 500 or status == 404 else ""
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                wrong = repr(error)
            with self._lock:
                if began < self._since:
                    continue
                self.sent += 1
                if wrong:
                    self.failed.append((time.time(), wrong))
                else:
                    self.by_revision[revision] += 1
        connection.close()
