"""The service on this machine: KServe's Knative canary, made true by the supervisor with Envoy in front."""

import shutil
from pathlib import Path
from typing import Any

from components.rollout.evidence import Arm, Observation
from components.rollout.ledger import Release
from serving.local import client, metrics

READY_SECONDS = 60.0


class SingleMachine:
    """Observe, shift, promote and roll back one InferenceService of this machine."""

    def __init__(self, home: Path, service: str) -> None:
        """Name the service; nothing is started yet."""
        self.home = home
        self.service = service

    def serve(self, release: Release) -> dict[str, Any]:
        """Give a release all traffic and wait until it has it; what is served already is left as it is.

        Raises:
            NotReady: its server did not become ready; an earlier release keeps the traffic.
        """
        return self._apply(release, None)

    def stage(self, release: Release) -> tuple[str, str]:
        """Start a release beside the one that is live, with no traffic; gives its revision and its own URL.

        The very first release of a service has nothing beside it and is live as soon as it is ready.

        Raises:
            NotReady: its server did not become ready.
        """
        document = self._apply(release, 0)
        predictor = document["status"]["components"]["predictor"]
        revision = predictor["latestReadyRevision"]
        servers = {server["revision"]: server["url"] for server in document["status"]["local"]["servers"]}
        return revision, servers[revision]

    def shift(self, release: Release, percent: int) -> None:
        """Give the staged release a share of the traffic and wait until the proxy has it in force."""
        self._apply(release, percent)

    def remove(self) -> None:
        """End the service: a first release that failed has nothing to go back to."""
        client.stop(self.home, self.service)
        shutil.rmtree(self.home / "services" / self.service, ignore_errors=True)

    def url(self) -> str:
        """The address that clients use."""
        document = client.read(self.home, self.service)
        return str(document["status"]["url"]) if document else ""

    def live(self) -> bool:
        """Whether the service exists and its supervisor runs."""
        return client.read(self.home, self.service) is not None and client.alive(self.home, self.service)

    def observe(self, canary: str) -> Observation:
        """Counts of the canary's revision and of all others, since their servers started."""
        document = client.read(self.home, self.service) or {}
        stats = metrics.revision_stats(document)
        predictions = metrics.prediction_counts(document)
        arms = {
            revision: Arm(seen.requests, seen.errors, seen.latency_ms, predictions.get(revision, {}))
            for revision, seen in stats.items()
        }
        stable = document["status"]["components"]["predictor"].get("latestRolledoutRevision", "")
        return Observation(arms.get(stable, Arm()) if stable != canary else Arm(), arms.get(canary, Arm()))

    def _apply(self, release: Release, percent: int | None) -> dict[str, Any]:
        document = {**release.document, "spec": {"predictor": {**release.document["spec"]["predictor"]}}}
        if percent is not None:
            document["spec"]["predictor"]["canaryTrafficPercent"] = percent
        generation = client.apply(self.home, document)
        return client.wait(self.home, self.service, generation, READY_SECONDS)
