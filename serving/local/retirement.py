"""How a revision leaves: without traffic, without requests in flight, out of Envoy, and only then ended."""

import logging
import time
from enum import Enum

from serving.local.ingress import Ingress
from serving.local.servers import Server

log = logging.getLogger("sluiceway.supervisor")

_DRAIN_AT_LEAST = 0.3  # a worker of Envoy may still hold the old weights for a moment
_DRAIN_AT_MOST = 60.0
_END_GRACE = 35.0  # the server itself gives requests in flight 30 s


class Stage(Enum):
    """How far it is."""

    SERVING = "serving"
    DRAINING = "draining"
    REMOVED = "removed"
    ENDING = "ending"


class Retirement:
    """One revision on its way out; call :meth:`tick` often."""

    def __init__(self, server: Server) -> None:
        """Begin with a server that may still have traffic."""
        self.server = server
        self._stage = Stage.SERVING
        self._since = time.monotonic()

    @property
    def in_envoy(self) -> bool:
        """Whether Envoy should still know the revision."""
        return self._stage in (Stage.SERVING, Stage.DRAINING)

    def tick(self, ingress: Ingress) -> bool:
        """One step further, if it is time; whether the server is gone."""
        name, waited = self.server.revision, time.monotonic() - self._since
        unreachable = not self.server.running or not ingress.envoy.running
        if self._stage is Stage.SERVING and (unreachable or name not in (ingress.in_force or {})):
            self._enter(Stage.DRAINING)
        elif self._stage is Stage.DRAINING:
            in_flight = ingress.active.get(name, (0, False))[0]
            idle = waited > _DRAIN_AT_LEAST and not in_flight
            if unreachable or idle or waited > _DRAIN_AT_MOST:
                self._enter(Stage.REMOVED)
        elif self._stage is Stage.REMOVED and (unreachable or name not in ingress.active or waited > _DRAIN_AT_MOST):
            if self.server.running and self.server.process is not None:
                log.info("%s is drained; ending its server", name)
                self.server.process.terminate()
            self._enter(Stage.ENDING)
        elif self._stage is Stage.ENDING and self.server.running and waited > _END_GRACE:
            assert self.server.process is not None
            self.server.process.kill()
        return self._stage is Stage.ENDING and not self.server.running

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._since = time.monotonic()
