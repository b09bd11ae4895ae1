"""An InferenceService is checked before anything is sent: against KServe's schema, then against its own rules.

The rules are those of KServe's admission webhook (pkg/apis/serving/v1beta1/inference_service_validation.go) and of its
controller, as of August 2026: what breaks them is refused by the one or ignored by the other, and both say it late.
"""

import gzip
import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from components.errors import BadInput

Plain = dict[str, Any]

_SHIPPED = Path(__file__).parent / "schemas" / "inferenceservice.json.gz"
_MODE = "serving.kserve.io/deploymentMode"
_AUTOSCALER = "serving.kserve.io/autoscalerClass"
_KNATIVE_CLASS = "autoscaling.knative.dev/class"
_KNATIVE_HPA = "hpa.autoscaling.knative.dev"
_NO_UPDATES = "serving.kserve.io/disable-auto-update"
_STANDARD = ("Standard", "RawDeployment")
_AUTOSCALERS = ("hpa", "external", "keda", "none")
_IMPLEMENTATIONS = (
    *("sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "huggingface", "pmml", "lightgbm"),
    *("paddle", "model"),
)
_SCHEMES = (
    *("gs://", "s3://", "pvc://", "file://", "https://", "http://", "hdfs://", "webhdfs://"),
    *("oci://", "oci+native://", "oci+fetch://", "hf://"),
)
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL = 63
_REVISION_ROOM = len("-predictor-00001")

Problem = tuple[str, str]
"""Where and what."""


def validate(manifest: Plain, schema: Plain | None = None) -> None:
    """Check an InferenceService.

    Args:
        manifest: as it would be sent.
        schema: OpenAPI v3 schema that the cluster publishes; None takes the newest one that we know.

    Raises:
        BadInput: it does not fit the schema or breaks a rule of KServe; names the field, and what it may be.
    """
    for where, what in chain(_against(_schema(schema), manifest), _rules(manifest)):
        name = manifest.get("metadata", {}).get("name", "")
        raise BadInput(f"The InferenceService {name} is not valid at {where}: {what}.")


def has_field(schema: Plain | None, *path: str) -> bool:
    """Whether a schema knows a field, such as ("spec", "canary"); None asks the newest one that we know."""
    part: Any = _shipped() if schema is None else schema
    for name in path:
        part = part.get("properties", {}).get(name)
        if part is None:
            return False
    return True


@cache
def _shipped() -> Plain:
    schema: Plain = json.loads(gzip.decompress(_SHIPPED.read_bytes()))
    return schema


@cache
def _shipped_strict() -> Plain:
    schema: Plain = strict(_shipped())
    return schema


def _schema(schema: Plain | None) -> Plain:
    return _shipped_strict() if schema is None else strict(schema)


def strict(part: Any) -> Any:
    """An OpenAPI schema of Kubernetes as JSON Schema that refuses unknown fields, as strict field validation does."""
    if isinstance(part, list):
        return [strict(item) for item in part]
    if not isinstance(part, dict):
        return part
    if part.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept = {key: value for key, value in part.items() if not key.startswith("x-") and key not in ("format", "default")}
    if "properties" in kept:
        kept["properties"] = {name: strict(value) for name, value in kept["properties"].items()}
        open_ended = part.get("x-kubernetes-preserve-unknown-fields")
        if not open_ended:
            kept.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties", "anyOf", "allOf", "oneOf", "not"):
        if key in kept:
            kept[key] = strict(kept[key])
    if kept.pop("nullable", False) and isinstance(kept.get("type"), str):
        kept["type"] = [kept["type"], "null"]
    return kept


def _against(schema: Plain, manifest: Plain) -> Iterator[Problem]:
    """Where the manifest does not fit; its metadata is the API's own and its status is not ours."""
    from jsonschema import Draft202012Validator

    properties = schema["properties"] | {"metadata": {"type": "object"}, "status": {}}
    checked = Draft202012Validator({**schema, "properties": properties})
    for error in sorted(checked.iter_errors(manifest), key=lambda error: list(map(str, error.absolute_path))):
        where = _path(error.absolute_path)
        if error.validator == "additionalProperties":
            unknown = sorted(set(error.instance) - set(error.schema.get("properties", {})))
            yield f"{where}.{unknown[0]}" if where else unknown[0], "this version of KServe knows no such field"
        elif error.validator == "required":
            missing = error.message.split("'")[1]
            yield f"{where}.{missing}" if where else missing, "it is required"
        elif error.validator == "enum":
            yield where, f"it must be one of {', '.join(map(str, error.validator_value))}, not {error.instance!r}"
        else:
            yield where, error.message.rstrip(".")


def _path(parts: Any) -> str:
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _rules(manifest: Plain) -> Iterator[Problem]:
    metadata, spec = manifest["metadata"], manifest["spec"]
    annotations = metadata.get("annotations", {})
    yield from _names(metadata["name"], spec)
    yield from _annotations(annotations)
    yield from _predictor(spec["predictor"], "spec.predictor", annotations)
    yield from _stable(spec["predictor"])
    if spec.get("canary"):
        yield from _canaries(spec, annotations)


def _names(name: str, spec: Plain) -> Iterator[Problem]:
    if not _NAME.fullmatch(name):
        yield "metadata.name", f"{name!r} must be lower-case letters, digits and hyphens, starting with a letter"
    for where, predictor in _predictors(spec):
        part = f"{name}-{predictor['name']}" if predictor.get("name") else name
        if len(part) + _REVISION_ROOM > _LABEL:
            yield where + ".name", f"{part}-predictor-00001 would be longer than {_LABEL} characters; shorten the name"


def _predictors(spec: Plain) -> Iterator[tuple[str, Plain]]:
    yield "spec.predictor", spec["predictor"]
    for number, canary in enumerate(spec.get("canary") or []):
        yield f"spec.canary[{number}].predictor", canary["predictor"]


def _annotations(annotations: Plain) -> Iterator[Problem]:
    autoscaler = annotations.get(_AUTOSCALER)
    if autoscaler is not None and autoscaler not in _AUTOSCALERS:
        yield f"metadata.annotations[{_AUTOSCALER}]", f"{autoscaler!r} is none of {', '.join(_AUTOSCALERS)}"
    if annotations.get(_NO_UPDATES) == "true":
        yield (
            f"metadata.annotations[{_NO_UPDATES}]",
            "KServe would ignore every change of the service while it is ready, a rollout's too; leave it out",
        )


def _predictor(predictor: Plain, where: str, annotations: Plain) -> Iterator[Problem]:
    kinds = [kind for kind in _IMPLEMENTATIONS if kind in predictor]
    if len(kinds) != 1 and not (not kinds and predictor.get("containers")):
        yield where, f"exactly one model must be given, not {len(kinds)}"
    yield from _replicas(predictor, where)
    yield from _scaling(predictor, where, annotations)
    for kind in kinds:
        yield from _model(predictor[kind], f"{where}.{kind}")
    percent = predictor.get("canaryTrafficPercent")
    if percent is not None and not 0 <= percent <= 100:
        yield f"{where}.canaryTrafficPercent", f"it must be between 0 and 100, not {percent}"
    logger = predictor.get("logger")
    if logger and logger.get("mode") not in ("all", "request", "response"):
        yield f"{where}.logger.mode", f"it must be all, request or response, not {logger.get('mode')!r}"


def _replicas(predictor: Plain, where: str) -> Iterator[Problem]:
    least, most = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    if least < 0:
        yield f"{where}.minReplicas", f"it must not be negative, and is {least}"
    if most < 0:
        yield f"{where}.maxReplicas", f"it must not be negative, and is {most}"
    if most and least > most:
        yield f"{where}.minReplicas", f"it is {least}, above maxReplicas, which is {most}"
    if predictor.get("containerConcurrency", 0) < 0:
        yield f"{where}.containerConcurrency", "it must not be negative"


def _scaling(predictor: Plain, where: str, annotations: Plain) -> Iterator[Problem]:
    metric, target = predictor.get("scaleMetric"), predictor.get("scaleTarget")
    standard = annotations.get(_MODE) in _STANDARD
    by_resource = annotations.get(_AUTOSCALER) == "hpa" if standard else annotations.get(_KNATIVE_CLASS) == _KNATIVE_HPA
    if standard and predictor.get("minReplicas") == 0:
        yield f"{where}.minReplicas", "only Knative mode scales to zero; set at least 1"
    if not standard and predictor.get("deploymentStrategy"):
        yield f"{where}.deploymentStrategy", "only Standard mode takes it"
    if standard or by_resource:
        if metric not in (None, "cpu", "memory"):
            yield f"{where}.scaleMetric", f"{metric} needs Knative mode; Standard mode scales by cpu or memory"
        if target is not None and metric in (None, "cpu") and not 1 <= target <= 100:
            yield f"{where}.scaleTarget", f"the share of the CPU must be between 1 and 100 percent, not {target}"
    elif metric not in (None, "concurrency", "rps"):
        yield f"{where}.scaleMetric", f"{metric} needs the annotation {_KNATIVE_CLASS}: {_KNATIVE_HPA}"
    if target is not None and target < 1:
        yield f"{where}.scaleTarget", f"it must be at least 1, not {target}"


def _model(model: Plain, where: str) -> Iterator[Problem]:
    uri, storage = model.get("storageUri"), model.get("storage") or {}
    if uri is not None:
        # A path without a scheme is one in the server's own container; KServe lets it pass, and so do we.
        if re.match(r"[\w+]+://", uri) and not uri.startswith(_SCHEMES):
            yield f"{where}.storageUri", f"KServe cannot load from {uri!r}; it can from {', '.join(_SCHEMES)}"
        if not uri.strip():
            yield f"{where}.storageUri", "it is empty"
        if "path" in storage:
            yield f"{where}.storage.path", "only one of storageUri and storage.path may be given"
    elif not storage.get("path"):
        yield f"{where}.storageUri", "it or storage.path must say where the model lies"
    for number, variable in enumerate(model.get("env", [])):
        if variable["name"] == "PYTHONPATH":
            yield f"{where}.env[{number}]", "KServe does not allow PYTHONPATH to be set"


def _stable(predictor: Plain) -> Iterator[Problem]:
    for kind in _IMPLEMENTATIONS:
        if predictor.get(kind, {}).get("name"):
            yield f"spec.predictor.{kind}.name", "KServe's webhook allows no container name here, only on a canary"


def _canaries(spec: Plain, annotations: Plain) -> Iterator[Problem]:
    if annotations.get(_MODE) not in _STANDARD:
        yield "spec.canary", f"it needs the annotation {_MODE}: Standard; Knative mode takes canaryTrafficPercent"
    if spec.get("transformer") or spec.get("explainer"):
        yield "spec.canary", "KServe sends what is meant for a transformer or explainer to the canary; remove them"
    stable, seen, total = spec["predictor"], set(), 0
    for number, canary in enumerate(spec["canary"]):
        where, predictor, percent = f"spec.canary[{number}]", canary["predictor"], canary["trafficPercent"]
        name = predictor.get("name", "")
        if not name:
            yield f"{where}.predictor.name", "it is required"
        elif name in seen or name == stable.get("name"):
            yield f"{where}.predictor.name", f"{name!r} is the name of another predictor"
        seen.add(name)
        if not 0 <= percent <= 100:
            yield f"{where}.trafficPercent", f"it must be between 0 and 100, not {percent}"
        total += percent
        yield from _predictor(predictor, f"{where}.predictor", annotations)
        yield from _canary(predictor, f"{where}.predictor", stable.get("minReplicas", 1))
    if total > 100:
        yield "spec.canary", f"the trafficPercent of all canaries must be at most 100 together, and is {total}"


def _canary(predictor: Plain, where: str, stable_replicas: int) -> Iterator[Problem]:
    for field in ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling", "workerSpec", "canaryTrafficPercent"):
        if predictor.get(field):
            yield f"{where}.{field}", "a canary has a fixed number of servers and must not set it"
    least = predictor.get("minReplicas", 0)
    if least > stable_replicas:
        yield f"{where}.minReplicas", f"it is {least}, above the predictor's, which is {stable_replicas}"
