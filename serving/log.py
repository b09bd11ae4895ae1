"""The server's log: text for people, or a JSON object per line for the agents of a cluster.

Only what went wrong is logged, with the request's id; answered requests are counted by :mod:`serving.server.telemetry`.
"""

import json
import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal

REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="")
"""The ``x-request-id`` of the request that is being answered: the proxy's, or the client's own."""

TRACE_ID: ContextVar[str] = ContextVar("TRACE_ID", default="")
"""The trace of that request, by W3C's ``traceparent``, where the caller named one."""

_TEXT = "%(asctime)s %(name)s %(levelname)s %(message)s"
_MOST_WARNINGS = 20  # per second
_LONGEST_ID = 128  # a client may send anything


class JsonLines(logging.Formatter):
    """One JSON object per record, on one line; a traceback is in ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        """Write time (seconds since the epoch), level, logger, message; request, trace, exception if any."""
        line = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := REQUEST_ID.get()[:_LONGEST_ID]:
            line["request"] = request
        if trace := TRACE_ID.get():
            line["trace"] = trace
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Sparing(logging.Filter):
    """Lets at most so many warnings pass in a second: a client that sends nonsense must not fill the disk."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to count.

        Args:
            most: warnings per second.
            clock: gives seconds.
        """
        super().__init__()
        self._most = most
        self._clock = clock
        self._second = 0.0
        self._passed = 0
        self._held_back = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record passes; the first one of another second says how many did not."""
        if record.levelno != logging.WARNING:
            return True
        now = self._clock()
        if now - self._second >= 1.0:
            if self._held_back:
                record.msg = f"{record.getMessage()} ({self._held_back:,} warnings before this one were not logged)"
                record.args = None
            self._second, self._passed, self._held_back = now, 0, 0
        self._passed += 1
        if self._passed <= self._most:
            return True
        self._held_back += 1
        return False


def to_standard_error(form: Literal["text", "json"]) -> None:
    """Have every logger of this process write warnings, and Sluiceway's own information, to standard error."""
    handler = logging.StreamHandler()
    handler.addFilter(Sparing(_MOST_WARNINGS))
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
