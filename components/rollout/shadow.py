"""Held-out rows sent to both versions beside the live traffic, for services with little traffic of their own.

The rows go to each version's own address, past the split, so no client waits for them and no weight is touched. Every
answer is compared with that version's offline prediction of the same row; since both versions answer the same rows,
what they may differ by is known row by row and no assumption about the live traffic is needed.

Gateway API can mirror live requests instead (``RequestMirror`` by percent on the two-services target's HTTPRoute). Such
requests reach the challenger's own servers and are counted by the metrics of those, but their answers are thrown away
by the gateway, so they add requests, errors and latency, and nothing that could be compared.
"""

import bisect
import itertools
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import httpx

from components.errors import SkewFound
from components.rollout.evidence import Arm, Observation
from components.rollout.traffic import Rows
from components.stage.skew import allowed, answers_of, difference
from serving.latency import LATENCY_MS

_CLIENTS = 4
_TIMEOUT_SECONDS = 10.0
_LEAVE_SECONDS = 0.5


class Shadow:
    """Sends rows to both versions until the block ends, and counts what they answer."""

    def __init__(
        self,
        service: str,
        rows: Rows,
        classes: Sequence[str],
        stable_url: str,
        canary_url: str,
        per_second: float,
        tolerance: float,
    ) -> None:
        """Prepare the clients; nothing is sent yet.

        Args:
            service: the model's name in the URLs.
            rows: raw rows with both versions' offline predictions; the champion's may be missing.
            classes: class labels in the order of the offline probabilities; empty for regression.
            stable_url: an address that reaches the champion alone; empty when there is none.
            canary_url: an address that reaches the challenger alone; empty when there is none.
            per_second: rows sent per second to each version; 0 sends none.
            tolerance: largest difference of a prediction; see :func:`components.stage.skew.allowed`.
        """
        champion = rows.champion if len(rows.champion) == len(rows.instances) else ()
        versions = ((stable_url, Rows(rows.instances, champion)), (canary_url, rows))
        self._stop = threading.Event()
        self._senders = [_Sender(service, url, mine, classes, per_second, tolerance) for url, mine in versions]

    def __enter__(self) -> Self:
        for sender in self._senders:
            sender.start(self._stop)
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        # A server that hangs must not delay what was decided about it: its threads end by themselves.
        deadline = time.monotonic() + _LEAVE_SECONDS
        for sender in self._senders:
            sender.join(deadline)

    def counts(self, direct_seen: bool) -> Observation:
        """What was answered so far.

        Args:
            direct_seen: whether the source of the signals counts these requests too; then only the comparisons are
                given, so that nothing is counted twice.
        """
        stable, canary = self._senders
        return Observation(stable.counts(direct_seen), canary.counts(direct_seen))


@dataclass
class _Sender:
    """The clients of one version."""

    service: str
    url: str
    rows: Rows
    classes: Sequence[str]
    per_second: float
    tolerance: float
    _requests: int = 0
    _errors: int = 0
    _compared: int = 0
    _mismatched: int = 0
    _bins: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_MS) + 1))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, stop: threading.Event) -> None:
        if not self.url or not self.rows.instances or not self.per_second:
            return
        self.tolerance = allowed(self.rows, self.classes, self.tolerance)
        turns = itertools.cycle(range(len(self.rows.instances)))
        self._threads = [threading.Thread(target=self._send, args=(turns, stop), daemon=True) for _ in range(_CLIENTS)]
        for thread in self._threads:
            thread.start()

    def join(self, deadline: float) -> None:
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def counts(self, direct_seen: bool) -> Arm:
        with self._lock:
            compared = Arm(compared=self._compared, mismatched=self._mismatched)
            if direct_seen or not self._requests:
                return compared
            cumulative = itertools.accumulate(self._bins)
            latency = dict(zip((*LATENCY_MS, math.inf), map(float, cumulative), strict=True))
            return compared + Arm(self._requests, self._errors, latency)

    def _send(self, turns: "itertools.cycle[int]", stop: threading.Event) -> None:
        pause = _CLIENTS / self.per_second
        with httpx.Client(base_url=self.url, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            due = time.monotonic()
            while not stop.is_set():
                with self._lock:
                    row = next(turns)
                self._ask(client, row)
                due = max(due + pause, time.monotonic() - 1)  # do not chase more than a second of backlog
                stop.wait(max(0.0, due - time.monotonic()))

    def _ask(self, client: httpx.Client, row: int) -> None:
        began = time.perf_counter()
        answer: httpx.Response | None
        try:
            answer = client.post(f"/v1/models/{self.service}:predict", json={"instances": [self.rows.instances[row]]})
        except httpx.HTTPError:
            answer = None
        milliseconds = (time.perf_counter() - began) * 1000
        failed = answer is None or answer.status_code >= 500
        compared = answer is not None and not failed and bool(self.rows.predictions)
        mismatched = compared and answer is not None and not self._as_expected(answer, row)
        with self._lock:
            self._requests += 1
            self._errors += failed
            self._compared += compared
            self._mismatched += mismatched
            self._bins[bisect.bisect_left(LATENCY_MS, milliseconds)] += 1

    def _as_expected(self, answer: httpx.Response, row: int) -> bool:
        """Whether the answer is the offline prediction; a refusal of a row that was predicted offline is not."""
        try:
            (served,) = answers_of(answer, self.classes, 1)
        except SkewFound:
            return False
        return difference(served, self.rows.predictions[row]) <= self.tolerance
