"""Open loop: requests come when they come, whatever became of those before.

Latency counts from the moment at which a request was due, so that time it waited for a free connection is part of it:
otherwise a server that stalls would be asked less while it does (coordinated omission).
"""

import time
from array import array
from collections import deque
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.load.connections import Connection, Pool

PATIENCE = 10.0
"""Seconds to wait for the last replies."""
GIVEN_UP = 1.0
"""Seconds after which a request that found no free connection is given up, as callers do that have a timeout."""


def open_loop(
    address: tuple[str, int],
    requests: list[bytes],
    connections: int,
    phases: list[tuple[float, float]],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Offer load at given rates, Poisson arrivals.

    Every connection has had a reply before the first request is due. Where a phase offers less than the one before it,
    the callers that were too many have left: what still waits for a connection then is given up.

    Args:
        address: host and port.
        requests: whole requests, sent in turn.
        connections: how many requests may be under way; more wait for one of these, up to ``GIVEN_UP``.
        phases: (requests per second, seconds), one after the other.
        seed: of the arrivals.

    Returns:
        ``due`` (s since the start), ``seconds`` (latency from then; NaN: never answered) and ``status`` (0: broken or
        never answered), as lists in the order of replies; ``most``, the largest number that waited for a connection;
        ``late``, the share of requests that were sent over a millisecond late although a connection was free; and
        ``rude``, how many refusals came without ``Retry-After``.
    """
    pool = Pool(address, connections)
    for connection in pool.all:
        _greet(connection, requests[0])
    arrivals = _arrivals(phases, seed)
    clock = time.perf_counter_ns
    idle = deque(pool.all)
    backlog: deque[int] = deque()
    given_up: list[int] = []
    due_at, took, status = array("Q"), array("q"), array("H")
    poll, by_fd, kinds = pool.epoll.poll, pool.by_fd, len(requests)
    total, upcoming, most, late, sent, rude = len(arrivals), 0, 0, 0, 0, 0
    start = clock()
    due = (arrivals + start).tolist()
    deadline = int(due[-1] + PATIENCE * 1e9)
    falls = deque(int(start + at * 1e9) for at in _falls(phases))

    def begin(connection: Connection, when: int) -> None:
        nonlocal sent
        connection.send(requests[sent % kinds], sent % kinds, when)
        sent += 1

    while len(due_at) + len(given_up) < total:
        now = clock()
        if now > deadline:
            break
        if falls and now >= falls[0]:
            over = falls.popleft()
            while backlog and backlog[0] < over:
                given_up.append(backlog.popleft())
        while upcoming < total and due[upcoming] <= now:
            if idle:
                late += now - due[upcoming] > 1_000_000
                begin(idle.popleft(), due[upcoming])
            else:
                backlog.append(due[upcoming])
                most = max(most, len(backlog))
            upcoming += 1
        # epoll counts in whole milliseconds, so shorter waits are spun: the generator has a core of its own.
        soon = upcoming < total and due[upcoming] - now < 2_000_000
        for fd, _ in poll(0 if soon else 0.001):
            connection = by_fd[fd]
            try:
                reply = connection.receive()
            except OSError:
                reply = b""
                renew = True
            else:
                renew = False
            if reply is None:
                continue
            now = clock()
            if connection.began:
                due_at.append(connection.began)
                took.append(now - connection.began)
                status.append(int(reply[9:12] or 0))
                rude += status[-1] in (429, 503) and b"etry-after:" not in reply.lower()
            if renew or b"onnection: close" in reply[: reply.find(b"\r\n\r\n")]:
                pool.renew(connection)
            connection.began = 0
            while backlog and now - backlog[0] > GIVEN_UP * 1e9:
                given_up.append(backlog.popleft())
            if backlog:
                begin(connection, backlog.popleft())
            else:
                idle.append(connection)
    waiting = [one.began for one in pool.all if one.began] + list(backlog) + given_up
    pool.close()
    lost = np.array(waiting, dtype=np.uint64)
    return {
        "due": np.concatenate([_seconds(due_at, start), (lost - np.uint64(start)) / 1e9]).tolist(),
        "seconds": np.concatenate([np.frombuffer(took, dtype=np.int64) / 1e9, np.full(len(waiting), np.nan)]).tolist(),
        "status": [*status, *[0] * len(waiting)],
        "most": most,
        "rude": rude,
        "late": late / total,
    }


def _greet(connection: Connection, request: bytes) -> None:
    connection.send(request, 0, 0)
    deadline = time.monotonic() + PATIENCE
    while connection.receive() is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no reply within {PATIENCE:g} s before the measurement")


def _falls(phases: list[tuple[float, float]]) -> list[float]:
    """The moments at which the offered rate falls, s."""
    found, at = [], 0.0
    for (before, seconds), (after, _) in pairwise(phases):
        at += seconds
        if after < before:
            found.append(at)
    return found


def _arrivals(phases: list[tuple[float, float]], seed: int) -> NDArray[np.int64]:
    random = np.random.default_rng(seed)
    at, parts = 0.0, []
    for rate, seconds in phases:
        gaps = random.exponential(1 / rate, int(rate * seconds * 1.2 + 100))
        times = gaps.cumsum()
        parts.append(at + times[times < seconds])
        at += seconds
    return (np.concatenate(parts) * 1e9).astype(np.int64)


def _seconds(times: "array[int]", start: int) -> NDArray[np.float64]:
    return (np.frombuffer(times, dtype=np.uint64) - np.uint64(start)) / 1e9
