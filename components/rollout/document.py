"""The InferenceService that a model version is served as."""

import math
from collections.abc import Mapping
from typing import Any

from components import images
from components.rollout.deployment import Deployment

PREFIX = "sluiceway.dev/"
VERSION = f"{PREFIX}model-version"
MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
OURS = "sluiceway"
"""The runtime that manifests/base/models/serving-runtime.yaml installs."""
CONTAINER = "kserve-container"
"""What KServe calls the container of the model server."""
SERVER_PORT = 8080
_PROBE_SECONDS = 5
_ONLY_V1 = ("tensorflow",)  # TensorFlow Serving does not speak the V2 protocol


def inference_service(
    name: str,
    storage_uri: str,
    version: str,
    env: dict[str, str],
    port: int = 0,
    *,
    deployment: Deployment | None = None,
    lineage: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Build the document with the fields that KServe reads, for a release that has all traffic.

    It is the same for every mechanism; what only one of them takes is added by its target. On a cluster the lineage
    is kept on the predictor and not on the service: metadata is passed on to the pods of both versions, so that a
    change of it would start the champion's servers anew in the middle of a rollout. For the same reason nothing here
    may change in the life of a release.

    Args:
        name: the service's name.
        storage_uri: where the bundle lies.
        version: the registered model version, kept as an annotation for lineage.
        env: environment of the model server.
        port: where the service on this machine listens; 0 keeps the port it has, or takes a free one.
        deployment: how a cluster serves it; None for this machine, which reads the model and its environment only.
        lineage: what else is known of the model, such as {"data-version": …}; empty values are left out.
    """
    if deployment is None:
        return _on_this_machine(name, storage_uri, version, env, port)
    facts = {"model-version": version} | dict(lineage or {})
    predictor: dict[str, Any] = {
        "annotations": {f"{PREFIX}{fact}": value for fact, value in facts.items() if value},
        **_scaling(deployment),
        "model": _model(name, storage_uri, env, deployment, facts.get("native", "")),
    }
    if deployment.service_account:
        predictor["serviceAccountName"] = deployment.service_account
    if deployment.logger is not None:
        predictor["logger"] = {"url": deployment.logger.url, "mode": deployment.logger.mode}
    metadata: dict[str, Any] = {"name": name}
    if deployment.namespace:
        metadata["namespace"] = deployment.namespace
    metadata["annotations"] = dict(deployment.annotations)
    metadata["labels"] = {"app.kubernetes.io/managed-by": "sluiceway"} | deployment.labels
    return _service(metadata, predictor)


def _on_this_machine(name: str, storage_uri: str, version: str, env: dict[str, str], port: int) -> dict[str, Any]:
    annotations = {VERSION: version}
    if port:
        annotations[f"{PREFIX}port"] = str(port)
    model = {"modelFormat": {"name": "mlflow"}, "protocolVersion": "v2", "storageUri": storage_uri}
    return _service({"name": name, "annotations": annotations}, {"model": model | _env(env)})


def _service(metadata: dict[str, Any], predictor: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }


def _env(env: dict[str, str]) -> dict[str, Any]:
    return {"env": [{"name": key, "value": value} for key, value in sorted(env.items())]} if env else {}


def _scaling(deployment: Deployment) -> dict[str, Any]:
    """Numbers of servers. The metric is only named with a target: each mode has its own default."""
    scaling = deployment.autoscaling
    fields: dict[str, Any] = {"minReplicas": scaling.min_replicas}
    if scaling.max_replicas:
        fields["maxReplicas"] = scaling.max_replicas
    if scaling.target:
        fields |= {"scaleMetric": scaling.metric, "scaleTarget": scaling.target}
    return fields


def _model(name: str, storage_uri: str, env: dict[str, str], deployment: Deployment, native: str) -> dict[str, Any]:
    """The model and its server, as ``predictor.model``: the older fields by framework are rewritten by the webhook.

    The container has no name: KServe's webhook refuses one on the predictor. A canary of Standard mode needs one,
    and its target gives it the name that KServe uses anyway.
    """
    ours = deployment.runtime == OURS
    model: dict[str, Any] = {
        "modelFormat": {"name": "mlflow" if ours else deployment.runtime},
        "protocolVersion": "v1" if deployment.runtime in _ONLY_V1 else "v2",
        # What the server said last is then in the pod's status, where it can be read without access to logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_env(env),
    }
    if ours:
        model |= {"runtime": OURS, **_probes(name)}
    if ours or deployment.image:
        model["image"] = deployment.image or images.for_serving(native)
    if "path" not in deployment.storage:
        model["storageUri"] = storage_uri
    if deployment.storage:
        model["storage"] = deployment.storage
    if resources := _resources(deployment):
        model["resources"] = resources
    return model


def _resources(deployment: Deployment) -> dict[str, dict[str, str]]:
    resources = {kind: dict(amounts) for kind, amounts in deployment.resources.items()}
    if deployment.accelerators:
        for kind in ("requests", "limits"):
            resources.setdefault(kind, {})[deployment.accelerator_type] = str(deployment.accelerators)
    return resources


def _probes(name: str) -> dict[str, Any]:
    """Ready once the model has made a prediction; alive as long as the server listens."""
    return {
        "readinessProbe": {
            "httpGet": {"path": f"/v2/models/{name}/ready", "port": SERVER_PORT},
            "periodSeconds": _PROBE_SECONDS,
            "timeoutSeconds": 3,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/v2/health/live", "port": SERVER_PORT},
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
    }


def readiness_probe(model: str) -> dict[str, Any]:
    """Asks our server for a model by the name that it was told; the runtime's own asks for the service's."""
    return {
        "httpGet": {"path": f"/v2/models/{model}/ready", "port": SERVER_PORT},
        "periodSeconds": _PROBE_SECONDS,
        "timeoutSeconds": 3,
    }


def startup_probe(ready_seconds: float) -> dict[str, Any]:
    """Holds the other probes back while a large model's server starts; Knative refuses one, so its target has none."""
    return {
        "httpGet": {"path": "/v2/health/live", "port": SERVER_PORT},
        "periodSeconds": _PROBE_SECONDS,
        "failureThreshold": max(1, math.ceil(ready_seconds / _PROBE_SECONDS)),
    }
