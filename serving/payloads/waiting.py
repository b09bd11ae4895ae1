"""A queue between threads, bounded by what its exchanges take in memory."""

import threading
from collections import deque

from serving.payloads.exchange import Exchange


class Waiting:
    """Exchanges that wait for a sink."""

    def __init__(self, most_bytes: int) -> None:
        """Take no more than so many bytes."""
        self._most = most_bytes
        self._bytes = 0
        self._queue: deque[Exchange] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, exchange: Exchange) -> bool:
        """Add an exchange; False where it does not fit."""
        with self._changed:
            if self._bytes + exchange.bytes > self._most:
                return False
            self._queue.append(exchange)
            self._bytes += exchange.bytes
            self._changed.notify()
        return True

    def get(self, seconds: float) -> Exchange | None:
        """The oldest exchange; None when none came in that time, or none will come."""
        with self._changed:
            if not self._queue and not self._closed:
                self._changed.wait(seconds)
            if not self._queue:
                return None
            exchange = self._queue.popleft()
            self._bytes -= exchange.bytes
            return exchange

    def close(self) -> None:
        """Say that no more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether nothing waits, and nothing will."""
        with self._changed:
            return self._closed and not self._queue
