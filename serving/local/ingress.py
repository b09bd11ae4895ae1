"""The ingress: Envoy kept alive on its port, and told who gets what."""

import logging
import time
from pathlib import Path

from serving.local import status
from serving.local.envoy import Envoy
from serving.local.processes import HOST, free_port, is_free
from serving.local.status import Finding

log = logging.getLogger("sluiceway.supervisor")

_CALM_SECONDS = 1.0  # how often a settled proxy is asked whether all is as it was
_CONFIRM_SECONDS = 0.5
_RESTART_SECONDS = 1.0


class Ingress:
    """What the world reaches.

    Attributes:
        envoy: the process.
        finding: whether it listens, for the status.
        in_force: percent per revision as Envoy last confirmed; None while it has not.
        active: per revision that Envoy knows: requests in flight, and whether its server is healthy.
    """

    def __init__(self, service: str, folder: Path) -> None:
        """Nothing is started."""
        self.envoy = Envoy(service, folder)
        self.finding = Finding("Unknown", "ProxyStarting", "Envoy is starting.")
        self.in_force: dict[str, int] | None = None
        self.active: dict[str, tuple[int, bool]] = {}
        self._desired: dict[str, int] = {}
        self._ports: dict[str, int] = {}
        self._port: int | None = None
        self._next_start = 0.0
        self._next_look = 0.0

    def unhealthy(self) -> frozenset[str]:
        """Revisions whose server failed Envoy's health checks when last looked at."""
        return frozenset(name for name, (_, healthy) in self.active.items() if not healthy)

    def keep(self, wish: int | None, remembered: int | None) -> int | None:
        """Keep Envoy running and listening; gives the port.

        Args:
            wish: the port that the document asks for.
            remembered: the port that it had before; kept while it is free.
        """
        if self.envoy.running and (wish is None or wish == self._port):
            return self._port
        if not self.envoy.running:
            self.in_force = None
            self.active = {}
            self._port = None
        port = wish or remembered or free_port()
        if not is_free(port):
            if wish is not None:
                message = f"Port {port} on {HOST} is already in use by another program; free it or ask for another."
                self.finding = Finding("False", status.PORT_TAKEN, message)
                return remembered
            log.warning("port %d is taken by another program now; choosing another", port)
            port = free_port()
        if self.envoy.running or time.monotonic() >= self._next_start:
            self._listen(port)
        return port

    def _listen(self, port: int) -> None:
        self.finding = Finding("Unknown", "ProxyStarting", "Envoy is starting.")
        self.envoy.set_listener(port)
        self._port = port
        self._next_look = 0.0
        if not self.envoy.running:
            self._next_start = time.monotonic() + _RESTART_SECONDS
            # An Envoy that comes back serves what was in force; with nothing in force yet it answers 503.
            self.envoy.set_clusters(self._ports)
            self.envoy.set_weights(self._desired if set(self._desired) <= set(self._ports) else {})
            self.envoy.start()
            log.info("started Envoy on port %d", port)

    def route(self, desired: dict[str, int], ports: dict[str, int], unsettled: bool) -> None:
        """Tell Envoy which servers there are and how to split the traffic; note what it confirms.

        Weights move only when Envoy knows, and has checked, every revision that gets some.

        Args:
            desired: percent per revision, without zeros.
            ports: port of each revision's server.
            unsettled: whether to look at Envoy now, though nothing changed.
        """
        if not self.envoy.answers():
            return
        settled = self.in_force == desired and self._ports == ports and self.finding.status == "True"
        if settled and not unsettled and time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _CALM_SECONDS
        self._ports = dict(ports)
        try:
            self._look(desired)
        except OSError as error:
            log.warning("Envoy's admin interface: %s", error)

    def _look(self, desired: dict[str, int]) -> None:
        self.envoy.set_clusters(self._ports)
        listening, complaint = self.envoy.listens()
        if listening:
            self.finding = Finding("True")
        elif complaint:
            self.finding = Finding("False", status.PROXY_FAILED, f"Envoy refuses the listener: {complaint}")
        self.active = self.envoy.active()
        if all(name in self.active for name in desired):  # a new cluster counts after its first health check
            self.envoy.set_weights(desired)
            self._desired = dict(desired)
        deadline = time.monotonic() + _CONFIRM_SECONDS
        while (weights := self.envoy.weights()) is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if weights is not None and weights != self.in_force:
            log.info("traffic: %s", weights)
            self.in_force = weights
