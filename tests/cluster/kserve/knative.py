"""Knative (Serverless) mode: what KServe makes of an InferenceService, and Knative of that; pure functions.

After ``createKnativeService`` and ``PropagateStatus`` of kserve/kserve (August 2026) and Knative Serving's Service,
Configuration and Route reconcilers, which here are one.
"""

import copy
from dataclasses import dataclass
from typing import Any

from tests.cluster.kserve import templates
from tests.cluster.kserve.things import DIGEST, Plain, condition, digest, is_true, mark, owner, percent_of

DOMAIN = "example.com"
REVISION_LABEL = "serving.knative.dev/revision"
DEADLINE = "serving.knative.dev/progress-deadline"
_TAG_ROUTING = "serving.kserve.io/enable-tag-routing"
_MIN_SCALE, _MAX_SCALE = "autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/max-scale"


def traffic_targets(predictor: Plain, annotations: dict[str, str], rolled_out: str) -> list[Plain]:
    """The Knative Service's traffic: all to the latest revision, or split with the one rolled out last."""
    percent = predictor.get("canaryTrafficPercent")
    split = percent is not None and rolled_out != ""
    latest: Plain = {"latestRevision": True, "percent": percent if split else 100}
    if annotations.get(_TAG_ROUTING) == "true":
        latest["tag"] = "latest"
    if not split or percent is None or percent >= 100:
        return [latest]
    before = {"revisionName": rolled_out, "latestRevision": False, "percent": 100 - percent, "tag": "prev"}
    return [latest, before]


def desired_service(isvc: Plain, runtimes: list[Plain]) -> Plain:
    """The Knative Service that KServe makes."""
    predictor = isvc["spec"]["predictor"]
    meta = isvc["metadata"]
    annotations = templates.annotations(isvc, predictor)
    annotations[_MIN_SCALE] = str(predictor.get("minReplicas", 1))
    if predictor.get("maxReplicas"):
        annotations[_MAX_SCALE] = str(predictor["maxReplicas"])
    status = isvc.get("status", {}).get("components", {}).get("predictor", {})
    targets = traffic_targets(predictor, annotations, status.get("latestRolledoutRevision", ""))
    spec = templates.pod_spec(isvc, predictor, runtimes)
    labels = templates.labels(isvc, predictor)
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": templates.predictor_name(isvc, {}),
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": owner(isvc),
        },
        "spec": {"template": template, "traffic": targets},
    }


def next_revision(service: Plain, revisions: list[Plain]) -> Plain | None:
    """The Revision to make because the template has changed since the newest one; None when it has not.

    A template that comes back after another gets a revision of its own: names are never used again.
    """
    template = copy.deepcopy(service["spec"]["template"])
    newest = max(revisions, key=number_of, default=None)
    if newest is not None and newest["metadata"]["annotations"].get(DIGEST) == digest(template):
        return None
    name = f"{service['metadata']['name']}-{number_of(newest) + 1 if newest else 1:05d}"
    own = {"serving.knative.dev/service": service["metadata"]["name"], REVISION_LABEL: name}
    own["serving.knative.dev/configuration"] = service["metadata"]["name"]
    labels = {**template["metadata"].get("labels", {}), **own}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": name,
            "namespace": service["metadata"]["namespace"],
            "labels": labels,
            "annotations": template["metadata"].get("annotations", {}) | {DIGEST: digest(template)},
            "ownerReferences": owner(service),
        },
        "spec": template["spec"],
    }


def number_of(revision: Plain | None) -> int:
    return int(revision["metadata"]["name"].rsplit("-", 1)[1]) if revision else 0


def revision_status(revision: Plain, deployment: Plain | None, pods: list[Plain]) -> Plain:
    """Ready once a pod was; not any more when its container keeps ending; failed when the deadline has passed."""
    status = copy.deepcopy(revision.get("status", {}))
    conditions = status.setdefault("conditions", [])
    status["observedGeneration"] = revision["metadata"].get("generation", 1)
    if deployment is None:
        mark(conditions, "Ready", "Unknown", "Deploying")
        return status
    now = deployment.get("status", {})
    if now.get("readyReplicas"):
        for name in ("ContainerHealthy", "ResourcesAvailable", "Ready"):
            mark(conditions, name, "True")
    elif not deployment["spec"].get("replicas"):
        pass  # scaled to zero says nothing
    elif ended := _last_end(pods):
        message = f"Container failed with: {ended.get('message', '')}"
        for name in ("ContainerHealthy", "Ready"):
            mark(conditions, name, "False", f"ExitCode{ended['exitCode']}", message)
    else:
        late = condition(now.get("conditions", []), "Progressing")
        if late and late.get("reason") == "ProgressDeadlineExceeded":
            waiting = _waiting(pods) or {"reason": "ProgressDeadlineExceeded", "message": late.get("message", "")}
            for name in ("ResourcesAvailable", "Ready"):
                mark(conditions, name, "False", waiting["reason"], waiting.get("message", ""))
        elif not condition(conditions, "Ready"):
            mark(conditions, "Ready", "Unknown", "Deploying")
    return status


def _last_end(pods: list[Plain]) -> Plain | None:
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses", []):
            ended = container.get("lastState", {}).get("terminated")
            if ended:
                found: Plain = ended
                return found
    return None


def _waiting(pods: list[Plain]) -> Plain | None:
    states = [one.get("state", {}) for pod in pods for one in pod.get("status", {}).get("containerStatuses", [])]
    return next((state["waiting"] for state in states if "waiting" in state), None)


def service_status(service: Plain, revisions: list[Plain], *, served: bool) -> Plain:
    """The Knative Service's status; traffic follows the newest *ready* revision, whatever was made since.

    Args:
        service: with its status of before.
        revisions: of it, with their status.
        served: whether the data plane splits as the traffic says.
    """
    status = copy.deepcopy(service.get("status", {}))
    conditions = status.setdefault("conditions", [])
    status["observedGeneration"] = service["metadata"].get("generation", 1)
    newest = max(revisions, key=number_of, default=None)
    if newest is None:
        return status
    status["latestCreatedRevisionName"] = newest["metadata"]["name"]
    ready = latest_ready(service, revisions)
    if ready:
        status["latestReadyRevisionName"] = ready
    found = condition(newest.get("status", {}).get("conditions", []), "Ready") or {"status": "Unknown"}
    name = newest["metadata"]["name"]
    if found["status"] == "False":
        reason = f"Revision {name!r} failed with message: {found.get('message', found.get('reason', ''))}."
        mark(conditions, "ConfigurationsReady", "False", "RevisionFailed", reason)
    else:
        mark(conditions, "ConfigurationsReady", "True" if ready == name else "Unknown")
    traffic = traffic_status(service, ready)
    if traffic and served:
        status["traffic"] = traffic
        mark(conditions, "RoutesReady", "True")
    elif not traffic:
        mark(conditions, "RoutesReady", "Unknown", "RevisionMissing", "no revision is ready yet")
    _sum_up(conditions)
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}"
    status["url"] = f"http://{host}.{DOMAIN}"
    status["address"] = {"url": f"http://{host}.svc.cluster.local"}
    return status


def _sum_up(conditions: list[Plain]) -> None:
    parts = [condition(conditions, name) or {"status": "Unknown"} for name in ("ConfigurationsReady", "RoutesReady")]
    for wanted in ("False", "Unknown"):
        for part in parts:
            if part["status"] == wanted:
                mark(conditions, "Ready", wanted, part.get("reason", ""), part.get("message", ""))
                return
    mark(conditions, "Ready", "True")


def latest_ready(service: Plain, revisions: list[Plain]) -> str:
    """The newest revision that is ready; never one older than it was before."""
    before: str = service.get("status", {}).get("latestReadyRevisionName", "")
    ready = [one for one in revisions if is_true(one, "Ready")]
    newest = max(ready, key=number_of, default=None)
    if newest is None:
        return before
    name: str = newest["metadata"]["name"]
    return max(name, before)


def traffic_status(service: Plain, ready: str) -> list[Plain]:
    """What the route does: every target with the revision behind it; nothing while no revision is ready."""
    if not ready:
        return []
    answer = []
    for target in service["spec"].get("traffic", []):
        revision = ready if target.get("latestRevision") else target["revisionName"]
        shown = {"latestRevision": bool(target.get("latestRevision")), "revisionName": revision}
        shown["percent"] = target.get("percent", 0)
        if target.get("tag"):
            host = f"{target['tag']}-{service['metadata']['name']}.{service['metadata']['namespace']}.{DOMAIN}"
            shown |= {"tag": target["tag"], "url": f"http://{host}"}
        answer.append(shown)
    return answer


def replicas(revision: Plain, service: Plain, revisions: list[Plain]) -> int:
    """Pods of a revision: its least scale while the route names it or it is still to become ready, else none."""
    name = revision["metadata"]["name"]
    named = {target["revisionName"] for target in traffic_status(service, latest_ready(service, revisions))}
    in_force = {target["revisionName"] for target in service.get("status", {}).get("traffic", [])}
    newest = max(revisions, key=number_of)["metadata"]["name"]
    if name in named | in_force or name == newest:
        return max(int(revision["metadata"].get("annotations", {}).get(_MIN_SCALE, "1")), 1)
    return 0


def desired_deployment(revision: Plain, count: int, deadline: float) -> Plain:
    """The Deployment of a revision."""
    meta = revision["metadata"]
    name = meta["name"]
    labels = {**meta.get("labels", {}), "app": name}
    spec = copy.deepcopy(revision["spec"])
    for container in spec["containers"]:
        container["env"] = [*container.get("env", []), {"name": "K_REVISION", "value": name}]
    template = {"metadata": {"labels": labels, "annotations": meta.get("annotations", {})}, "spec": spec}
    seconds = meta.get("annotations", {}).get(DEADLINE, f"{deadline:g}s").removesuffix("s")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"{name}-deployment",
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": owner(revision),
        },
        "spec": {
            "replicas": count,
            "progressDeadlineSeconds": max(1, round(float(seconds))),
            "selector": {"matchLabels": {REVISION_LABEL: name}},
            "template": template,
        },
    }


@dataclass(frozen=True)
class _Rolled:
    latest: str
    previous: str


def _rolled_out(before: Plain, service: Plain) -> _Rolled:
    """Which revision is rolled out; the branch that makes a repeated step give the traffic to the old model is real."""
    latest, previous = before.get("latestRolledoutRevision", ""), before.get("previousRolledoutRevision", "")
    ready, created = service.get("latestReadyRevisionName", ""), service.get("latestCreatedRevisionName", "")
    share: dict[str, int] = {}
    for target in service.get("traffic", []):
        share[target["revisionName"]] = share.get(target["revisionName"], 0) + target["percent"]
    for target in service.get("traffic", []):
        if target["revisionName"] != ready or not target["latestRevision"]:
            continue
        if latest != ready:
            if target["percent"] == 100:
                latest, previous = ready, latest
        elif ready == created and target["percent"] < 100 and share[ready] == 100 and previous:
            latest = previous
    return _Rolled(latest, previous)


def isvc_status(isvc: Plain, service: Plain) -> Plain:
    """The InferenceService's status from the Knative Service's.

    ``observedGeneration`` is the Knative Service's, as in KServe (#6081).
    """
    status = copy.deepcopy(isvc.get("status", {}))
    below = service.get("status", {})
    before = status.setdefault("components", {}).get("predictor", {})
    rolled = _rolled_out(before, below)
    part: dict[str, Any] = {
        "latestCreatedRevision": below.get("latestCreatedRevisionName", ""),
        "latestReadyRevision": below.get("latestReadyRevisionName", ""),
        "latestRolledoutRevision": rolled.latest,
        "previousRolledoutRevision": rolled.previous,
        "traffic": below.get("traffic", []),
        "url": before.get("url", ""),
        "address": before.get("address", {}),
    }
    if is_true(service, "Ready"):
        part |= {"url": below["url"], "address": below["address"]}
    status["components"]["predictor"] = {name: value for name, value in part.items() if value}
    if "observedGeneration" in below:
        status["observedGeneration"] = below["observedGeneration"]
    conditions = status.setdefault("conditions", [])
    for name, source in _CONDITIONS.items():
        seen = condition(below.get("conditions", []), source) or {"status": "Unknown"}
        mark(conditions, name, seen["status"], seen.get("reason", ""), seen.get("message", ""))
    reachable = bool(part["url"])
    mark(conditions, "IngressReady", "True" if reachable else "Unknown")
    ready = condition(conditions, "PredictorReady") or {"status": "Unknown"}
    if ready["status"] == "True" and not reachable:
        ready = {"status": "Unknown"}
    mark(conditions, "Ready", ready["status"], ready.get("reason", ""), ready.get("message", ""))
    mark(conditions, "Stopped", "False")
    if reachable:
        name, namespace = isvc["metadata"]["name"], isvc["metadata"]["namespace"]
        status["url"] = f"http://{name}.{namespace}.{DOMAIN}"
        status["address"] = {"url": f"http://{name}-predictor.{namespace}.svc.cluster.local"}
    status["deploymentMode"] = "Knative"
    return status


_CONDITIONS = {
    "PredictorReady": "Ready",
    "PredictorRouteReady": "RoutesReady",
    "PredictorConfigurationReady": "ConfigurationsReady",
    "RoutesReady": "RoutesReady",
    "LatestDeploymentReady": "ConfigurationsReady",
}


def least_available(deployment: Plain) -> int:
    """Pods that must be there for a Deployment to count as available: all but a quarter, rounded down."""
    wanted = deployment["spec"].get("replicas", 1)
    return int(wanted - percent_of(25, wanted, up=False))
