"""What the mechanisms on KServe share: reading, applying, waiting with a diagnosis, telling."""

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from components.cluster.api import DEPLOYMENT, EVENT, INFERENCE_SERVICE, POD, Cluster, Conflict, Kind
from components.errors import BadInput, Changed, NotReady, SluicewayError
from components.rollout.deployment import Deployment
from components.rollout.document import MODE, OURS
from components.rollout.release import Release
from components.rollout.targets import kserve_pods
from components.rollout.targets.kserve_applier import Applier, Direct, Guard
from components.rollout.targets.kserve_fields import at
from components.rollout.targets.target import Copies
from components.rollout.validation import validate

Plain = dict[str, Any]
T = TypeVar("T")

REVISION_LABEL = "serving.knative.dev/revision"


class KServe:
    """One service of a cluster with KServe.

    Attributes:
        mechanism: what a deployment calls it.
        service: its name.
        tick: seconds between two looks while waiting; changes of the InferenceService itself are seen at once.
        hopeless_seconds: how long a trouble that does not pass by itself is watched before the wait is given up.
    """

    mechanism = ""
    mode = ""

    def __init__(
        self,
        cluster: Cluster,
        service: str,
        deployment: Deployment,
        guard: Guard = lambda: None,
        applier: Applier | None = None,
        mode: str = "",
    ) -> None:
        """Name the service; nothing is asked yet.

        Args:
            cluster: in the service's namespace.
            service: its name.
            deployment: how it is served.
            guard: asked before every write whether this rollout still owns the service.
            applier: how manifests reach the cluster; None applies them.
            mode: what this version of KServe calls the deployment mode; empty leaves it to the cluster's default.
        """
        self.service, self.cluster, self.deployment = service, cluster, deployment
        self.applier: Applier = applier or Direct(cluster, guard)
        self.mode = mode or self.mode
        self.tick, self.hopeless_seconds = 2.0, 60.0
        self._guard = guard
        self._schema: Plain | None = None

    def check(self) -> None:
        """Whether the cluster can do this mechanism's canary.

        Raises:
            BadInput: it cannot; names everything that is missing.
        """
        from components.rollout.targets.probe import require

        require(self.mechanism, self.cluster, self.deployment, self._live())

    def live(self) -> bool:
        """Whether the service is there and has ever been served."""
        live = self._live()
        return bool(live and at(live, "status.url") and not live["metadata"].get("deletionTimestamp"))

    def url(self) -> str:
        """The address that clients use; empty when there is none."""
        return str(at(self._live(), "status.url") or "")

    def remove(self) -> None:
        """End the service."""
        self.applier.delete(INFERENCE_SERVICE, self.service)

    def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Write a Kubernetes Event on the InferenceService; one that says the same again is counted up."""
        try:
            self._tell(reason, message, warning)
        except (SluicewayError, Conflict):
            return  # a note that cannot be left is no reason to stop a rollout; the timeline has it too

    def _tell(self, reason: str, message: str, warning: bool) -> None:
        live = self._live()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        key = hashlib.sha256(f"{reason}\n{message}".encode()).hexdigest()[:16]
        name = f"{self.service}.{key}"
        told = self.cluster.get(EVENT, name)
        if told is not None:
            self.cluster.replace({**told, "count": told.get("count", 1) + 1, "lastTimestamp": now})
            return
        about = {"apiVersion": INFERENCE_SERVICE.api_version, "kind": INFERENCE_SERVICE.kind, "name": self.service}
        about |= {"namespace": self.cluster.namespace} | ({"uid": live["metadata"]["uid"]} if live else {})
        self.cluster.create(
            {
                "apiVersion": EVENT.api_version,
                "kind": EVENT.kind,
                "metadata": {"name": name, "namespace": self.cluster.namespace},
                "involvedObject": about,
                "reason": reason,
                "message": message[:1024],
                "type": "Warning" if warning else "Normal",
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": {"component": "sluiceway"},
                "reportingComponent": "sluiceway",
                "reportingInstance": "sluiceway",
            }
        )

    def _live(self, name: str = "") -> Plain | None:
        return self.cluster.get(INFERENCE_SERVICE, name or self.service)

    def _document(self, release: Release, *, name: str = "", args: list[str] | None = None) -> Plain:
        """A copy of a release's document for this service and mode, with more arguments for our own server."""
        document = release.document
        predictor = {**document["spec"]["predictor"]}
        model = {**predictor["model"]}
        if args and model.get("runtime") == OURS:
            model["args"] = [*model.get("args", []), *args]
        predictor["model"] = model
        annotations = dict(document["metadata"].get("annotations", {}))
        if self.mode:
            annotations[MODE] = self.mode
        metadata = {**document["metadata"], "name": name or self.service, "annotations": annotations}
        metadata["namespace"] = self.cluster.namespace
        return {**document, "metadata": metadata, "spec": {**document["spec"], "predictor": predictor}}

    def _apply(self, manifest: Plain) -> None:
        """Check a manifest, then bring it in; an InferenceService that is so already is left alone."""
        if manifest["kind"] == INFERENCE_SERVICE.kind:
            if self._schema is None:
                self._schema = self.cluster.fields(INFERENCE_SERVICE) or {}
            validate(manifest, self._schema or None)
        self.applier.apply(manifest)

    def _await(
        self,
        done: Callable[[Plain], T | None],
        what: str,
        pods: Callable[[], list[str]],
        name: str = "",
        kind: Kind = INFERENCE_SERVICE,
    ) -> T:
        """Wait until an object, and what hangs on it, is as wanted.

        Args:
            done: gives something once it is; looked at on every change and every tick.
            what: what is waited for, for the message: "… did not …".
            pods: gives the label selectors of the pods whose trouble is of interest.
            name: of the object; the service's where empty.
            kind: of the object.

        Raises:
            NotReady: it does not come to be; with the diagnosis.
            Changed: the object was removed.
        """
        began = time.monotonic()
        ends = began + self.deployment.ready_seconds + self.applier.seconds
        hopeless_since: float | None = None
        found: kserve_pods.Trouble | None = None
        while True:
            left = ends - time.monotonic()
            got = self.cluster.wait(kind, name or self.service, self._there(done), max(0.01, min(self.tick, left)))
            if got is not None:
                return got
            now = time.monotonic()
            current = self._trouble(pods())
            found = current or found
            hopeless_since = (hopeless_since or now) if current and current.hopeless else None
            given_up = hopeless_since is not None and now - hopeless_since >= self.hopeless_seconds
            if given_up or now >= ends:
                reason = f": {found.text}" if found else ", and nothing says why"
                raise NotReady(f"{what} within {now - began:.0f} s{reason}.")

    def _there(self, done: Callable[[Plain], T | None]) -> Callable[[Plain | None], T | None]:
        def look(live: Plain | None) -> T | None:
            if live is not None:
                return done(live)
            if self.applier.direct:
                raise Changed(f"The InferenceService {self.service} was removed while it was waited for.")
            return None

        return look

    def _trouble(self, selectors: list[str]) -> kserve_pods.Trouble | None:
        for selector in selectors:
            if found := kserve_pods.trouble(None, self.cluster.list(POD, selector)):
                return found
        return None

    def _copies(self, deployment: str, selector: str, revision: str, url: str = "") -> Copies:
        """The servers behind a Deployment; none when there is no such revision."""
        if not revision:
            return Copies()
        pods = self.cluster.list(POD, selector)
        return kserve_pods.copies(self.cluster.get(DEPLOYMENT, deployment), pods, revision, url)

    def _available(self, deployment: str) -> int:
        return int(at(self.cluster.get(DEPLOYMENT, deployment), "status.availableReplicas") or 0)


def refuse_percent(percent: int) -> None:
    """The API knows no bounds of a share.

    Raises:
        BadInput: it is none.
    """
    if not 0 <= percent <= 100:
        raise BadInput(f"A share of the traffic is a percentage from 0 to 100; got {percent}.")


def refuse_scale_to_zero(deployment: Deployment) -> None:
    """Only Knative mode scales to zero.

    Raises:
        BadInput: it is asked for.
    """
    if deployment.autoscaling.min_replicas == 0:
        raise BadInput("Scaling to zero (autoscaling.min_replicas: 0) needs Knative mode: set at least 1.")
