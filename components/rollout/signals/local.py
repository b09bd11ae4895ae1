"""Counts of a service on this machine: Envoy's per revision, the servers' predictions, the supervisor's restarts."""

from collections.abc import Mapping
from pathlib import Path

from components.errors import SignalsLost
from components.rollout.evidence import Arm, Observation
from serving.local import client, metrics

Parts = Mapping[tuple[str, int], Arm]
"""One revision's counts by who counts them and its process: one that is started again begins at 0."""


class LocalSource:
    """What the judge reads of one InferenceService of this machine.

    Attributes:
        interval_seconds: Envoy counts at once and merges its histograms twice a second.
        sees_direct: False: Envoy counts only what comes through it.
    """

    interval_seconds = 0.25
    sees_direct = False

    def __init__(self, home: Path, service: str) -> None:
        """Name the service; nothing is read yet."""
        self._home = home
        self._service = service
        self._revisions = ("", "")
        self._seen: tuple[Parts, Parts] = ({}, {})
        self._counted = Observation()

    def baseline(self, stable: str) -> Arm:
        """The champion's counts since its server and Envoy were started.

        Raises:
            SignalsLost: Envoy does not answer.
        """
        return sum(self._read().get(stable, {}).values(), Arm())

    def begin(self, stable: str, canary: str) -> None:
        """Count from now on; the first is empty in a first deployment.

        Raises:
            SignalsLost: Envoy does not answer.
        """
        parts = self._read()
        self._revisions = (stable, canary)
        self._seen = (parts.get(stable, {}), parts.get(canary, {}))
        self._counted = Observation()

    def seen(self) -> Observation:
        """What was counted since :meth:`begin`, over restarts of servers, of Envoy and of the supervisor.

        Raises:
            SignalsLost: Envoy does not answer.
        """
        parts = self._read()
        now = tuple(parts.get(revision, {}) for revision in self._revisions)
        self._counted += Observation(_more(now[0], self._seen[0]), _more(now[1], self._seen[1]))
        # A server that did not answer this time is counted on from where it was.
        self._seen = ({**self._seen[0], **now[0]}, {**self._seen[1], **now[1]})
        return self._counted

    def _read(self) -> Mapping[str, Parts]:
        """The counts of every revision that Envoy knows."""
        document = client.read(self._home, self._service)
        if document is None:
            raise SignalsLost(f"There is no service {self._service} in {self._home}, so nothing is counted.")
        requests = metrics.revision_stats(document)
        if not requests:
            raise SignalsLost(f"The proxy of {self._service} does not say what it has counted; look whether it runs.")
        local = document["status"]["local"]
        found: dict[str, dict[tuple[str, int], Arm]] = {
            revision: {("envoy", local["envoy"]["pid"]): Arm(seen.requests, seen.errors, seen.latency_ms)}
            for revision, seen in requests.items()
        }
        for server in local["servers"]:
            by_supervisor = ("supervisor", local["supervisor"]["pid"])
            found.setdefault(server["revision"], {})[by_supervisor] = Arm(restarts=server["restarts"])
        for revision, predictions in metrics.prediction_counts(document).items():
            # The status may still name the process before: the port stays, so only falling counts tell.
            found.setdefault(revision, {})[("server", 0)] = Arm(predictions=predictions)
        return found


def _more(now: Parts, earlier: Parts) -> Arm:
    return sum((counts.since(earlier.get(process, Arm())) for process, counts in now.items()), Arm())
