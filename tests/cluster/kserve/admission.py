"""KServe's webhooks for InferenceServices, as plain functions: what is filled in and what is refused.

After ``DefaultInferenceService`` and ``validateInferenceService`` of kserve/kserve (August 2026), the parts about
predictors with a model, and canaries.
"""

import copy
import re
from typing import Any

from tests.cluster import errors
from tests.cluster.kserve.templates import MODE
from tests.cluster.kserve.things import Plain

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LEGACY = {"RawDeployment": "Standard", "Serverless": "Knative"}
_FIXED = "(canary uses fixed replicas)"


class Refused(Exception):
    """Why an object is not let in; the API server answers 403 with it."""


def admit(isvc: Plain, old: Plain | None, default_mode: str = "Knative") -> Plain:
    """The InferenceService as it is stored.

    Args:
        isvc: as it is asked for.
        old: as it is now; None on create.
        default_mode: the cluster's deployment mode, where no annotation says another.

    Raises:
        Refused: a rule is broken.
    """
    answer = copy.deepcopy(isvc)
    annotations = answer["metadata"].setdefault("annotations", {})
    if MODE in annotations:
        annotations[MODE] = _LEGACY.get(annotations[MODE], annotations[MODE])
    elif default_mode == "Standard":
        annotations[MODE] = default_mode
    if not annotations:
        del answer["metadata"]["annotations"]
    validate(answer, old)
    return answer


def install(objects: Any, default_mode: str) -> None:
    """Have a fake API server run the webhooks."""

    def admission(kind: Any, thing: Plain, old: Plain | None) -> Plain:
        if kind.kind != "InferenceService" or thing["metadata"].get("deletionTimestamp"):
            return thing
        try:
            return admit(thing, old, default_mode)
        except Refused as error:
            webhook = 'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: '
            raise errors.Refused(403, f"{webhook}{error}") from error

    objects.admission = admission


def validate(isvc: Plain, old: Plain | None) -> None:
    """Check the rules.

    Raises:
        Refused: one is broken.
    """
    if old is not None:
        _check_change(isvc, old)
    if not _NAME.fullmatch(isvc["metadata"]["name"]):
        raise Refused(f"the InferenceService {isvc['metadata']['name']!r} is invalid: not a DNS label")
    predictor = isvc["spec"]["predictor"]
    if predictor.get("model", {}).get("name"):
        raise Refused("the 'name' field is not allowed in standard predictor")
    _check_replicas(predictor)
    if "canary" in isvc["spec"] and isvc["spec"]["canary"]:
        _check_canaries(isvc)


def _check_change(isvc: Plain, old: Plain) -> None:
    was, asked = old.get("status", {}).get("deploymentMode"), isvc["metadata"].get("annotations", {}).get(MODE)
    if was and asked and asked != was:
        raise Refused(f"update rejected: deploymentMode cannot be changed from '{was}' to '{asked}'")
    before, after = old["spec"]["predictor"], isvc["spec"]["predictor"]
    if before.get("name", "") != after.get("name", "") and _uri(before) == _uri(after):
        raise Refused("predictor.name change requires a model change (e.g. storageUri)")


def _check_replicas(predictor: Plain) -> None:
    least, most = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    if least < 0 or most < 0:
        raise Refused("MinReplicas and MaxReplicas cannot be less than 0")
    if most and least > most:
        raise Refused("MinReplicas cannot be greater than MaxReplicas.")


def _check_canaries(isvc: Plain) -> None:
    stable = isvc["spec"]["predictor"]
    if isvc["metadata"].get("annotations", {}).get(MODE) != "Standard":
        raise Refused("canary is only supported in Standard deployment mode")
    if "model" not in stable:
        raise Refused("canary requires a stable predictor with a model")
    names: set[str] = set()
    total = 0
    for index, canary in enumerate(isvc["spec"]["canary"]):
        name = canary["predictor"].get("name", "")
        if not name:
            raise Refused(f"canary[{index}] predictor.name is required")
        if name in names:
            raise Refused(f"canary predictor.name {name!r} is duplicated")
        if name == stable.get("name", ""):
            raise Refused(f"canary predictor.name {name!r} conflicts with stable predictor name")
        names.add(name)
        total += canary["trafficPercent"]
        _check_canary(name, canary, stable)
    if total > 100:
        raise Refused(f"sum of canary trafficPercent values ({total}) must be <= 100")


def _check_canary(name: str, canary: Plain, stable: Plain) -> None:
    predictor, percent = canary["predictor"], canary["trafficPercent"]
    if not 0 <= percent <= 100:
        raise Refused(f"canary {name!r} trafficPercent must be between 0 and 100, got {percent}")
    if "model" not in predictor:
        raise Refused(f"canary {name!r} predictor: exactly one of the implementations must be given")
    if "workerSpec" in predictor:
        raise Refused(f"canary {name!r} must not set workerSpec (multi-node is not yet supported for canary)")
    for field in ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling"):
        if predictor.get(field):
            raise Refused(f"canary {name!r} must not set {field} {_FIXED}")
    least = stable.get("minReplicas", 1)
    if predictor.get("minReplicas", 0) > least:
        own = predictor["minReplicas"]
        raise Refused(f"canary {name!r} minReplicas ({own}) must not exceed stable predictor minReplicas ({least})")


def _uri(predictor: Plain) -> str:
    uri: str = predictor.get("model", {}).get("storageUri", "")
    return uri
