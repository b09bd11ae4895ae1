"""The server's log: text for people, or a JSON object per line for the agents of a cluster.

Only what went wrong is logged, with the request's id; answered requests are counted by :mod:`serving.server.telemetry`.
"""

import json
import logging
from contextvars import ContextVar
from typing import Literal

REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="")
"""The ``x-request-id`` of the request that is being answered: the proxy's, or the client's own."""

TRACE_ID: ContextVar[str] = ContextVar("TRACE_ID", default="")
"""The trace of that request, by W3C's ``traceparent``, where the caller named one."""

_TEXT = "%(asctime)s %(name)s %(levelname)s %(message)s"
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


def to_standard_error(form: Literal["text", "json"]) -> None:
    """Have every logger of this process write warnings, and Sluiceway's own information, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
