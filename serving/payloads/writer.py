"""The process that writes payloads: ``python -m serving.payloads.writer FD``, started by the server.

It lives as long as the server holds the other end of its socket, and when that closes, for whatever reason, it writes
what it has and ends. Signals that mean the server are none of its business.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any, Protocol

from components.features.schema import FeatureSchema
from serving.payloads.exchange import Exchange, Frames
from serving.payloads.redaction import Redaction, Unreadable
from serving.payloads.rows import Layout
from serving.payloads.settings import Settings

REPORT_SECONDS = 0.25
GRACE_SECONDS = 10.0
"""How long it goes on when the server is gone without a word."""
_WARN_SECONDS = 30.0
_READ_BYTES = 1024 * 1024
_NICE = 10  # where the server and this process want the same core, the server gets nine tenths of it


class Sink(Protocol):
    """Where exchanges go."""

    def offer(self, exchange: Exchange) -> None:
        """Take an exchange, or count that it cannot be kept; never waits."""

    def close(self, deadline: float) -> None:
        """Finish what waits, until the deadline."""


class Writer:
    """Reads what the server sends, and hands it to the sinks."""

    def __init__(self, sock: socket.socket) -> None:
        """Take this end of the socket."""
        self._socket = sock
        self._sinks: dict[str, Sink] = {}
        self._settings = Settings()
        self._layouts: dict[tuple[str, str], Layout] = {}
        self._received = 0
        self._counts: Counter[str] = Counter()
        self._warned: dict[str, float] = {}
        self._news: list[str] = []
        self._lock = threading.Lock()
        self._grace = GRACE_SECONDS

    def run(self) -> None:
        """Go on until the server closes the socket, and what came is written or given up."""
        reports = threading.Thread(target=self._report_on, daemon=True)
        reports.start()
        frames = Frames()
        while piece := self._read():
            for kind, content in frames.feed(piece):
                self._take(kind, content)
        deadline = time.monotonic() + self._grace
        closing = [threading.Thread(target=sink.close, args=(deadline,)) for sink in self._sinks.values()]
        for thread in closing:  # at once: one that takes nothing must not take the time of the other
            thread.start()
        for thread in closing:
            thread.join()
        with self._lock:
            for name in self._sinks:
                ended = sum(number for key, number in self._counts.items() if name in key.split("."))
                if self._received > ended:
                    self._counts[f"dropped.{name}.closing"] += self._received - ended
        self._report()

    def _read(self) -> bytes:
        try:
            return self._socket.recv(_READ_BYTES)
        except OSError:
            return b""

    def _take(self, kind: str, content: Any) -> None:
        if kind == "exchanges":
            self._received += len(content)
            for values in content:
                exchange = Exchange(*values)
                for sink in self._sinks.values():
                    sink.offer(exchange)
        elif kind == "model":
            told = json.loads(content)
            schema = FeatureSchema.model_validate(told["schema"])
            layout = Layout(schema, self._settings.redact, raw=self._settings.raw)
            self._layouts[told["model"], told["revision"]] = layout
        elif kind == "settings":
            given = json.loads(content)
            self._settings = Settings(**given | {"redact": tuple(given["redact"])})
            self._open()
        else:
            self._grace = float(content)

    def _open(self) -> None:
        settings = self._settings
        if settings.url:
            from serving.payloads.cloudevents import HttpSink

            self._sinks["http"] = HttpSink(settings, self._redaction, self._counter("http"), self._warn)
        if settings.store:
            from serving.payloads.store import Store

            self._sinks["store"] = Store(settings, self._layout, self._counter("store"), self._warn)

    def _layout(self, exchange: Exchange) -> Layout:
        try:
            return self._layouts[exchange.model, exchange.revision]
        except KeyError as error:
            raise Unreadable(f"Model {exchange.model!r} was not told of.") from error

    def _redaction(self, exchange: Exchange) -> Redaction | None:
        return self._layout(exchange).redaction if self._settings.redact else None

    def _counter(self, sink: str) -> Any:
        def count(what: str, number: int) -> None:
            name = f"written.{sink}" if what == "written" else f"dropped.{sink}.{what}"
            with self._lock:
                self._counts[name] += number

        return count

    def _warn(self, text: str) -> None:
        """Have the server log a line; of lines that begin alike, one in a while."""
        now = time.monotonic()
        with self._lock:
            if now - self._warned.get(text[:40], -_WARN_SECONDS) >= _WARN_SECONDS:
                self._warned[text[:40]] = now
                self._news.append(text)

    def _report_on(self) -> None:
        before = ""
        while True:
            time.sleep(REPORT_SECONDS)
            with self._lock:
                now = json.dumps(self._counts)
                is_news = now != before or self._news
            if is_news:
                before = now
                self._report()

    def _report(self) -> None:
        with self._lock:
            line = json.dumps({"counts": self._counts, "log": self._news})
            self._news = []
            try:
                self._socket.sendall(line.encode() + b"\n")
            except OSError:
                return  # the server is gone; what is left is written all the same


def main() -> None:
    """Write the payloads that come over the socket named by the first argument."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    threading.excepthook = _end_all
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        Writer(sock).run()
    sys.stderr.flush()
    os._exit(0)  # threads that a sink holds up are left, and libraries have nothing to say at their end


def _end_all(failed: threading.ExceptHookArgs) -> None:
    """A sink that fails in a way that nobody foresaw takes the process with it; the server starts another."""
    trace: TracebackType | None = failed.exc_traceback
    sys.excepthook(failed.exc_type, failed.exc_value or failed.exc_type(), trace)
    sys.stderr.flush()
    os._exit(70)


if __name__ == "__main__":
    main()
