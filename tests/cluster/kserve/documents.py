"""Documents that tests begin from."""

import copy
from typing import Any

from tests.cluster.kserve.things import Plain


def isvc(service: str, uri: str, annotations: dict[str, str] | None = None, **predictor: Any) -> Plain:
    """An InferenceService; further arguments are fields of its predictor."""
    metadata: Plain = {"name": service, "namespace": "default"}
    if annotations:
        metadata["annotations"] = annotations
    model = {"modelFormat": {"name": "mlflow"}, "storageUri": uri}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": {"model": model, **predictor}},
    }


def with_canary(service: Plain, name: str, uri: str, percent: int, **predictor: Any) -> Plain:
    """The service with a canary of Standard mode."""
    answer = copy.deepcopy(service)
    model = {"modelFormat": {"name": "mlflow"}, "storageUri": uri, "name": "kserve-container"}
    answer["spec"]["canary"] = [{"trafficPercent": percent, "predictor": {"name": name, "model": model, **predictor}}]
    return answer


def promoted(service: Plain) -> Plain:
    """The service with its canary's predictor in the place of the stable one, and no canary."""
    answer = copy.deepcopy(service)
    (canary,) = answer["spec"].pop("canary")
    predictor = {**answer["spec"]["predictor"], **canary["predictor"]}
    predictor["model"].pop("name")  # asked for by the CRD on a canary, refused by the webhook on a predictor
    predictor["minReplicas"] = service["spec"]["predictor"].get("minReplicas", 1)
    answer["spec"]["predictor"] = predictor
    return answer
