"""One serving process: an event loop that listens, loads the models meanwhile, serves, and drains on SIGTERM.

Draining loses no request. First readiness turns false and every reply closes its connection, while new connections are
still accepted: proxies and load balancers learn of an end with some delay. Then the socket takes no more of them, what
it had accepted is answered, and connections that stay idle are closed.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from uvicorn.config import Config
from uvicorn.server import ServerState

from serving import faults
from serving.server import sockets
from serving.server.announce import announce, facts
from serving.server.app import EXTENSIONS, Application
from serving.server.control import Control
from serving.server.core import Core
from serving.server.counters import Board
from serving.server.found import bundles_in
from serving.server.hot import Protocol
from serving.server.repository import Repository
from serving.server.security import Certificate, Tokens
from serving.server.settings import Settings
from serving.server.telemetry import Metrics, own_revision

if TYPE_CHECKING:
    from serving.server import grpc
    from serving.server.served import Served

log = logging.getLogger("sluiceway.serving")

_BACKLOG = 2_048
_TICK_SECONDS = 1.0
_PAYLOAD_SECONDS = 10.0
"""How long the payload log may take at the end; Kubernetes kills after 30 s in all, unless told otherwise."""
_QUIET_SECONDS = 0.5
"""A connection on which no request comes for so long after the server has ended is closed."""


@dataclass(frozen=True)
class Post:
    """What a worker is given by its parent; a process without one has all to itself.

    Attributes:
        place: its number.
        listeners: the sockets of all places, of which it listens at its own.
        board: the counts of all.
        channel: to the parent; None where there is none.
        listens_first: whether it listens before it is ready, so that probes are answered; else others do.
        unloaded: models that clients have unloaded since the start.
        found: models that were found and loaded since the start.
    """

    place: int
    listeners: tuple[socket.socket, ...]
    board: Board = field(default_factory=Board)
    channel: socket.socket | None = None
    listens_first: bool = True
    unloaded: Collection[str] = ()
    found: Collection[str] = ()


class Process:
    """One serving process."""

    def __init__(self, settings: Settings, post: Post) -> None:
        """Prepare; :meth:`run` serves."""
        self._settings = settings
        self._post = post
        self._state = ServerState()
        self._stop = asyncio.Event()
        self._servers: dict[int, asyncio.Server] = {}
        self._metrics = Metrics(post.board, post.place)
        self._tokens = Tokens(settings.tokens) if settings.tokens else None
        self._certificate = Certificate(settings.certificate, settings.key) if settings.certificate else None
        self._core = self._make_core()
        self._control: Control | None = None
        self._is_last = post.channel is None
        """Whether the sockets end with this process; else what waits in them is for its successor."""
        self._grpc: grpc.Server | None = None

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until a model fails to load.

        Raises:
            BadBundle: a bundle cannot be served.
            BadInput: the faults to inject, or what is to be logged or traced, do not read.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if self._settings.has_secrets:
            loop.add_signal_handler(signal.SIGHUP, self._read_again)
        self._make_config(loop)
        if self._post.listens_first:
            await self._listen(self._post.place)
            await self._listen_grpc()
        async with contextlib.AsyncExitStack() as stack:
            await self._start_others(stack)
            ticking = loop.create_task(self._ticking())
            stack.callback(ticking.cancel)
            loading = loop.create_task(self._load())
            loading.add_done_callback(lambda task: self._stop.set() if task.cancelled() or task.exception() else None)
            stack.callback(loading.cancel)
            await self._stop.wait()
            if loading.done():
                loading.result()
            await self._drain()

    def _make_core(self) -> Core:
        settings, post = self._settings, self._post
        repository = Repository(settings.limits)
        core = Core(settings.limits, repository, tokens=self._tokens, metrics=self._metrics)
        core.token_for_metrics = settings.token_for_metrics
        injected = faults.from_environment()
        if injected:
            log.warning("FAULTS ARE INJECTED, as %s asks: %s", faults.VARIABLE, injected)
            core.faults = faults.Injector(injected)
        repository.is_controlled = settings.model_control == "explicit"
        repository.discover = self._discover
        repository.forget = core.remove
        for name in settings.models:
            self._add(core, name)
        for name in post.found:
            self._discover_in(core, name)
        for name in set(post.unloaded) & set(repository.names()):
            repository.entry(name).is_wanted = False
        return core

    def _add(self, core: Core, name: str) -> None:
        settings = self._settings
        revision = settings.revision or own_revision(name)
        telemetry = self._metrics.model(name, revision)
        folder = settings.models.get(name) or (settings.root / name if settings.root else None)
        assert folder is not None
        core.repository.add(name, revision, folder, telemetry)
        core.add(name, telemetry)

    def _discover(self, name: str) -> bool:
        return self._discover_in(self._core, name)

    def _discover_in(self, core: Core, name: str) -> bool:
        """Add the bundle of a name from the folder of bundles, if there is one now."""
        root = self._settings.root
        if root is None or name not in bundles_in(root):
            return False
        self._add(core, name)
        return True

    def _make_config(self, loop: asyncio.AbstractEventLoop) -> None:
        application = Application(self._core, _version(), self._metrics.page).starlette()
        config = Config(application, http=Protocol, ws="none", lifespan="off", log_config=None, date_header=True)
        config.load()
        core = self._core

        def protocol() -> Protocol:
            return Protocol(config, self._state, {}, loop, core=core)

        self._protocol = protocol

    async def _listen(self, place: int) -> None:
        """Accept connections at a place, this worker's own or that of one that is gone."""
        if place in self._servers or self._core.repository.draining:
            return
        listener = self._post.listeners[place].dup()
        context = self._certificate.context if self._certificate else None
        loop = asyncio.get_running_loop()
        self._servers[place] = await loop.create_server(self._protocol, sock=listener, backlog=_BACKLOG, ssl=context)

    async def _listen_grpc(self) -> None:
        """Take gRPC's calls, where asked; a worker that ends leaves them to the others, which share the port."""
        settings = self._settings
        if not settings.grpc_port or self._grpc is not None or self._core.repository.draining:
            return
        from serving.server import grpc  # 17 MB that others need not carry

        self._grpc = grpc.Server(self._core, _version(), EXTENSIONS)
        credentials = grpc.credentials(settings.certificate, settings.key) if settings.certificate else None
        await self._grpc.start(settings.host, settings.grpc_port, credentials=credentials)

    def _release(self, place: int) -> None:
        """Leave the connections of a place to the worker that is back."""
        server = self._servers.pop(place, None)
        if server is not None:
            server.close()

    async def _start_others(self, stack: contextlib.AsyncExitStack) -> None:
        """Start what runs beside HTTP; the stack ends it, last first, once no request is left."""
        repository = self._core.repository
        if self._post.channel is not None:
            board, workers = self._post.board, len(self._post.listeners)
            repository.others_ready = lambda: board.are_ready(workers)
            self._control = Control(self._post.channel, repository, self._listen, self._release, self._end)
            repository.ask_all = self._control.ask_all
            running = asyncio.get_running_loop().create_task(self._control.run())
            stack.callback(running.cancel)
        else:
            self._metrics.workers(1)
        await self._start_tracing(stack)
        await self._start_payloads(stack)

    async def _start_tracing(self, stack: contextlib.AsyncExitStack) -> None:
        from serving.tracing import Tracing

        name = next(iter(self._settings.models))
        tracing = Tracing.from_environment(name, self._settings.revision or own_revision(name))
        if tracing is not None:
            self._core.tracing = tracing
            stack.push_async_callback(asyncio.to_thread, tracing.close)

    async def _start_payloads(self, stack: contextlib.AsyncExitStack) -> None:
        from serving.payloads import PayloadLog

        payloads = PayloadLog.from_environment()
        if payloads is None:
            return
        self._core.payloads = payloads

        def know(served: "Served") -> None:
            payloads.know(served.name, served.version, served.model.schema)

        self._core.repository.check = know
        await payloads.start()
        stack.push_async_callback(payloads.close, min(_PAYLOAD_SECONDS, self._settings.grace_seconds))

    async def _load(self) -> None:
        repository = self._core.repository
        for name in repository.names():
            if repository.entry(name).is_wanted:
                await repository.load_here(name)
        self._post.board.mark_ready(self._post.place)
        await self._listen(self._post.place)
        await self._listen_grpc()
        entries = [repository.entry(name) for name in repository.names()]
        loaded = [facts(entry.batcher.served, entry.folder) for entry in entries if entry.batcher is not None]
        if self._control is not None:
            self._control.ready(loaded)
        elif self._settings.announce:
            announce(self._settings, sockets.port_of(self._post.listeners[0]), loaded)

    async def _ticking(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._core.tick()
            self._state.default_headers = [(b"date", self._core.date[6:-2])]
            now = time.monotonic()
            for connection in list(self._state.connections):
                connection.tick(now)  # type: ignore[union-attr]  # all are ours
            self._metrics.connections(len(self._state.connections))
            if self._core.payloads is not None:
                self._metrics.payloads(self._core.payloads.counts())
            self._read_again()

    def _read_again(self) -> None:
        if self._tokens is not None:
            self._tokens.read_again()
        if self._certificate is not None:
            self._certificate.read_again()

    def _end(self) -> None:
        self._is_last = True
        self._stop.set()

    async def _drain(self) -> None:
        self._core.repository.draining = True
        await self._until(lambda: False, self._settings.drain_seconds)
        if self._grpc is not None:
            # Clients are told to go elsewhere with what is new; calls in flight have as long as HTTP's requests.
            ending = asyncio.get_running_loop().create_task(self._grpc.stop(self._settings.grace_seconds))
            await self._drain_http()
            await ending
        else:
            await self._drain_http()

    async def _drain_http(self) -> None:
        if self._is_last:
            for place in self._servers:
                sockets.refuse_more(self._post.listeners[place])
        await asyncio.sleep(0.1)  # in which what has been accepted by the kernel comes in
        for server in self._servers.values():
            server.close()
        closed = time.monotonic()
        # A TLS handshake is no connection yet.
        await self._until(
            lambda: not self._close_idle() and time.monotonic() > closed + 0.2, self._settings.grace_seconds
        )
        if self._state.connections:
            log.warning("%d connections are cut off: their requests took too long", len(self._state.connections))

    def _close_idle(self) -> int:
        """Close the connections without a request; gives how many are left.

        One that was accepted, or answered, just now may have a request on its way.
        """
        before = time.monotonic() - _QUIET_SECONDS
        for connection in list(self._state.connections):
            if connection.is_idle_since(before):  # type: ignore[union-attr]  # all are ours
                connection.transport.close()
        return len(self._state.connections)

    @staticmethod
    async def _until(is_done: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not is_done() and time.monotonic() < end:
            await asyncio.sleep(0.02)


def _version() -> str:
    try:
        return version("sluiceway")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


def serve(settings: Settings, post: Post) -> None:
    """Serve in this process until told to stop.

    Raises:
        SluicewayError: the model cannot be served.
    """
    import uvloop

    async def run() -> None:
        await Process(settings, post).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
