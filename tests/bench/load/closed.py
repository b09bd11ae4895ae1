"""Closed loop: every connection sends its next request when its reply is there."""

import random
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.bench.load.connections import Connection, Pool
from tests.bench.load.latency import Latencies

FLUSH = 65_536


@dataclass
class ClosedOutcome:
    """What was counted, after the warm-up.

    Attributes:
        seconds: from the first counted reply to the last.
        statuses: replies by kind of request and status.
        latencies: of all of them.
        broken: connections that the server closed or reset.
        different: replies that differ from the first of their kind.
        samples: (seconds since the start, replies until then), once a second.
    """

    seconds: float = 0.0
    statuses: Counter[tuple[int, int]] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    broken: int = 0
    different: list[str] = field(default_factory=list)
    samples: list[tuple[float, int]] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Replies that were counted."""
        return sum(self.statuses.values())

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "seconds": self.seconds,
            "requests": self.requests,
            "statuses": [[kind, status, count] for (kind, status), count in sorted(self.statuses.items())],
            "latency": self.latencies.summary(),
            "broken": self.broken,
            "different": self.different[:10],
            "samples": self.samples,
        }


def closed_loop(
    address: tuple[str, int],
    requests: list[bytes],
    connections: int,
    *,
    warm: float,
    seconds: float,
    count: int = 0,
    seed: int = 0,
    same: Callable[[int, bytes], str] | None = None,
) -> ClosedOutcome:
    """Send requests in random turn over so many connections.

    Args:
        address: host and port.
        requests: whole requests, ready to be sent; one kind each.
        connections: how many at once.
        warm: seconds before counting begins.
        seconds: how long to count.
        count: instead of ``seconds``, how many replies to count.
        seed: of the order of kinds.
        same: kind and reply to what is wrong with it, or to an empty text.
    """
    pool = Pool(address, connections)
    outcome = ClosedOutcome()
    times = array("Q")
    turns = _turns(len(requests), seed)
    turn = 0
    clock = time.perf_counter_ns
    start = clock()
    begin = start + int(warm * 1e9)
    end = begin + int(seconds * 1e9) if not count else 2**63
    statuses: Counter[Any] = Counter()
    counted = 0
    next_sample = begin + 10**9

    def following() -> int:
        nonlocal turn
        turn = (turn + 1) & 0xFFFF
        return turns[turn]

    unsent: set[Connection] = set()
    by_fd, poll = pool.by_fd, pool.epoll.poll
    for connection in pool.all:
        kind = following()
        connection.send(requests[kind], kind, clock())
        if connection.unsent:
            unsent.add(connection)
    now = start
    while now < end and not (count and counted >= count):
        for fd, _ in poll(0.001 if unsent else 1):
            connection = by_fd[fd]
            try:
                reply = connection.receive()
            except OSError:
                outcome.broken += 1
                unsent.discard(connection)
                pool.renew(connection)
                connection.send(requests[connection.kind], connection.kind, clock())
                continue
            if reply is None:
                continue
            now = clock()
            if now >= begin:
                counted += 1
                times.append(now - connection.began)
                statuses[connection.kind, reply[9:12]] += 1
                if same is not None and (wrong := same(connection.kind, reply)):
                    outcome.different.append(wrong)
            kind = following()
            connection.send(requests[kind], kind, now)
            if connection.unsent:
                unsent.add(connection)
        for connection in list(unsent):  # large requests only
            connection.push()
            if not connection.unsent:
                unsent.discard(connection)
        if len(times) >= FLUSH or now >= end:
            outcome.latencies.add(np.frombuffer(times, dtype=np.uint64))
            times = array("Q")
        now = clock()
        if now >= next_sample:
            outcome.samples.append(((now - begin) / 1e9, counted))
            next_sample += 10**9
    outcome.latencies.add(np.frombuffer(times, dtype=np.uint64))
    outcome.seconds = (now - begin) / 1e9
    outcome.statuses = Counter({(kind, int(status)): number for (kind, status), number in statuses.items()})
    pool.close()
    return outcome


def _turns(kinds: int, seed: int) -> list[int]:
    """65,536 kinds in random order, each as often as the others."""
    turns = [index % kinds for index in range(0x10000)]
    random.Random(seed).shuffle(turns)
    return turns
