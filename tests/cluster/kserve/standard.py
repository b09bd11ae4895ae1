"""Standard (RawDeployment) mode: what KServe makes of an InferenceService; pure functions.

After ``reconcileCanaryDeployments``, ``PropagateRawStatus`` and ``applyCanaryWeights`` of kserve/kserve (August 2026).
``canaryTrafficPercent`` is not read: in this mode KServe ignores it without a word.
"""

import copy
import math
from typing import Any

from tests.cluster.kserve import templates
from tests.cluster.kserve.things import Plain, condition, mark, owner

AUTOSCALER = "serving.kserve.io/autoscalerClass"
ISVC_LABEL = "serving.kserve.io/inferenceservice"


def canary_replicas(isvc: Plain, canary: Plain) -> int:
    """What a canary asks for, or its share of the stable predictor's, which at 0 % is none."""
    own = canary["predictor"].get("minReplicas")
    if own is not None:
        return int(own)
    return math.ceil(isvc["spec"]["predictor"].get("minReplicas", 1) * canary["trafficPercent"] / 100)


def canary_predictor(isvc: Plain, canary: Plain) -> Plain:
    """The stable predictor overridden by the canary's, without autoscaling."""
    merged = _merged(isvc["spec"]["predictor"], canary["predictor"])
    for name in ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling"):
        merged.pop(name, None)
    return merged | {"minReplicas": canary_replicas(isvc, canary)}


def _merged(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}
    return copy.deepcopy(above)


def stable_least(isvc: Plain) -> int | None:
    """The stable predictor's minReplicas, less those of canaries that are ready, but at least 1; None when not set."""
    least = isvc["spec"]["predictor"].get("minReplicas")
    if least is None:
        return None
    ready = {one["name"] for one in isvc.get("status", {}).get("canaryStatuses", []) if one["ready"]}
    canaries = [one for one in isvc["spec"].get("canary", []) if one["predictor"].get("name") in ready]
    taken = sum(canary_replicas(isvc, one) for one in canaries)
    return max(int(least) - taken, 1) if taken else int(least)


def desired_service(isvc: Plain, predictor: Plain) -> Plain:
    """The Service of a predictor."""
    name = templates.predictor_name(isvc, predictor)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": isvc["metadata"]["namespace"],
            "labels": {ISVC_LABEL: isvc["metadata"]["name"], "component": "predictor", "app": f"isvc.{name}"},
            "ownerReferences": owner(isvc),
        },
        "spec": {
            "selector": {"app": f"isvc.{name}"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    }


def desired_deployment(
    isvc: Plain, predictor: Plain, runtimes: list[Plain], existing: Plain | None, least: int | None, deadline: float
) -> Plain:
    """The Deployment of a predictor; its replicas are KServe's without an autoscaler, else the autoscaler's."""
    name = templates.predictor_name(isvc, predictor)
    labels = templates.labels(isvc, predictor) | {"app": f"isvc.{name}"}
    annotations = templates.annotations(isvc, predictor)
    if annotations.get(AUTOSCALER) == "none":
        replicas = 1 if least is None else least
    else:
        replicas = _scaled(existing, max(least or 1, 1), predictor.get("maxReplicas", 0))
    template = {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": templates.pod_spec(isvc, predictor, runtimes),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": isvc["metadata"]["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": owner(isvc),
        },
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": max(1, round(deadline)),
            "selector": {"matchLabels": {"app": f"isvc.{name}"}},
            "template": template,
        },
    }


def _scaled(existing: Plain | None, least: int, most: int) -> int:
    """An autoscaler's bounds around what there is; the load itself asks for nothing here."""
    there = existing["spec"].get("replicas", 1) if existing else 1
    return int(min(max(there, least), max(most, least)))


def canary_statuses(isvc: Plain, deployments: dict[str, Plain]) -> list[Plain]:
    """Of every canary: ready as soon as one pod is available."""
    answer = []
    for canary in isvc["spec"].get("canary", []):
        found = deployments.get(templates.predictor_name(isvc, canary["predictor"]), {})
        ready = found.get("status", {}).get("availableReplicas", 0) > 0
        one = {"name": canary["predictor"]["name"], "ready": ready, "trafficPercent": canary["trafficPercent"]}
        answer.append(one | {"modelStatus": {"transitionStatus": ""}})
    return answer


def mark_canaries(status: Plain) -> None:
    """Set or clear the condition about canaries."""
    conditions = status.setdefault("conditions", [])
    canaries = status.get("canaryStatuses", [])
    if not canaries:
        status["conditions"] = [one for one in conditions if one["type"] != "CanaryPredictorReady"]
        return
    ready = all(one["ready"] for one in canaries)
    reason = "AllCanariesReady" if ready else "CanariesNotReady"
    mark(conditions, "CanaryPredictorReady", "True" if ready else "False", reason)


def mark_predictor(status: Plain, deployment: Plain) -> None:
    """PredictorReady from the Deployment's conditions; its observedGeneration becomes the InferenceService's."""
    conditions = status.setdefault("conditions", [])
    below = deployment.get("status", {})
    available = condition(below.get("conditions", []), "Available") or {"status": "Unknown"}
    progressing = condition(below.get("conditions", []), "Progressing") or {"status": "Unknown"}
    said = {"status": "True", **available} if available["status"] == "True" else {"status": "False"}
    if progressing["status"] == "False":
        said = progressing
    elif progressing["status"] == "True":
        if progressing.get("reason") == "NewReplicaSetAvailable":
            said = progressing
        elif available["status"] != "True":
            said = {**progressing, "status": "Unknown"}
    if available["status"] == "False":
        said = available
    mark(conditions, "PredictorReady", said["status"], said.get("reason", ""), said.get("message", ""))
    if "observedGeneration" in below:
        status["observedGeneration"] = below["observedGeneration"]


def host_of(name: str, namespace: str) -> str:
    return f"{name}-{namespace}.example.com"


def desired_routes(isvc: Plain, gateway: str, *, splits: bool) -> list[Plain]:
    """The two HTTPRoutes, of the predictor and of the service; their names stay when the predictor's changes.

    Args:
        isvc: with the canaries' status as it is now.
        gateway: "namespace/name".
        splits: whether this version of KServe has weights; without, the stable predictor gets everything.
    """
    name, namespace = isvc["metadata"]["name"], isvc["metadata"]["namespace"]
    backends = _backends(isvc) if splits and isvc["spec"].get("canary") else [_backend(isvc, isvc["spec"]["predictor"])]
    where, parent = gateway.split("/")
    routes = []
    for route in (f"{name}-predictor", name):
        rule = {
            "matches": [{"path": {"type": "RegularExpression", "value": "^/.*$"}}],
            "filters": [_told_by_headers(isvc)],
            "backendRefs": copy.deepcopy(backends),
            "timeouts": {"request": "60s"},
        }
        ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": where, "name": parent}
        routes.append(
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": {
                    "name": route,
                    "namespace": namespace,
                    "ownerReferences": owner(isvc),
                    "labels": isvc["metadata"].get("labels", {}),
                },
                "spec": {"parentRefs": [ref], "hostnames": [host_of(route, namespace)], "rules": [rule]},
            }
        )
    return routes


def _told_by_headers(isvc: Plain) -> Plain:
    headers = [
        {"name": "KServe-Isvc-Name", "value": isvc["metadata"]["name"]},
        {"name": "KServe-Isvc-Namespace", "value": isvc["metadata"]["namespace"]},
    ]
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": headers}}


def _backends(isvc: Plain) -> list[Plain]:
    ready = {one["name"] for one in isvc.get("status", {}).get("canaryStatuses", []) if one["ready"]}
    canaries = [one for one in isvc["spec"]["canary"] if one["predictor"]["name"] in ready]
    rest = 100 - sum(one["trafficPercent"] for one in canaries)
    shares = [{**_backend(isvc, one["predictor"]), "weight": one["trafficPercent"]} for one in canaries]
    return [{**_backend(isvc, isvc["spec"]["predictor"]), "weight": rest}, *shares]


def _backend(isvc: Plain, predictor: Plain) -> Plain:
    name = templates.predictor_name(isvc, predictor)
    return {"group": "", "kind": "Service", "name": name, "namespace": isvc["metadata"]["namespace"], "port": 80}


def mark_ingress(status: Plain, routes: list[Plain], *, gateway_api: bool) -> None:
    """IngressReady, and Ready from it and the predictor."""
    conditions = status.setdefault("conditions", [])
    said, reason = "True", ""
    for route in routes if gateway_api else []:
        parents = route.get("status", {}).get("parents", [])
        broken = next((c for one in parents for c in one["conditions"] if c["status"] == "False"), None)
        if not parents or broken:
            said, reason = "False", broken["reason"] if broken else "ParentStatusNotAvailable"
    if gateway_api and not routes:
        said, reason = "False", "Predictor Deployment NotReady"
    mark(conditions, "IngressReady", said, reason)
    predictor = condition(conditions, "PredictorReady") or {"status": "Unknown"}
    worst = predictor if predictor["status"] != "True" else {"status": said, "reason": reason}
    mark(conditions, "Ready", worst["status"], worst.get("reason", ""), worst.get("message", ""))
    mark(conditions, "Stopped", "False")
