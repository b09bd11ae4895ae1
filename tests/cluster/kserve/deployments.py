"""What the controller manager and the scheduler do for the Deployments of served models: pods, rolling updates."""

import copy
import itertools
import time
from collections.abc import Callable
from typing import Any

from tests.cluster.kserve.knative import REVISION_LABEL, least_available
from tests.cluster.kserve.kubelet import Nodes
from tests.cluster.kserve.standard import ISVC_LABEL
from tests.cluster.kserve.things import DIGEST, Plain, condition, digest, is_true, mark, owned_by, owner, percent_of

HASH = "pod-template-hash"
_SUFFIX = itertools.count(1)


def ours(deployment: Plain) -> bool:
    """Whether a Deployment is of a served model; others of the cluster are left alone."""
    labels = deployment["metadata"].get("labels", {})
    return REVISION_LABEL in labels or ISVC_LABEL in labels


class Deployments:
    """Keeps the pods of every Deployment as many as wanted, replacing old ones as a rolling update does."""

    def __init__(self, view: Any, nodes: Nodes, attempt: Callable[..., None]) -> None:
        self._view, self._nodes, self._attempt = view, nodes, attempt
        self._progress: dict[str, tuple[Any, float]] = {}

    def reconcile(self) -> None:
        pods = self._view.all("Pod")
        deployments = [one for one in self._view.all("Deployment") if ours(one)]
        for deployment in deployments:
            uid = deployment["metadata"]["uid"]
            self._attempt(self._one, deployment, [pod for pod in pods if owned_by(pod, uid)])
        alive = {one["metadata"]["uid"] for one in deployments}
        for pod in pods:
            refs = pod["metadata"].get("ownerReferences", [])
            orphan = refs and all(one["kind"] == "Deployment" and one["uid"] not in alive for one in refs)
            if orphan and not pod["metadata"].get("deletionTimestamp"):
                self._attempt(self._view.delete, "Pod", pod)

    def _one(self, deployment: Plain, pods: list[Plain]) -> None:
        wanted = deployment["spec"].get("replicas", 1)
        template = deployment["metadata"].get("annotations", {}).get(DIGEST) or digest(deployment["spec"]["template"])
        pods = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        new = [pod for pod in pods if pod["metadata"]["labels"].get(HASH) == template]
        old = [pod for pod in pods if pod not in new]
        most = wanted + (percent_of(25, wanted, up=True) if old else 0)
        for _ in range(max(0, min(wanted - len(new), most - len(pods)))):
            new.append(self._view.create("Pod", self._pod(deployment, template)))
        for pod in sorted(new, key=_ready)[: max(0, len(new) - wanted)]:
            self._view.delete("Pod", pod)
        self._retire(old, new, least_available(deployment) if wanted else 0)
        self._view.set_status("Deployment", deployment, self._status(deployment, old, new))

    def _retire(self, old: list[Plain], new: list[Plain], least: int) -> None:
        ready = sum(map(_ready, (*old, *new)))
        for pod in sorted(old, key=_ready):
            if _ready(pod) and ready <= least:
                return
            ready -= _ready(pod)
            self._view.delete("Pod", pod)

    def _pod(self, deployment: Plain, template: str) -> Plain:
        given = copy.deepcopy(deployment["spec"]["template"])
        labels = {**given["metadata"].get("labels", {}), HASH: template}
        name = f"{deployment['metadata']['name']}-{template[:6]}-{next(_SUFFIX):04x}"
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": deployment["metadata"]["namespace"],
                "labels": labels,
                "annotations": given["metadata"].get("annotations", {}),
                "ownerReferences": owner(deployment),
            },
            "spec": {"nodeName": self._nodes.pick(), **given["spec"]},
        }

    def _status(self, deployment: Plain, old: list[Plain], new: list[Plain]) -> Plain:
        wanted, ready = deployment["spec"].get("replicas", 1), sum(map(_ready, (*old, *new)))
        status = {
            "observedGeneration": deployment["metadata"].get("generation", 1),
            "replicas": len(old) + len(new),
            "updatedReplicas": len(new),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
        }
        status = {name: value for name, value in status.items() if value}
        conditions = copy.deepcopy(deployment.get("status", {}).get("conditions", []))
        if ready >= least_available(deployment):
            mark(conditions, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        else:
            message = "Deployment does not have minimum availability."
            mark(conditions, "Available", "False", "MinimumReplicasUnavailable", message)
        complete = not old and len(new) == wanted and ready >= wanted
        self._mark_progress(deployment, conditions, (len(old), len(new), ready), complete=complete)
        return status | {"conditions": conditions}

    def _mark_progress(self, deployment: Plain, conditions: list[Plain], seen: Any, *, complete: bool) -> None:
        uid, name = deployment["metadata"]["uid"], deployment["metadata"]["name"]
        seen = (deployment["metadata"].get("generation"), seen)
        known, since = self._progress.get(uid, (None, 0.0))
        if known != seen:
            known, since = self._progress[uid] = (seen, time.monotonic())
        before = condition(conditions, "Progressing")
        if complete or (before and before.get("reason") == "NewReplicaSetAvailable" and not _changing(deployment)):
            message = f'ReplicaSet "{name}" has successfully progressed.'
            mark(conditions, "Progressing", "True", "NewReplicaSetAvailable", message)
        elif time.monotonic() - since > deployment["spec"].get("progressDeadlineSeconds", 600):
            message = f'ReplicaSet "{name}" has timed out progressing.'
            mark(conditions, "Progressing", "False", "ProgressDeadlineExceeded", message)
        else:
            mark(conditions, "Progressing", "True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.')


def _changing(deployment: Plain) -> bool:
    """Whether its spec is newer than what its status is about."""
    return bool(deployment.get("status", {}).get("observedGeneration") != deployment["metadata"].get("generation", 1))


def _ready(pod: Plain) -> bool:
    return is_true(pod, "Ready") and not pod["metadata"].get("deletionTimestamp")
