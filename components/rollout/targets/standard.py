"""KServe in Standard mode: ``spec.canary[]``, and an HTTPRoute whose weights KServe writes.

Each release's predictor has a name, so that it has a Deployment and a Service of its own, called
``{service}-{name}-predictor``, and a promotion is a new name for the stable predictor instead of new pods. The order of
the writes keeps the servers that are ready at least as many as the traffic needs:

- KServe takes the servers of canaries that are ready off the champion's least number, so that is raised by as many for
  the time of the rollout. A champion with one server keeps it in any case.
- A canary gets its servers first and its traffic when they are ready. It always has at least one: by KServe's own rule
  it would have none at 0 %, and never become ready.
- A promotion deletes the champion's Deployment before the route is written: so the canary has all traffic and as many
  servers as the champion before, then takes its place with that number, and scales only then.
- A rollback takes the traffic first and the canary last. Where the champion is gone already it comes back as a canary
  of the candidate, the same way. Unless the candidate is dead: KServe leaves the routes of a predictor that is not
  ready as they are, so the champion is then put in its place at once.
"""

import contextlib
import copy
import math
import re
from dataclasses import dataclass
from typing import Any

from components.cluster.api import HTTP_ROUTE, INFERENCE_SERVICE
from components.errors import BadInput, Changed
from components.rollout.document import CONTAINER, OURS, startup_probe
from components.rollout.release import Release
from components.rollout.targets import kserve_routes as routes
from components.rollout.targets.kserve import KServe, refuse_percent, refuse_scale_to_zero
from components.rollout.targets.kserve_fields import at, by, difference, serves
from components.rollout.targets.target import Copies, Sight, Staged

Plain = dict[str, Any]

_NOT_ON_A_CANARY = ("maxReplicas", "scaleTarget", "scaleMetric", "scaleMetricType", "autoScaling", "workerSpec")
_STABLE = "spec.predictor"
_CANARY = "spec.canary[0]"


class Standard(KServe):
    """A service whose versions are predictors with names."""

    mechanism = "standard"
    mode = "Standard"

    def check(self) -> None:
        """See :meth:`KServe.check`."""
        refuse_scale_to_zero(self.deployment)
        super().check()

    def manifest(self, release: Release) -> Plain:
        """The InferenceService once a release has all traffic."""
        manifest = self._document(release, args=[f"--revision={self._workload(_name(release))}"])
        predictor = manifest["spec"]["predictor"]
        predictor["name"] = _name(release)
        if predictor["model"].get("runtime") == OURS:
            predictor["model"]["startupProbe"] = startup_probe(self.deployment.ready_seconds)
        return manifest

    def deploy(self, release: Release) -> None:
        """Give a release all traffic: in place of what is there, whose servers end as the new ones start."""
        if self._ours() is not None and self._promoted(release):
            return
        self._apply(self.manifest(release))
        self._await_alone(release, 1)

    def stage(self, release: Release) -> Staged:
        """Start a release as a canary with one server and 0 %."""
        ours = self._ours()
        if ours is None:
            self.deploy(release)
        elif not serves(ours["spec"]["predictor"], release):
            self._refuse_what_kserve_cannot(ours, release)
            if at(ours, _CANARY) and not serves(at(ours, f"{_CANARY}.predictor"), release):
                self._drop_canary(ours)  # left over from a rollout that was given up
                ours = self._ours() or ours
            size = self._size(ours)
            self._apply(self._split(ours, release, _Split(0, 1, size)))
            self._await_split(release, 0, 1)
        workload = self._workload(_name(release))
        return Staged(workload, self._address(workload))

    def shift(self, release: Release, percent: int) -> None:
        """Servers first, then their share of the traffic."""
        refuse_percent(percent)
        ours = self._ours()
        if ours is None:
            raise Changed(f"The InferenceService {self.service} is gone: it was removed by somebody else.")
        if serves(ours["spec"]["predictor"], release):
            return  # promoted already
        if not serves(at(ours, f"{_CANARY}.predictor") or {}, release):
            raise Changed(self._taken(release))
        size = self._size(ours)
        now = _Split(
            at(ours, f"{_CANARY}.trafficPercent") or 0, at(ours, f"{_CANARY}.predictor.minReplicas") or 1, size
        )
        servers = max(1, math.ceil(size * percent / 100))
        if servers > now.servers:
            self._apply(self._split(ours, release, _Split(now.percent, servers, size)))
            self._await_split(release, now.percent, servers)
        self._apply(self._split(ours, release, _Split(percent, max(servers, now.servers), size)))
        self._await_split(release, percent, servers)

    def promote(self, release: Release) -> None:
        """All traffic, as many servers as the champion had, then its place, then its own numbers."""
        ours = self._ours()
        if ours is not None and not serves(ours["spec"]["predictor"], release):
            size = self._size(ours)
            self.shift(release, 100)
            self._apply(self._in_place(release, size))
            self._await_alone(release, size)
        self._apply(self.manifest(release))
        self._await_alone(release, 1)

    def roll_back(self, stable: Release, candidate: Release) -> None:
        """The traffic first, the canary last; after a promotion, the same way in the other direction."""
        ours = self._ours()
        if ours is not None and serves(ours["spec"]["predictor"], stable):
            if at(ours, _CANARY):
                self._drop_canary(ours)
        elif ours is not None and self._available(self._workload(at(ours, f"{_STABLE}.name") or "")):
            # What KServe cannot do with a canary is no reason to stay: the champion then takes the place at once.
            with contextlib.suppress(BadInput):
                self.stage(stable)
                self.promote(stable)
        self._apply(self.manifest(stable))
        self._await_alone(stable, 1)

    def look(self, stable: Release | None, candidate: Release, percent: int) -> Sight:
        """Deployments and the route that clients take."""
        live = self._live()
        if live is None:
            return Sight(0, Copies(), Copies(), f"the InferenceService {self.service} is gone")
        name = self._workload(at(live, f"{_STABLE}.name") or "")
        theirs = self._workload(_name(candidate))
        share = routes.shares(self.cluster.get(HTTP_ROUTE, self.service)).get(theirs, 0)
        alone = serves(live["spec"]["predictor"], candidate)
        return Sight(
            weight=100 if alone and not share else share,
            stable=Copies() if stable is None or alone else self._of(name),
            canary=self._of(theirs),
            changed=self._changed(live, stable, candidate, percent),
        )

    def _changed(self, live: Plain, stable: Release | None, candidate: Release, percent: int) -> str:
        wanted, paths = self.manifest(candidate), [_STABLE]
        if stable is not None and not serves(live["spec"]["predictor"], candidate):
            canary = {"trafficPercent": percent, "predictor": wanted["spec"]["predictor"]}
            wanted = {"spec": {"predictor": self.manifest(stable)["spec"]["predictor"], "canary": [canary]}}
            paths = [_STABLE, f"{_CANARY}.predictor"]
            if said := difference(live, f"{_CANARY}.trafficPercent", percent):
                return said
        for path in (f"{one}.model.{field}" for one in paths for field in ("storageUri", "image")):
            if said := difference(live, path, at(wanted, path)):
                return said
        for path in (f"{_STABLE}.minReplicas", f"{_STABLE}.maxReplicas"):
            if self.applier.direct and (other := by(live, path)):
                return f"{path} is {at(live, path)}{other}"
        return ""

    def _of(self, workload: str) -> Copies:
        return self._copies(workload, f"app=isvc.{workload}", workload, self._address(workload))

    def _workload(self, name: str) -> str:
        return f"{self.service}-{name}-predictor" if name else f"{self.service}-predictor"

    def _address(self, workload: str) -> str:
        return f"http://{workload}.{self.cluster.namespace}.svc.cluster.local"

    def _ours(self) -> Plain | None:
        """The InferenceService as we applied it last; None when there is none.

        Raises:
            Changed: there is one, but not ours: its champion is not known.
        """
        ours = self.applier.current(INFERENCE_SERVICE, self.service)
        if ours is None and self._live() is not None:
            raise Changed(
                f"The InferenceService {self.service} was made by somebody else: remove it, or choose another name."
            )
        return ours

    def _promoted(self, release: Release) -> bool:
        live = self._live()
        if live is None or not serves(live["spec"]["predictor"], release) or at(live, _CANARY):
            return False
        return self._alone(release, 1) is True

    def _size(self, ours: Plain) -> int:
        """How many servers the champion needs for all traffic: see :meth:`_split` for how it is kept."""
        least = at(ours, f"{_STABLE}.minReplicas") or 1
        if at(ours, _CANARY):
            taken = at(ours, f"{_CANARY}.predictor.minReplicas") or 1
            return max(1, least - taken)
        return max(least, self._available(self._workload(at(ours, f"{_STABLE}.name") or "")))

    def _split(self, ours: Plain, release: Release, split: "_Split") -> Plain:
        """The champion as it is, and the canary."""
        manifest = copy.deepcopy(ours)
        manifest["metadata"]["namespace"] = self.cluster.namespace
        stable = manifest["spec"]["predictor"]
        _at_least(stable, split.servers + split.size if split.size > 1 else 1)
        canary = copy.deepcopy(self.manifest(release)["spec"]["predictor"])
        canary = {field: value for field, value in canary.items() if field not in _NOT_ON_A_CANARY}
        canary["minReplicas"] = split.servers
        canary["model"]["name"] = CONTAINER
        manifest["spec"]["canary"] = [{"trafficPercent": split.percent, "predictor": canary}]
        return manifest

    def _in_place(self, release: Release, servers: int) -> Plain:
        """The release as the champion, with at least so many servers."""
        manifest = self.manifest(release)
        predictor = manifest["spec"]["predictor"]
        _at_least(predictor, max(servers, predictor.get("minReplicas", 1)))
        return manifest

    def _drop_canary(self, ours: Plain) -> None:
        """No traffic for the canary, then the champion with as many servers as it had, then no canary."""
        size = self._size(ours)
        stable = self._workload(at(ours, f"{_STABLE}.name") or "")
        if at(ours, f"{_CANARY}.trafficPercent"):
            ours = copy.deepcopy(ours)
            ours["metadata"]["namespace"] = self.cluster.namespace
            ours["spec"]["canary"][0]["trafficPercent"] = 0
            self._apply(ours)
        self._await_route({stable: 100}, stable)
        without = copy.deepcopy(ours)
        without["metadata"]["namespace"] = self.cluster.namespace
        del without["spec"]["canary"]
        _at_least(without["spec"]["predictor"], size)
        self._apply(without)
        self._await(
            lambda live: (not at(live, "spec.canary") and self._available(stable) >= size) or None,
            f"The servers of {stable} did not become {size} again",
            lambda: [f"app=isvc.{stable}"],
        )

    def _taken(self, release: Release) -> str:
        """What has become of the canary, which is a list with one owner, and by whom."""
        live = self._live() or {}
        source, percent = (at(live, f"{_CANARY}.{path}") for path in ("predictor.model.storageUri", "trafficPercent"))
        now = f"is now {source} at {percent} %" if at(live, _CANARY) else "is gone"
        who = by(live, "spec.canary")
        return (
            f"The canary of the InferenceService {self.service} {now}{who}, and was version {release.version}, from "
            f"{release.uri}: this is left as it is, so decide by hand."
        )

    def _await_split(self, release: Release, percent: int, servers: int) -> None:
        """Wait until the canary's servers are ready and the routes give it exactly its share."""
        workload = self._workload(_name(release))

        def done(live: Plain) -> bool | None:
            if at(live, f"{_CANARY}.trafficPercent") != percent:
                if self.applier.direct:
                    said = difference(live, f"{_CANARY}.trafficPercent", percent)
                    raise Changed(f"Somebody has changed the InferenceService {self.service} meanwhile: {said}.")
                return None
            statuses = at(live, "status.canaryStatuses") or []
            if not any(one["name"] == _name(release) and one["ready"] for one in statuses):
                return None
            stable = self._workload(at(live, f"{_STABLE}.name") or "")
            wanted = {stable: 100 - percent, workload: percent}
            return (self._available(workload) >= servers and self._routed(wanted)) or None

        self._await(
            done,
            f"Version {release.version} of {self.service} did not become ready with {percent} % of the traffic",
            lambda: [f"app=isvc.{workload}"],
        )

    def _await_alone(self, release: Release, servers: int) -> None:
        """Wait until the release alone is served, by so many servers, at an address that KServe has told."""
        workload = self._workload(_name(release))

        def done(live: Plain) -> bool | None:
            told = serves(live["spec"]["predictor"], release) and bool(at(live, "status.url"))
            return (told and self._alone(release, servers)) or None

        self._await(
            done,
            f"Version {release.version} of {self.service} did not become ready with all traffic",
            lambda: [f"app=isvc.{workload}"],
        )

    def _alone(self, release: Release, servers: int) -> bool:
        workload = self._workload(_name(release))
        return self._available(workload) >= servers and self._routed({workload: 100})

    def _await_route(self, wanted: dict[str, int], workload: str) -> None:
        self._await(
            lambda _live: self._routed(wanted) or None,
            f"The traffic of {self.service} did not go back to {workload}",
            lambda: [f"app=isvc.{workload}"],
        )

    def _routed(self, wanted: dict[str, int]) -> bool:
        """Whether every route that KServe keeps for the service is in force with exactly these shares."""
        top = self.cluster.get(HTTP_ROUTE, self.service)
        below = self.cluster.get(HTTP_ROUTE, f"{self.service}-predictor")
        return routes.in_force(top, wanted) and (below is None or routes.in_force(below, wanted))

    def _refuse_what_kserve_cannot(self, ours: Plain, release: Release) -> None:
        stable, wanted = ours["spec"]["predictor"], self.manifest(release)["spec"]["predictor"]
        before, after = (at(one, "model.storageUri") or "" for one in (stable, wanted))
        cannot = f"Standard mode cannot roll out version {release.version} of {self.service}"
        if before == after:
            raise BadInput(
                f"{cannot}: KServe refuses a promotion that leaves storageUri as it is ({after or 'left out'}); serve "
                "it from another place, or use two-services."
            )
        if stable.get("name") == _name(release):
            raise BadInput(f"{cannot}: a version of this number is served already, from {before}.")
        if left := _inherited(stable, wanted):
            raise BadInput(
                f"{cannot}: a canary takes over from the champion what it does not set itself, here {', '.join(left)}; "
                "set it for both, or use two-services."
            )


@dataclass(frozen=True)
class _Split:
    """The canary's share in percent and servers; ``size`` are the servers that all traffic needs."""

    percent: int
    servers: int
    size: int


def _name(release: Release) -> str:
    """The predictor's name: one per version."""
    return "v" + (re.sub(r"[^a-z0-9]+", "-", release.version.lower()).strip("-") or "0")


def _at_least(predictor: Plain, servers: int) -> None:
    predictor["minReplicas"] = servers
    if predictor.get("maxReplicas"):
        predictor["maxReplicas"] = max(predictor["maxReplicas"], servers)


def _inherited(stable: Plain, canary: Plain, path: str = "") -> list[str]:
    """Fields that the canary would take over from the champion: KServe lays it over the champion's predictor."""
    left: list[str] = []
    for field, value in stable.items():
        where = f"{path}.{field}" if path else field
        if field in _NOT_ON_A_CANARY or where == "name" or value in ({}, [], ""):
            continue
        own = canary.get(field)
        if own in (None, {}, [], ""):
            left.append(where)
        elif isinstance(value, dict) and isinstance(own, dict):
            left += _inherited(value, own, where)
    return left
