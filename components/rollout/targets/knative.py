"""KServe in Knative mode: one field, ``canaryTrafficPercent``, between the latest revision and the one before.

What decides is the status: revisions and their traffic, as Knative's route has them in force. Two things in it must be
known to follow the order of the writes here.

- Traffic for "the latest" goes to the newest revision that is *ready*. Whoever re-applies the old spec without a
  percentage therefore gives the bad revision everything until the old model has started once more. So a spec is always
  brought in with 0 %, and the percentage is dropped when its revision is ready.
- Once a revision is rolled out whole, a percentage below 100 is a way back: the rest goes to the revision before. That
  is the instant rollback, and what an old step that is tried again must not set off.
"""

import math
from typing import Any

from components.cluster.api import REVISION
from components.errors import Changed, NotReady
from components.rollout.release import Release
from components.rollout.targets.kserve import REVISION_LABEL, KServe, refuse_percent
from components.rollout.targets.kserve_fields import at, difference, revision_serves, serves
from components.rollout.targets.target import Copies, Sight, Staged

Plain = dict[str, Any]

_PERCENT = "spec.predictor.canaryTrafficPercent"
_TAGS = "serving.kserve.io/enable-tag-routing"
_DEADLINE = "serving.knative.dev/progress-deadline"
_CLASS = "autoscaling.knative.dev/class"


class Knative(KServe):
    """A service whose versions are Knative revisions."""

    mechanism = "knative"

    def manifest(self, release: Release, percent: int | None = None) -> Plain:
        """The InferenceService for a release with a share of the traffic; None for all of it, for good."""
        manifest = self._document(release, args=["--revision=$(K_REVISION)"])
        manifest["metadata"]["annotations"][_TAGS] = "true"
        predictor = manifest["spec"]["predictor"]
        deadline = f"{max(1, math.ceil(self.deployment.ready_seconds))}s"
        predictor["annotations"] = {**predictor.get("annotations", {}), _DEADLINE: deadline}
        if predictor.get("scaleMetric") in ("cpu", "memory"):
            manifest["metadata"]["annotations"][_CLASS] = "hpa.autoscaling.knative.dev"
        if percent is not None:
            predictor["canaryTrafficPercent"] = percent
        return manifest

    def deploy(self, release: Release) -> None:
        """Give a release all traffic; what serves meanwhile goes on until it is ready."""
        live = self._live()
        state = _State(live)
        if live is not None and self._promoted(live, release):
            return
        if state.rolled_out:
            self._apply(self.manifest(release, 0))
            self._await_share(release, 0)
        self._apply(self.manifest(release))
        self._await_share(release, None)

    def stage(self, release: Release) -> Staged:
        """Start a release as the latest revision, with 0 %; the tag gives it an address of its own."""
        state = _State(self._live())
        if self._is(state.rolled_out, release):
            return Staged(state.rolled_out, state.url("latest", state.rolled_out))
        if not state.rolled_out:
            self._apply(self.manifest(release))
            state = self._await_share(release, None)
        else:
            self._apply(self.manifest(release, 0))
            state = self._await_share(release, 0)
        return Staged(state.created, state.url("latest", state.created))

    def shift(self, release: Release, percent: int) -> None:
        """Give the staged release a share. At 100 Knative lets the champion's servers end: the field knows no other."""
        refuse_percent(percent)
        live = self._live()
        if live is None and self.applier.direct:  # made anew it would have all traffic at once
            raise Changed(f"The InferenceService {self.service} is gone: it was removed by somebody else.")
        if self._is(_State(live).rolled_out, release):
            return  # promoted already: a percentage now would give the traffic to the model before it
        self._apply(self.manifest(release, percent))
        self._await_share(release, percent)

    def promote(self, release: Release) -> None:
        """All traffic, then without the field, so that the next release finds this one as its champion."""
        live = self._live()
        if live is not None and self._promoted(live, release):
            return
        state = _State(live)
        if not self._is(state.rolled_out, release):
            self._apply(self.manifest(release, 100))
            self._await_share(release, 100)
        self._apply(self.manifest(release))
        self._await_share(release, None)

    def roll_back(self, stable: Release, candidate: Release) -> None:
        """0 % for the candidate at once, also right after its promotion; then the old spec once more."""
        live = self._live()
        if live is not None and serves(live["spec"]["predictor"], candidate) and not self._promoted(live, stable):
            self._give_back(live, stable, candidate)
        self.deploy(stable)

    def look(self, stable: Release | None, candidate: Release, percent: int) -> Sight:
        """The service as its status says, and what of the spec is not ours any more."""
        live = self._live()
        if live is None:
            return Sight(0, Copies(), Copies(), f"the InferenceService {self.service} is gone")
        state = _State(live)
        theirs = state.created if self._is(state.created, candidate) else ""
        before = next((one for one in (state.rolled_out, state.previous) if one and one != theirs), "")
        if stable is None or not self._is(before, stable):
            before = state.rolled_out if state.rolled_out != theirs else before
        return Sight(
            weight=state.traffic.get(theirs, 0),
            stable=self._of(before, state) if stable is not None else Copies(),
            canary=self._of(theirs, state),
            changed=self._changed(live, candidate, percent if stable is not None else None),
        )

    def _changed(self, live: Plain, candidate: Release, percent: int | None) -> str:
        wanted = self.manifest(candidate, percent)
        paths = [_PERCENT] if percent != 100 or at(live, _PERCENT) is not None else []
        model = "spec.predictor.model"
        paths += [f"{model}.storageUri", f"{model}.image", "spec.predictor.minReplicas", "spec.predictor.maxReplicas"]
        return next((said for path in paths if (said := difference(live, path, at(wanted, path)))), "")

    def _of(self, revision: str, state: "_State") -> Copies:
        tag = "latest" if revision == state.created else "prev"
        return self._copies(f"{revision}-deployment", _pods_of(revision), revision, state.url(tag, revision))

    def _give_back(self, live: Plain, stable: Release, candidate: Release) -> None:
        """Traffic to the champion's revision, where it is still known; else it stays until the champion has started."""
        state = _State(live)
        back = state.rolled_out
        if self._is(back, candidate):
            back = state.previous if state.created == back else ""
            if self._is(back, stable):
                self._warm(back, candidate, state)
        if not self._is(back, stable):
            return
        self._apply(self.manifest(candidate, 0))
        self._await(
            lambda now: _State(now).traffic.get(back) == 100 or None,
            f"The traffic of {self.service} did not go back to {back}",
            lambda: [_pods_of(back)],
        )

    def _warm(self, back: str, candidate: Release, state: "_State") -> None:
        """Have the champion's servers started before the traffic comes, while the candidate's still answer.

        At 100 % Knative has ended them. A candidate that answers nothing is no better than the wait for a cold start,
        during which Knative holds the requests.
        """
        wanted = max(1, self.deployment.autoscaling.min_replicas)
        if not self._available(f"{state.created}-deployment") or self._available(f"{back}-deployment") >= wanted:
            return
        self._apply(self.manifest(candidate, 99))
        try:
            self._await(
                lambda now: (
                    (_State(now).traffic.get(back) == 1 and self._available(f"{back}-deployment") >= wanted) or None
                ),
                f"The servers of {back} did not start",
                lambda: [_pods_of(back)],
            )
        except NotReady:
            return

    def _await_share(self, release: Release, percent: int | None) -> "_State":
        """Wait until the release's revision is ready and has exactly its share.

        At 0 % too the route must name it: until it does, the tag's address leads to the revision before.
        """
        share = 100 if percent is None else percent

        def done(live: Plain) -> _State | None:
            found = at(live, _PERCENT)
            if found != percent or not serves(live["spec"]["predictor"], release):
                if self.applier.direct:
                    self._refuse(live, release, percent)
                return None
            state = _State(live)
            ready = state.created == state.ready and self._is(state.created, release)
            if (
                ready
                and state.traffic.get(state.created) == share
                and (share != 100 or state.rolled_out == state.created)
            ):
                return state
            return None

        return self._await(
            done,
            f"Version {release.version} of {self.service} did not become ready with {share} % of the traffic",
            lambda: [_pods_of(_State(self._live()).created)],
        )

    def _refuse(self, live: Plain, release: Release, percent: int | None) -> None:
        wanted = self.manifest(release, percent)
        for path in (_PERCENT, "spec.predictor.model.storageUri", "spec.predictor.model.storage.path"):
            if said := difference(live, path, at(wanted, path)):
                raise Changed(f"Somebody has changed the InferenceService {self.service} meanwhile: {said}.")

    def _promoted(self, live: Plain, release: Release) -> bool:
        """Whether a release is the one that is served, for good."""
        spec = serves(live["spec"]["predictor"], release) and at(live, _PERCENT) is None
        return spec and self._is(_State(live).rolled_out, release)

    def _is(self, revision: str, release: Release) -> bool:
        return bool(revision) and revision_serves(self.cluster.get(REVISION, revision), release)


class _State:
    """The status of an InferenceService in Knative mode."""

    def __init__(self, live: Plain | None) -> None:
        found: Plain = at(live, "status.components.predictor") or {}
        self.created: str = found.get("latestCreatedRevision", "")
        self.ready: str = found.get("latestReadyRevision", "")
        self.rolled_out: str = found.get("latestRolledoutRevision", "")
        self.previous: str = found.get("previousRolledoutRevision", "")
        self.targets: list[Plain] = found.get("traffic", [])
        self.traffic: dict[str, int] = {}
        for target in self.targets:
            name = target.get("revisionName", "")
            self.traffic[name] = self.traffic.get(name, 0) + target.get("percent", 0)

    def url(self, tag: str, revision: str = "") -> str:
        """The address of a tag, where it points at the revision; empty where there is none."""
        found = (one for one in self.targets if one.get("tag") == tag)
        return next((one.get("url", "") for one in found if not revision or one["revisionName"] == revision), "")


def _pods_of(revision: str) -> str:
    return f"{REVISION_LABEL}={revision}"
