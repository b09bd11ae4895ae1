"""The server's side of payload logging: a bounded queue, and a socket to the writer that is never waited for."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from random import random
from typing import Any

from components.features.schema import FeatureSchema
from serving.payloads.exchange import OVERHEAD, Exchange, as_tuple, frame
from serving.payloads.settings import Settings, from_environment

log = logging.getLogger("sluiceway.serving.payloads")

GATHER_SECONDS = 0.01
"""How long exchanges gather before they are sent together."""
BATCH_BYTES = 256 * 1024
"""Most bytes of one send, but for a single exchange that is longer: a send takes about 0.1 ms of the event loop."""
LONGEST_WAIT = 10.0
_STEADY_SECONDS = 30.0


class PayloadLog:
    """Logs the exchanges of a server's models; all of its methods are called on the event loop."""

    def __init__(self, settings: Settings) -> None:
        """Keep the settings; nothing is started."""
        self._settings = settings
        self._sinks = [name for name, on in (("http", settings.url), ("store", settings.store)) if on]
        self._sample = settings.sample
        self._known: dict[tuple[str, str], bytes] = {}
        self._news: list[bytes] = []
        self._most_bytes = settings.queue_bytes
        self._queue: deque[Exchange] = deque()
        self._bytes = 0
        self._timer: asyncio.Handle | None = None
        self._offered = 0
        self._sampled = 0
        self._queue_full = 0
        self._restarts = 0
        self._past: Counter[str] = Counter()  # of writers that are gone
        self._writer: _Writer | None = None
        self._starting: asyncio.Task[None] | None = None
        self._wait = 0.1
        self._closing = False
        self._sent_all = asyncio.Event()

    @classmethod
    def from_environment(cls) -> "PayloadLog | None":
        """The log that ``SLUICEWAY_PAYLOADS_*`` asks for; None where it asks for none.

        Raises:
            BadInput: names the variable that cannot be read.
        """
        settings = from_environment()
        return None if settings is None else cls(settings)

    def know(self, model: str, revision: str, schema: FeatureSchema) -> None:
        """Learn what a revision's inputs are, before it answers.

        Raises:
            BadInput: a column to redact is none of them.
        """
        self._settings.check(model, schema)
        told = {"model": model, "revision": revision, "schema": schema.model_dump(mode="json")}
        self._known[model, revision] = frame("model", json.dumps(told))
        self._news.append(self._known[model, revision])

    def wants(self) -> bool:
        """Whether to log this request: the sampling decision."""
        self._offered += 1
        return random() < self._sample  # noqa: S311 - nobody gains by guessing it

    def offer(self, exchange: Exchange) -> None:
        """Log an exchange later; drop and count it where too many wait."""
        size = len(exchange.request) + len(exchange.reply) + OVERHEAD
        self._sampled += 1
        if self._bytes + size > self._most_bytes or self._closing:
            self._queue_full += 1
            return
        self._queue.append(exchange)
        self._bytes += size
        if self._timer is None and self._writer is not None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._send)

    def counts(self) -> dict[str, int]:
        """What became of the exchanges since the start.

        ``offered`` requests could have been logged, ``sampled`` were to be. A sampled one is ``dropped.queue`` where
        the server's queue was full; all others end once for each sink (``http``, ``store``): as ``written.SINK``, or as
        ``dropped.SINK.REASON``. Reasons: ``queue`` (the sink's queue was full), ``failed`` (it did not take it after
        several tries), ``unreadable`` (columns were to be redacted in a body that could not be read), ``writer`` (the
        writer died with it), ``closing`` (the time to shut down was over). ``restarts`` counts new writers.
        """
        counts: Counter[str] = Counter(
            offered=self._offered, sampled=self._sampled, restarts=self._restarts, **{"dropped.queue": self._queue_full}
        )
        for sink in self._sinks:
            counts[f"written.{sink}"] += 0
        counts.update(self._past)
        if self._writer is not None:
            counts.update(self._writer.counts)
        return dict(counts)

    async def start(self) -> None:
        """Start the writer; a failure to is logged and tried again, and exchanges wait or are dropped meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            process, sock = await asyncio.to_thread(_spawn)
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("The writer of payloads does not start: %s. It is tried again.", error)
            self._start_later()
            return
        greeting = frame("settings", json.dumps(dataclasses.asdict(self._settings)))
        self._news.clear()
        self._writer = _Writer(self, process, sock, loop, greeting + b"".join(self._known.values()))
        self._send()

    async def close(self, seconds: float) -> None:
        """Hand over what is left, have the writer finish it, and end it.

        Args:
            seconds: the longest it may take; what is not written by then is dropped and counted.
        """
        deadline = time.monotonic() + seconds
        self._closing = True
        if self._starting is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._starting, max(0.0, deadline - time.monotonic()))
        if self._writer is not None:
            with contextlib.suppress(TimeoutError):
                if self._queue or self._writer.unsent:
                    self._sent_all.clear()
                    self._send()
                    await asyncio.wait_for(self._sent_all.wait(), max(0.0, deadline - time.monotonic()))
        if self._writer is not None:
            await self._writer.finish(deadline)
        if self._timer is not None:
            self._timer.cancel()
        self._past["dropped.queue"] += len(self._queue)
        self._queue.clear()
        self._bytes = 0

    def _send(self) -> None:
        """Send one batch to the writer, and see to it that the next follows."""
        self._timer = None
        writer = self._writer
        if writer is None or writer.unsent:
            return  # whoever brings a writer, or sends the rest, calls again
        batch: list[tuple[Any, ...]] = []
        size = 0
        while self._queue and (not batch or size < BATCH_BYTES):
            exchange = self._queue.popleft()
            taken = len(exchange.request) + len(exchange.reply) + OVERHEAD
            self._bytes -= taken
            size += taken
            batch.append(as_tuple(exchange))
        if batch:
            message = frame("exchanges", batch)
            if self._news:
                message = b"".join([*self._news, message])
                self._news.clear()
            writer.send_exchanges(message, len(batch))
        if not self._queue:
            if not writer.unsent:
                self._sent_all.set()
        elif not writer.unsent:
            self._timer = asyncio.get_running_loop().call_soon(self._send)

    def writable(self) -> None:
        """The writer took the rest of a batch."""
        if self._timer is not None:
            self._timer.cancel()
        self._send()

    def died(self, writer: "_Writer") -> None:
        """The writer is gone: count what was lost with it, and start another."""
        counts = writer.counts
        for sink in self._sinks:
            ended = sum(number for name, number in counts.items() if sink in name.split("."))
            if writer.sent > ended:
                counts[f"dropped.{sink}.{'closing' if self._closing else 'writer'}"] += writer.sent - ended
        self._past.update(counts)
        self._writer = None
        self._sent_all.set()
        if self._closing:
            return
        if time.monotonic() - writer.began > _STEADY_SECONDS:
            self._wait = 0.1
        log.warning("The writer of payloads ended (%s); another is started in %.1f s.", writer.how, self._wait)
        self._restarts += 1
        self._start_later()

    def _start_later(self) -> None:
        wait, self._wait = self._wait, min(LONGEST_WAIT, self._wait * 2)

        async def start() -> None:
            await asyncio.sleep(wait)
            await self.start()

        self._starting = asyncio.get_running_loop().create_task(start())


class _Writer:
    """One process of the writer, as the server sees it."""

    def __init__(
        self,
        owner: PayloadLog,
        process: "subprocess.Popen[bytes]",
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        greeting: bytes,
    ) -> None:
        self.began = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.sent = 0
        self.unsent: memoryview | None = None
        self.gone = asyncio.Event()
        self._owner = owner
        self._process = process
        self._socket = sock
        self._loop = loop
        self._heard = bytearray()
        loop.add_reader(sock.fileno(), self._readable)
        self._send(memoryview(greeting))

    @property
    def how(self) -> str:
        """How the process ended."""
        code = self._process.poll()
        return "it closed its socket" if code is None else f"exit code {code}"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send_exchanges(self, message: bytes, count: int) -> None:
        """Send a batch, or begin to."""
        self.sent += count
        self._send(memoryview(message))

    async def finish(self, deadline: float) -> None:
        """Let the process write what it has, and wait for its end; at the deadline it is killed."""
        message = frame("close", max(0.0, deadline - time.monotonic() - 0.2))
        if self.unsent is None:
            with contextlib.suppress(OSError):
                self._socket.send(message)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
        try:
            await asyncio.wait_for(self.gone.wait(), max(0.05, deadline - time.monotonic()))
        except TimeoutError:
            self._process.kill()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.gone.wait(), 1.0)
        await asyncio.to_thread(self._process.wait)

    def _send(self, rest: memoryview) -> None:
        try:
            sent = self._socket.send(rest)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # the reader hears of the end, too, and cleans up
        if sent < len(rest):
            if self.unsent is None:
                self._loop.add_writer(self._socket.fileno(), self._send_rest)
            self.unsent = rest[sent:]
        elif self.unsent is not None:
            self.unsent = None
            self._loop.remove_writer(self._socket.fileno())

    def _send_rest(self) -> None:
        if self.unsent is not None:
            self._send(self.unsent)
        if self.unsent is None:
            self._owner.writable()

    def _readable(self) -> None:
        try:
            heard = self._socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            heard = b""
        if not heard:
            self._end()
            return
        self._heard += heard
        *lines, rest = self._heard.split(b"\n")
        self._heard = rest
        for line in lines:
            said = json.loads(line)
            for text in said.get("log", ()):
                log.warning("%s", text)
            self.counts = Counter(said["counts"])

    def _end(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self.unsent = None
        self.gone.set()
        self._owner.died(self)


def _spawn() -> "tuple[subprocess.Popen[bytes], socket.socket]":
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * BATCH_BYTES)
    with theirs:
        command = [sys.executable, "-m", "serving.payloads.writer", str(theirs.fileno())]
        try:
            process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
        except BaseException:
            ours.close()
            raise
    return process, ours
