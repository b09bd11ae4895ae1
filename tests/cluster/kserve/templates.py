"""From an InferenceService's predictor to the pods that serve it, as KServe builds them."""

import json
from typing import Any

from tests.cluster.kserve.things import Plain

CONTAINER = "kserve-container"
NOT_PASSED_ON = (
    "autoscaling.knative.dev/min-scale",
    "autoscaling.knative.dev/max-scale",
    "internal.serving.kserve.io/storage-initializer-sourceuri",
    "kubectl.kubernetes.io/last-applied-configuration",
    "modelFormat",
)
"""Annotations that KServe keeps to itself; every other one reaches the pods, and a change of it restarts them."""

MODE = "serving.kserve.io/deploymentMode"
_OF_THE_CONTAINER = ("image", "command", "resources", "ports", "securityContext", "volumeMounts", "imagePullPolicy")
_OF_THE_CONTAINER += ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "terminationMessagePolicy")
_MODES = {"Serverless": "Knative", "RawDeployment": "Standard"}
_NOT_OF_THE_POD = ("model", "name", "minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "autoScaling", "labels")
_NOT_OF_THE_POD += ("annotations", "canaryTrafficPercent", "containerConcurrency", "timeout", "logger", "batcher")


def mode_of(isvc: Plain, default: str) -> str:
    """Knative or Standard; the annotation counts, then what the cluster is set to."""
    asked = isvc["metadata"].get("annotations", {}).get(MODE, default)
    return _MODES.get(asked, asked)


def predictor_name(isvc: Plain, predictor: Plain) -> str:
    """The name of a predictor's Deployment or Knative Service."""
    middle = f"{predictor['name']}-" if predictor.get("name") else ""
    return f"{isvc['metadata']['name']}-{middle}predictor"


def annotations(isvc: Plain, predictor: Plain) -> dict[str, str]:
    own = {k: v for k, v in isvc["metadata"].get("annotations", {}).items() if k not in NOT_PASSED_ON}
    uri = predictor.get("model", {}).get("storageUri")
    if uri:
        own["internal.serving.kserve.io/storage-initializer-sourceuri"] = uri
    return own | {k: v for k, v in predictor.get("annotations", {}).items() if k not in NOT_PASSED_ON}


def labels(isvc: Plain, predictor: Plain) -> dict[str, str]:
    own = isvc["metadata"].get("labels", {}) | predictor.get("labels", {})
    name = isvc["metadata"]["name"]
    return own | {"serving.kserve.io/inferenceservice": name, "component": "predictor"}


def pod_spec(isvc: Plain, predictor: Plain, runtimes: list[Plain]) -> Plain:
    """The pod; the container begins as the runtime's, and the model's own fields win."""
    name = isvc["metadata"]["name"]
    model = predictor.get("model", {})
    base = _runtime_container(model, runtimes)
    kept = {k: v for k, v in model.items() if k in _OF_THE_CONTAINER}
    container: Plain = {**base, **kept, "name": CONTAINER}
    container.setdefault("image", f"runtime/{model.get('modelFormat', {}).get('name', 'custom')}")
    env = {one["name"]: one for one in (*base.get("env", []), *model.get("env", []))}
    env["INFERENCE_SERVICE_NAME"] = {"name": "INFERENCE_SERVICE_NAME", "value": name}
    container["env"] = list(env.values())
    container["args"] = [*base.get("args", []), *model.get("args", [])]
    whole = {k: v for k, v in predictor.items() if k not in _NOT_OF_THE_POD} | {"containers": [container]}
    filled: Plain = json.loads(_filled(json.dumps(whole), isvc))
    return filled


def _filled(text: str, isvc: Plain) -> str:
    """KServe renders Go templates with the InferenceService's metadata; these two are all that ours may use."""
    meta = isvc["metadata"]
    for name in ("Name", "Namespace"):
        for form in (f"{{{{.{name}}}}}", f"{{{{ .{name} }}}}"):
            text = text.replace(form, meta[name.lower()])
    return text


def _runtime_container(model: Plain, runtimes: list[Plain]) -> Plain:
    for runtime in runtimes:
        if runtime["metadata"]["name"] == model.get("runtime"):
            containers: list[Any] = runtime["spec"].get("containers", [])
            found: Plain = dict(next((one for one in containers if one["name"] == CONTAINER), {}))
            return found
    return {}
