"""The supervisor of one service: makes the document true, again and again, until it is told to end.

One process per service, one thread. It reads the document, keeps one server per revision and Envoy alive, moves
traffic only between what is ready, takes a revision out of Envoy before it ends its server, and writes the status.
"""

import fcntl
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from components.errors import BadInput
from components.files import write_json
from serving.local import revisions, status
from serving.local.document import InferenceService, template_of, validated
from serving.local.folder import Folder, read_json
from serving.local.ingress import Ingress
from serving.local.processes import HOST, end, kill_leftovers, record
from serving.local.retirement import Retirement
from serving.local.revisions import Memory
from serving.local.servers import Server
from serving.local.status import View

log = logging.getLogger("sluiceway.supervisor")

TICK_SECONDS = 0.05
_LOCK_SECONDS = 3.0
_END_SECONDS = 10.0


class Supervisor:
    """The control loop; :meth:`tick` does all of it once and returns soon."""

    def __init__(self, folder: Folder) -> None:
        """Remember what an earlier supervisor of the service left."""
        self.folder = folder
        self.service = folder.path.name
        self.memory = Memory.model_validate(read_json(folder.memory, {}))
        self.servers: dict[str, Server] = {}
        self.leaving: dict[str, Retirement] = {}
        self.ingress = Ingress(self.service, folder.envoy)
        self.document: InferenceService | None = None
        self._stamp: tuple[int, int] | None = None
        self._published: dict[str, Any] = folder.read_status()
        self._recorded: list[int] = []

    def tick(self) -> bool:
        """Bring the world one step nearer to the document; False when there is no document."""
        if not self._observe():
            return False
        if self.document is not None:
            self._keep_servers()
            self._keep_ingress()
            self._retire()
            self._record()
            self._publish()
        return True

    def _observe(self) -> bool:
        try:
            found = self.folder.document.stat()
        except FileNotFoundError:
            return False
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp == self._stamp:
            return True
        self._stamp = stamp
        raw = self.folder.read_document()
        try:
            self.document = validated(raw)
        except BadInput as error:
            log.error("the document is ignored: %s", error)  # the client refuses it too; someone edited the file
            return True
        assert raw is not None
        self._remember(revisions.observe(self.memory, self.service, template_of(raw), raw["spec"]["predictor"]))
        if self.memory.created in self.servers:
            self.servers[self.memory.created].try_again()
        log.info("observed generation %d: %s", self.document.metadata.generation, self._goal())
        return True

    @property
    def _percent(self) -> int | None:
        return self.document.spec.predictor.canary_traffic_percent if self.document else None

    def _goal(self) -> dict[str, int]:
        return revisions.goal(self.memory, self._percent)

    def _remember(self, memory: Memory) -> None:
        if memory != self.memory:
            self.memory = memory
            write_json(self.folder.memory, memory.model_dump())

    def _keep_servers(self) -> None:
        wanted = revisions.wanted(self.memory)
        for name in wanted:
            if name not in self.servers:
                predictor = self.memory.revisions[name].predictor
                self.servers[name] = Server(self.service, name, predictor, self.folder.server_log(name))
            self.servers[name].tick()
        for name in [name for name in self.servers if name not in wanted]:
            self.leaving[name] = Retirement(self.servers.pop(name))
        latest = self.servers[self.memory.created]
        if latest.ready and self.memory.ready != latest.revision:
            self._remember(self.memory.model_copy(update={"ready": latest.revision}))

    def _keep_ingress(self) -> None:
        assert self.document is not None
        port = self.ingress.keep(self.document.port, self.memory.port)
        self._remember(self.memory.model_copy(update={"port": port}))
        latest = self.servers[self.memory.created]
        weights = revisions.weights(self.memory, self._percent, latest.was_ready)
        desired = {name: percent for name, percent in weights.items() if percent}
        ports = {name: server.port for name, server in self.servers.items() if server.was_ready}
        for name, retirement in self.leaving.items():
            if retirement.in_envoy and retirement.server.was_ready:
                ports[name] = retirement.server.port
        self.ingress.route(desired, ports, unsettled=bool(self.leaving))
        if desired and self.ingress.in_force == desired:
            self._remember(revisions.rolled_out(self.memory, desired, self._percent))

    def _retire(self) -> None:
        for name, retirement in list(self.leaving.items()):
            if retirement.tick(self.ingress):
                del self.leaving[name]

    def _all_servers(self) -> dict[str, Server]:
        return {**self.servers, **{name: retirement.server for name, retirement in self.leaving.items()}}

    def _record(self) -> None:
        """Note the children's process ids, for whoever has to clean up after this process."""
        envoy = self.ingress.envoy.process
        running = [server.process.pid for server in self._all_servers().values() if server.process]
        running += [envoy.pid] if envoy else []
        if running != self._recorded:
            record(self.folder.children, running)
            self._recorded = running

    def _publish(self) -> None:
        assert self.document is not None
        envoy = self.ingress.envoy
        local = {
            "supervisor": {"pid": os.getpid()},
            "envoy": {
                "pid": envoy.process.pid if envoy.process else None,
                "admin": f"http://{HOST}:{envoy.admin_port}" if envoy.admin_port else None,
            },
        }
        view = View(
            generation=self.document.metadata.generation,
            memory=self.memory,
            goal=self._goal(),
            in_force=self.ingress.in_force,
            servers=self._all_servers(),
            unhealthy=self.ingress.unhealthy(),
            ingress=self.ingress.finding,
            local=local,
        )
        self._write(status.render(view, self._published))

    def _write(self, now: dict[str, Any]) -> None:
        if now != self._published:
            write_json(self.folder.status, now)
            self._published = now

    def end(self) -> None:
        """End Envoy, then the servers, and say so in the status."""
        log.info("ending")
        self.ingress.envoy.stop()
        end([server.process for server in self._all_servers().values() if server.process], _END_SECONDS)
        self.folder.children.unlink(missing_ok=True)
        if self.folder.path.is_dir() and self._published:
            self._write(status.stopped(self._published, "The service was stopped; apply it again to start it."))


def main(path: Path) -> int:
    """Supervise until SIGTERM or until the document is gone; a second supervisor of one service leaves at once."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    folder = Folder(path)
    if not _take(folder.lock):
        log.info("another supervisor has %s", path)
        return 0
    for pid in kill_leftovers(folder.children):
        log.warning("killed process %d, left by an earlier supervisor", pid)
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    signal.signal(signal.SIGINT, lambda number, _: told.append(number))
    log.info("supervising %s as process %d", path, os.getpid())
    supervisor = Supervisor(folder)
    try:
        while not told and supervisor.tick():
            time.sleep(TICK_SECONDS)
    finally:
        supervisor.end()
    return 0


def _take(lock: Path) -> bool:
    """Hold the lock for as long as this process lives; others only ever look at it for a moment."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return True
