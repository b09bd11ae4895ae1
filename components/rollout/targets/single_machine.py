"""The service on this machine: KServe's Knative canary, made true by the supervisor with Envoy in front."""

import shutil
from pathlib import Path
from typing import Any

from components.errors import Changed
from components.rollout.release import Release
from components.rollout.targets.target import Copies, Sight, Staged
from serving.local import client

READY_SECONDS = 60.0
_VERSION = "sluiceway.dev/model-version"


class SingleMachine:
    """One InferenceService of this machine."""

    def __init__(self, home: Path, service: str) -> None:
        """Name the service; nothing is started yet."""
        self.home = home
        self.service = service

    def check(self) -> None:
        """Return: Envoy comes with the installation."""

    def live(self) -> bool:
        """Whether the service exists and its supervisor runs."""
        return client.read(self.home, self.service) is not None and client.alive(self.home, self.service)

    def url(self) -> str:
        """The address that clients use."""
        document = client.read(self.home, self.service)
        return str(document["status"].get("url", "")) if document else ""

    def deploy(self, release: Release) -> None:
        """Give a release all traffic and wait until it has it; what is served already is left as it is.

        Raises:
            NotReady: its server did not become ready; an earlier release keeps the traffic.
        """
        self._apply(release, None)

    def stage(self, release: Release) -> Staged:
        """Start a release beside the one that is live, with no traffic.

        The very first release of a service has nothing beside it and is live as soon as it is ready.

        Raises:
            NotReady: its server did not become ready.
        """
        document = self._apply(release, 0)
        revision = document["status"]["components"]["predictor"]["latestReadyRevision"]
        return Staged(revision, _servers(document)[revision]["url"])

    def shift(self, release: Release, percent: int) -> None:
        """Give the staged release a share of the traffic and wait until the proxy has it in force."""
        self._apply(release, percent)

    def promote(self, release: Release) -> None:
        """Give the release all traffic for good; the server of the one before ends."""
        self._apply(release, None)

    def roll_back(self, stable: Release, candidate: Release) -> None:
        """Give all traffic back to the last good release, whose server is still up; the candidate's ends."""
        self._apply(stable, None)

    def remove(self) -> None:
        """End the service: a first release that failed has nothing to go back to."""
        client.stop(self.home, self.service)
        shutil.rmtree(self.home / "services" / self.service, ignore_errors=True)

    def look(self, stable: Release | None, candidate: Release, percent: int) -> Sight:
        """Both versions' servers and the split that Envoy has in force.

        Raises:
            Changed: the service was removed.
        """
        document = client.read(self.home, self.service)
        if document is None:
            raise Changed(f"The service {self.service} was removed in the middle of its rollout.")
        predictor = document["status"].get("components", {}).get("predictor", {})
        canary, live = predictor.get("latestCreatedRevision", ""), predictor.get("latestRolledoutRevision", "")
        shares = {entry["revisionName"]: int(entry["percent"]) for entry in predictor.get("traffic", [])}
        return Sight(
            weight=shares.get(canary, 0),
            stable=_copies(document, live if live != canary else "", wanted=stable is not None),
            canary=_copies(document, canary, wanted=True),
            changed=_changed(document, candidate, percent if stable is not None else 0),
        )

    def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Nothing: on one machine the timeline and the terminal say it."""

    def _apply(self, release: Release, percent: int | None) -> dict[str, Any]:
        document = {**release.document, "spec": {"predictor": {**release.document["spec"]["predictor"]}}}
        if percent is not None:
            document["spec"]["predictor"]["canaryTrafficPercent"] = percent
        generation = client.apply(self.home, document)
        return client.wait(self.home, self.service, generation, READY_SECONDS)


def _servers(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {server["revision"]: server for server in document["status"].get("local", {}).get("servers", [])}


def _copies(document: dict[str, Any], revision: str, *, wanted: bool) -> Copies:
    server = _servers(document).get(revision)
    if server is None:
        return Copies(revision, wanted=int(wanted and bool(revision)))
    failure = document["status"].get("modelStatus", {}).get("lastFailureInfo", {}).get("message", "")
    return Copies(
        revision=revision,
        ready=int(server["ready"]),
        wanted=1,
        trouble="" if server["ready"] else failure or f"the server of {revision} is not ready",
        restarts=server["restarts"],
        url=server["url"],
    )


def _changed(document: dict[str, Any], candidate: Release, percent: int) -> str:
    """What in the document is not as this rollout wrote it last."""
    predictor, wanted = document["spec"]["predictor"], candidate.document["spec"]["predictor"]
    now = predictor.get("canaryTrafficPercent")
    if predictor.get("model") != wanted.get("model"):
        version = document["metadata"].get("annotations", {}).get(_VERSION, "?")
        return f"version {version} is asked for instead of version {candidate.version}"
    if now != percent:
        return f"canaryTrafficPercent is {'gone' if now is None else now} instead of {percent}"
    return ""
