"""The InferenceService that a model version is served as."""

from typing import Any


def inference_service(name: str, storage_uri: str, version: str, env: dict[str, str], port: int = 0) -> dict[str, Any]:
    """Build the document with the fields that KServe reads.

    Args:
        name: the service's name.
        storage_uri: where the bundle lies.
        version: the registered model version, kept as an annotation for lineage.
        env: environment of the model server.
        port: where the service on this machine listens; 0 keeps the port it has, or takes a free one.
    """
    model: dict[str, Any] = {
        "modelFormat": {"name": "mlflow"},
        "protocolVersion": "v2",
        "storageUri": storage_uri,
    }
    if env:
        model["env"] = [{"name": key, "value": value} for key, value in sorted(env.items())]
    annotations = {"sluiceway.dev/model-version": version}
    if port:
        annotations["sluiceway.dev/port"] = str(port)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"predictor": {"model": model}},
    }
