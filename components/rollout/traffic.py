"""Held-out rows as requests: what the skew check compares and what a local canary is judged on."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from components.evaluate.columns import CHAMPION, PREDICTION

_CLIENTS = 4

logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request would drown the step's own log


@dataclass(frozen=True)
class Rows:
    """Raw rows with the offline prediction of each: probabilities in class order, or one value.

    ``champion`` holds the champion's predictions of the same rows; empty when there is none.
    """

    instances: tuple[dict[str, Any], ...]
    predictions: tuple[tuple[float, ...], ...]
    champion: tuple[tuple[float, ...], ...] = ()


def read_rows(predictions: Path, limit: int = 0) -> Rows:
    """Read the predictions that the evaluation wrote; ``limit`` 0 reads all.

    Missing numbers come as None, dates as ISO text, as JSON carries them.
    """
    import duckdb

    with duckdb.connect() as connection:
        table = connection.read_parquet(str(predictions))
        records = (table.limit(limit) if limit else table).to_arrow_table().to_pylist()
    return Rows(
        tuple({k: _plain(v) for k, v in record.items() if k not in (PREDICTION, CHAMPION)} for record in records),
        tuple(tuple(record[PREDICTION]) for record in records),
        tuple(tuple(record[CHAMPION]) for record in records if record.get(CHAMPION) is not None),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value


class Replay:
    """Send rows to a service from a few clients at a steady rate until the block ends.

    Attributes:
        sent: requests sent.
        failed: requests without a 200 answer.
    """

    def __init__(
        self,
        url: str,
        name: str,
        instances: Sequence[dict[str, Any]],
        per_second: float,
        answered: Callable[[httpx.Response | None], None] = lambda _answer: None,
    ) -> None:
        """Prepare the clients.

        Args:
            url: the service.
            name: the model's name.
            instances: the rows, sent one per request, over and over.
            per_second: how many in all; 0 sends none.
            answered: called with each answer, or None when there was none; from several threads.
        """
        self.sent = 0
        self.failed = 0
        self._endpoint = f"{url}/v1/models/{name}:predict"
        self._instances = itertools.cycle(instances)
        self._per_second = per_second if instances else 0
        self._answered = answered
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(_CLIENTS)]

    def __enter__(self) -> Self:
        if self._per_second:
            for thread in self._threads:
                thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _client(self) -> None:
        pause = _CLIENTS / self._per_second
        with httpx.Client(timeout=10, trust_env=False) as client:
            due = time.monotonic()
            while not self._stop.is_set():
                with self._lock:
                    instance = next(self._instances)
                ok = self._send(client, instance)
                with self._lock:
                    self.sent += 1
                    self.failed += not ok
                due = max(due + pause, time.monotonic() - 1)  # do not chase more than a second of backlog
                self._stop.wait(max(0.0, due - time.monotonic()))

    def _send(self, client: httpx.Client, instance: dict[str, Any]) -> bool:
        try:
            answer = client.post(self._endpoint, json={"instances": [instance]})
        except httpx.HTTPError:
            self._answered(None)
            return False
        self._answered(answer)
        return answer.status_code == 200
