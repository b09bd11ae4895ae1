"""One serving process: an event loop that listens, loads the model meanwhile, serves, and drains on SIGTERM.

Draining loses no request. First readiness turns false and every reply closes its connection, while new connections are
still accepted: proxies and load balancers learn of an end with some delay. Then the socket is closed, what had been
accepted is answered, and connections that stay idle are closed.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import generate_latest
from uvicorn.config import Config
from uvicorn.server import ServerState

from serving import faults
from serving.server.app import Application
from serving.server.core import Core
from serving.server.hot import Protocol
from serving.server.repository import Repository
from serving.server.settings import Settings
from serving.server.telemetry import Telemetry

log = logging.getLogger("sluiceway.serving")

_BACKLOG = 2_048
_TICK_SECONDS = 1.0


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address, not listening yet.

    Raises:
        OSError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Without this a reply in two writes waits 40 ms for a delayed acknowledgement; the event loop sets it by itself
    # only on sockets that it made.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


class Process:
    """One serving process."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        """Prepare; :meth:`run` serves."""
        self._settings = settings
        self._listener = listener
        self._state = ServerState()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until the model fails to load.

        Raises:
            BadBundle: the bundle cannot be served.
            BadInput: the faults to inject do not read.
        """
        settings = self._settings
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        core = self._core()
        telemetry = Telemetry(settings.name, settings.revision)
        core.repository.add(settings.name, settings.revision, settings.bundle, telemetry)
        core.add(settings.name, telemetry)
        application = Application(core, _version(), generate_latest).starlette()
        config = Config(application, http=Protocol, ws="none", lifespan="off", log_config=None, date_header=True)
        config.load()

        def protocol() -> Protocol:
            return Protocol(config, self._state, {}, loop, core=core)

        server = await loop.create_server(protocol, sock=self._listener, backlog=_BACKLOG)
        ticking = loop.create_task(self._ticking(core))
        loading = loop.create_task(core.repository.load(settings.name))
        loading.add_done_callback(lambda task: self._stop.set() if task.cancelled() or task.exception() else None)
        try:
            await self._stop.wait()
            if loading.done():
                loading.result()
            await self._drain(core, server)
        finally:
            ticking.cancel()
            server.close()

    def _core(self) -> Core:
        core = Core(self._settings.limits, Repository(self._settings.limits))
        injected = faults.from_environment()
        if injected:
            log.warning("FAULTS ARE INJECTED, as %s asks: %s", faults.VARIABLE, injected)
            core.faults = faults.Injector(injected)
        return core

    async def _ticking(self, core: Core) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            core.tick()
            self._state.default_headers = [(b"date", core.date[6:-2])]
            now = time.monotonic()
            for connection in list(self._state.connections):
                connection.tick(now)  # type: ignore[union-attr]  # all are ours

    async def _drain(self, core: Core, server: asyncio.Server) -> None:
        core.repository.draining = True
        await self._until(lambda: False, self._settings.drain_seconds)
        server.close()
        await self._until(lambda: not self._close_idle(), self._settings.grace_seconds)
        if self._state.connections:
            log.warning("%d connections are cut off: their requests took too long", len(self._state.connections))

    def _close_idle(self) -> int:
        """Close the connections without a request; gives how many are left."""
        for connection in list(self._state.connections):
            if connection.is_idle():  # type: ignore[union-attr]
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


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve in this process until told to stop.

    Raises:
        SluicewayError: the model cannot be served.
    """
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Process(settings, listener).run())
