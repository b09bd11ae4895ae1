"""Two InferenceServices behind an HTTPRoute of our own: for clusters whose KServe cannot split traffic itself.

There are two slots, ``{service}`` and ``{service}-canary``. One holds the champion, the other one is free or holds the
challenger, and the route ``{service}-split`` says how much each gets. A promotion takes the route away from the other
slot and ends that; the challenger stays where it is, so the next one starts in the slot that has become free.

The other way would be to give the slot ``{service}`` the new model and send the traffic back there. It was not taken:
it starts every model twice, and what then serves are not the servers that were judged. What must not change for clients
is the address and the model's name in it, and neither depends on the slot: they use the route's host name, and both
slots' servers are told to call the model by the service's name. No step needs fewer servers than the traffic: a slot's
servers are ready before the route gives it a share, and have lost their share before they end.

KServe makes routes called ``{service}`` and ``{service}-predictor`` of its own where it uses Gateway API, hence the
other name; and host names ``{service}-{namespace}.DOMAIN``, hence the other form of ours.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

from components.cluster.api import HTTP_ROUTE, INFERENCE_SERVICE, Cluster
from components.errors import BadInput, Changed, NotReady
from components.rollout.deployment import Deployment
from components.rollout.document import OURS, readiness_probe, startup_probe
from components.rollout.release import Release
from components.rollout.targets import kserve_routes as routes
from components.rollout.targets.kserve import KServe, refuse_percent, refuse_scale_to_zero
from components.rollout.targets.kserve_applier import Applier, Guard
from components.rollout.targets.kserve_fields import at, by, difference, serves
from components.rollout.targets.target import Copies, Sight, Staged

Plain = dict[str, Any]

_MODEL = "spec.predictor.model"
_NAMED_BY_FLAG = ("sklearn", "xgboost", "lightgbm", "pmml", "paddle", "huggingface", "tensorflow")
_NAMED_BY_FOLDER = ("triton", "onnx", "pytorch")


class TwoServices(KServe):
    """A service whose versions are InferenceServices."""

    mechanism = "two-services"
    mode = "Standard"

    def __init__(
        self,
        cluster: Cluster,
        service: str,
        deployment: Deployment,
        guard: Guard = lambda: None,
        applier: Applier | None = None,
        mode: str = "",
        gateway: tuple[str, str] = ("", ""),
        domain: str = "",
        mirror_percent: int = 0,
    ) -> None:
        """Name the service; nothing is asked yet.

        Args:
            cluster: see :class:`KServe`, as the next four.
            service: its name.
            deployment: how it is served.
            guard: asked before every write.
            applier: how manifests reach the cluster.
            mode: what this version of KServe calls Standard mode.
            gateway: namespace and name of the Gateway that the route hangs on.
            domain: that the host name ends in, where the deployment names none.
            mirror_percent: share of the champion's requests that a staged challenger gets a copy of; its answers are
                thrown away.
        """
        super().__init__(cluster, service, deployment, guard, applier, mode)
        self.slots = (service, f"{service}-canary")
        self.route_name = f"{service}-split"
        self.hostname = deployment.hostname or (f"{service}.{cluster.namespace}.{domain}" if domain else "")
        self._gateway = gateway
        self._mirror = mirror_percent

    def check(self) -> None:
        """See :meth:`KServe.check`."""
        refuse_scale_to_zero(self.deployment)
        super().check()
        if not self.hostname:
            raise BadInput(f"The host name of {self.service} is not known: set deployment.hostname.")
        runtime = self.deployment.runtime
        if runtime not in (OURS, "mlflow", *_NAMED_BY_FLAG, *_NAMED_BY_FOLDER):
            raise BadInput(
                f"How {runtime} is told the model's name is not known, and two-services needs it: choose another."
            )

    def manifest(self, release: Release, slot: str, servers: int = 0) -> Plain:
        """The InferenceService of a release in a slot, with at least so many servers."""
        named = [f"--revision={slot}-predictor", f"--name={self.service}"]
        manifest = self._document(release, name=slot, args=named)
        predictor = manifest["spec"]["predictor"]
        model, runtime = predictor["model"], self.deployment.runtime
        if model.get("runtime") == OURS:
            model["startupProbe"] = startup_probe(self.deployment.ready_seconds)
            model["readinessProbe"] = readiness_probe(self.service)  # the runtime's asks by the slot's name
        elif runtime in _NAMED_BY_FLAG:
            model["args"] = [*model.get("args", []), f"--model_name={self.service}"]
        elif runtime == "mlflow":
            model["env"] = [*model.get("env", []), {"name": "MLSERVER_MODEL_NAME", "value": self.service}]
        _at_least(predictor, servers)
        return manifest

    def route(self, shares: dict[str, int], mirrored: str = "") -> Plain:
        """Our HTTPRoute: percent by slot, and the slot that gets copies of requests."""
        rule: Plain = {
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [_backend(slot) | {"weight": share} for slot, share in shares.items()],
        }
        if mirrored:
            mirror = {"backendRef": _backend(mirrored), "percent": self._mirror}
            rule["filters"] = [{"type": "RequestMirror", "requestMirror": mirror}]
        namespace, name = self._gateway
        parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": namespace, "name": name}
        return {
            "apiVersion": HTTP_ROUTE.api_version,
            "kind": HTTP_ROUTE.kind,
            "metadata": {"name": self.route_name, "namespace": self.cluster.namespace},
            "spec": {"parentRefs": [parent], "hostnames": [self.hostname], "rules": [rule]},
        }

    def live(self) -> bool:
        """Whether the route is in force for a service that is there."""
        route = self.cluster.get(HTTP_ROUTE, self.route_name)
        return any(routes.in_force(route, self._wanted({slot: 100})) or self._live(slot) for slot in self.slots) and (
            route is not None
        )

    def url(self) -> str:
        """The route's address."""
        return f"http://{self.hostname}" if self.cluster.get(HTTP_ROUTE, self.route_name) else ""

    def deploy(self, release: Release) -> None:
        """Start a release in a free slot, give it everything, and end what was there."""
        slot = self._slot_of(release) or self._free()
        self._start(release, slot, 0)
        self._alone(release, slot)

    def stage(self, release: Release) -> Staged:
        """Start a release in the free slot with one server and no share."""
        slot = self._slot_of(release) or self._free()
        other = self._other(slot)
        if self._kept(other) is None:
            if self._slot_of(release) is None:
                self.deploy(release)
        else:
            self._hold(other)
            self._start(release, slot, 1)
            self._send({other: 100, slot: 0}, slot if self._mirror else "")
        return Staged(f"{slot}-predictor", self._address(slot))

    def shift(self, release: Release, percent: int) -> None:
        """Servers first, then their share."""
        refuse_percent(percent)
        slot = self._staged(release)
        other = self._other(slot)
        champion = self._kept(other)
        if champion is None:
            return  # promoted already
        size = max(at(champion, "spec.predictor.minReplicas") or 1, 1)
        self._start(release, slot, max(1, math.ceil(size * percent / 100)))
        self._send({other: 100 - percent, slot: percent})

    def promote(self, release: Release) -> None:
        """All of the route, then the end of the other slot, then the release's own number of servers."""
        slot = self._staged(release)
        if self._kept(self._other(slot)) is not None:
            self.shift(release, 100)
        self._alone(release, slot)

    def roll_back(self, stable: Release, candidate: Release) -> None:
        """The route first; a champion that is gone already is started again before."""
        slot = self._slot_of(stable)
        if slot is None:
            theirs = self._slot_of(candidate)
            slot = self._other(theirs) if theirs else self._free()
            size = self._available(f"{theirs}-predictor") if theirs else 0
            self._start(stable, slot, size)
        self._alone(stable, slot)

    def remove(self) -> None:
        """End the route and both slots."""
        self.applier.delete(HTTP_ROUTE, self.route_name)
        for slot in self.slots:
            self.applier.delete(INFERENCE_SERVICE, slot)

    def look(self, stable: Release | None, candidate: Release, percent: int) -> Sight:
        """The route and both slots."""
        route = self.cluster.get(HTTP_ROUTE, self.route_name)
        slot, before = self._shown(candidate), self._shown(stable) if stable else None
        if route is None or slot is None:
            gone = f"the HTTPRoute {self.route_name}" if route is None else f"version {candidate.version}"
            return Sight(0, self._of(before), self._of(slot), f"{gone} is gone")
        share = routes.shares(route).get(f"{slot}-predictor", 0)
        changed = ""
        if before and share != percent:
            owner = by(route, "spec.rules")
            changed = f"the share of {slot} in the HTTPRoute {self.route_name} is {share} instead of {percent}{owner}"
        for release, where in ((candidate, slot), (stable, before)):
            if release is not None and where and not changed:
                changed = self._changed(release, where)
        return Sight(share, self._of(before), self._of(slot), changed)

    def _changed(self, release: Release, slot: str) -> str:
        live, wanted = self._live(slot) or {}, self.manifest(release, slot)
        for path in (f"{_MODEL}.storageUri", f"{_MODEL}.image"):
            if said := difference(live, path, at(wanted, path)):
                return f"in {slot} {said}"
        for path in ("spec.predictor.minReplicas", "spec.predictor.maxReplicas"):
            if self.applier.direct and (other := by(live, path)):
                return f"in {slot} {path} is {at(live, path)}{other}"
        return ""

    def _of(self, slot: str | None) -> Copies:
        if not slot:
            return Copies()
        workload = f"{slot}-predictor"
        return self._copies(workload, f"app=isvc.{workload}", workload, self._address(slot))

    def _address(self, slot: str) -> str:
        return f"http://{slot}-predictor.{self.cluster.namespace}.svc.cluster.local"

    def _slot_of(self, release: Release) -> str | None:
        """The slot that a release is kept in."""
        return self._serving(release, self._kept)

    def _shown(self, release: Release) -> str | None:
        """The slot that a release is seen in, on its way out or not; asks no repository."""
        return self._serving(release, self._live)

    def _serving(self, release: Release, look: Callable[[str], Plain | None]) -> str | None:
        for slot in self.slots:
            live = look(slot)
            if live is not None and serves(live["spec"]["predictor"], release):
                return slot
        return None

    def _kept(self, slot: str) -> Plain | None:
        """The InferenceService in a slot; None for one on its way out, which finalizers or GitOps may leave for long.

        Traffic that is given back to such a one is lost as soon as it is gone.
        """
        live = self._live(slot)
        if live is None or live["metadata"].get("deletionTimestamp"):
            return None
        gone = not self.applier.direct and self.applier.current(INFERENCE_SERVICE, slot) is None
        return None if gone else live

    def _staged(self, release: Release) -> str:
        slot = self._slot_of(release)
        if slot is None:
            raise Changed(
                f"Version {release.version} of {self.service} is gone: neither of {' and '.join(self.slots)} is it."
            )
        return slot

    def _other(self, slot: str) -> str:
        return self.slots[1] if slot == self.slots[0] else self.slots[0]

    def _free(self) -> str:
        """A slot that has no traffic: an empty one, or one left over from a rollout that was given up."""
        share = routes.shares(self.cluster.get(HTTP_ROUTE, self.route_name))
        empty = (slot for slot in self.slots if self._kept(slot) is None)
        return next(empty, min(self.slots, key=lambda slot: share.get(f"{slot}-predictor", 0)))

    def _hold(self, slot: str) -> None:
        """Keep the champion at as many servers as it has: the share that it loses may come back at any moment."""
        ours = self.applier.current(INFERENCE_SERVICE, slot)
        if ours is None:
            raise Changed(f"The InferenceService {slot} was made by somebody else: remove it, or choose another name.")
        servers = self._available(f"{slot}-predictor")
        if servers > (at(ours, "spec.predictor.minReplicas") or 1):
            held = copy.deepcopy(ours)
            held["metadata"]["namespace"] = self.cluster.namespace
            _at_least(held["spec"]["predictor"], servers)
            self._apply(held)

    def _start(self, release: Release, slot: str, servers: int) -> None:
        """Have a release in a slot with so many servers ready; 0 takes the release's own number."""
        manifest = self.manifest(release, slot)
        if servers:
            manifest["spec"]["predictor"]["minReplicas"] = servers
            _at_least(manifest["spec"]["predictor"], servers)
        workload = f"{slot}-predictor"
        self._await_end(slot)
        self._apply(manifest)
        self._await(
            lambda live: (
                (serves(live["spec"]["predictor"], release) and self._available(workload) >= max(servers, 1)) or None
            ),
            f"Version {release.version} of {self.service} did not become ready",
            lambda: [f"app=isvc.{workload}"],
            name=slot,
        )

    def _await_end(self, slot: str) -> None:
        """Wait until what is being deleted is gone: it cannot be kept, and what is made of it would go too."""
        live = self._live(slot)
        if live is None or not live["metadata"].get("deletionTimestamp"):
            return
        seconds = self.deployment.ready_seconds
        if not self.cluster.wait(INFERENCE_SERVICE, slot, lambda now: now is None or None, seconds):
            raise NotReady(
                f"The InferenceService {slot} is being deleted and was not gone within {seconds:.0f} s: look at its "
                "finalizers."
            )

    def _alone(self, release: Release, slot: str) -> None:
        """All traffic for one slot, the end of the other one, then the release's own number of servers."""
        self._send({slot: 100})
        if self._kept(self._other(slot)) is not None:
            self.applier.delete(INFERENCE_SERVICE, self._other(slot))
        self._apply(self.manifest(release, slot))

    def _send(self, shares: dict[str, int], mirrored: str = "") -> None:
        self._apply(self.route(shares, mirrored))
        wanted = self._wanted(shares)
        self._await(
            lambda route: routes.in_force(route, wanted) or None,
            f"The HTTPRoute {self.route_name} did not come into force",
            lambda: [f"app=isvc.{slot}-predictor" for slot in shares],
            name=self.route_name,
            kind=HTTP_ROUTE,
        )

    def _wanted(self, shares: dict[str, int]) -> dict[str, int]:
        return {f"{slot}-predictor": share for slot, share in shares.items()}


def _backend(slot: str) -> Plain:
    return {"group": "", "kind": "Service", "name": f"{slot}-predictor", "port": 80}


def _at_least(predictor: Plain, servers: int) -> None:
    if servers:
        predictor["minReplicas"] = max(servers, predictor.get("minReplicas", 1))
        if predictor.get("maxReplicas"):
            predictor["maxReplicas"] = max(predictor["maxReplicas"], predictor["minReplicas"])
