"""KServe's V1 and V2 request bodies to columns, and predictions to replies; no server in it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.errors import BadInput
from components.features.schema import FeatureSchema
from serving.bundle import Predictions
from serving.inputs import require
from serving.schema import BundleManifest

V2_TYPES = {"number": "FP64", "boolean": "BOOL", "string": "BYTES", "timestamp": "BYTES"}


def v1_columns(payload: Any, schema: FeatureSchema) -> dict[str, list[Any]]:
    """Columns of a V1 body: ``instances`` as objects keyed by column, or arrays in the order of the inputs.

    Raises:
        BadInput: names the instance and the column that is missing.
    """
    if isinstance(payload, bytes):  # kserve leaves a body alone whose content type carries a charset
        try:
            payload = json.loads(payload)
        except ValueError as error:
            raise BadInput(f"The request body is not JSON: {error}.") from error
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list):
        raise BadInput('The request body needs "instances": a list of objects keyed by input column, or of arrays.')
    names = [column.name for column in schema.inputs]
    rows = [_row(index, instance, names) for index, instance in enumerate(instances)]
    return {name: [row[position] for row in rows] for position, name in enumerate(names)}


def _row(index: int, instance: Any, names: list[str]) -> Sequence[Any]:
    if isinstance(instance, Mapping):
        try:
            return [instance[name] for name in names]
        except KeyError:
            try:
                require(names, instance)
            except BadInput as error:
                raise BadInput(f"instances[{index}]: {error}") from error
    if isinstance(instance, list):
        if len(instance) == len(names):
            return instance
        raise BadInput(f"instances[{index}] has {len(instance)} values; the inputs are {', '.join(names)}.")
    raise BadInput(f"instances[{index}] is neither an object keyed by input column nor an array.")


def v1_reply(scores: Predictions, manifest: BundleManifest) -> dict[str, Any]:
    """The V1 reply: per row label and probabilities, or the value."""
    if manifest.task == "regression":
        return {"predictions": scores.tolist()}
    rows = []
    for label, row in zip(labels(scores, manifest), scores.tolist(), strict=True):
        rows.append({"label": label, "probabilities": dict(zip(manifest.classes, row, strict=True))})
    return {"predictions": rows}


def v2_columns(tensors: Sequence[Any], schema: FeatureSchema) -> dict[str, list[Any]]:
    """Columns of a V2 request: one tensor per input column, of shape (n) or (n, 1).

    Args:
        tensors: kserve's ``InferInput`` objects; null in JSON data is a missing value.
        schema: names the inputs.

    Raises:
        BadInput: names the tensor that is missing or has another shape.
    """
    names = [column.name for column in schema.inputs]
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        if tensor.name not in names:
            continue
        data = tensor.data if tensor.data is not None else tensor.as_numpy().tolist()
        flat: list[Any] = []
        for value in data:
            flat.extend(value if isinstance(value, list) else [value])
        shape = list(tensor.shape)
        if shape not in ([len(flat)], [len(flat), 1]):
            raise BadInput(
                f"Input tensor {tensor.name!r} has shape {shape} and {len(flat)} values; send one value per row, "
                "shape [n] or [n, 1]."
            )
        columns[tensor.name] = [_decoded(tensor.name, row, value) for row, value in enumerate(flat)]
    require(names, columns)
    return columns


def _decoded(name: str, row: int, value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"Input tensor {name!r}, row {row}: the bytes are not UTF-8 text.") from error


def v2_outputs(scores: Predictions, manifest: BundleManifest) -> list[tuple[str, list[int], str, list[Any]]]:
    """Name, shape, datatype and flat data of each output tensor."""
    rows = scores.shape[0]
    if manifest.task == "regression":
        return [("value", [rows], "FP64", scores.tolist())]
    return [
        ("probabilities", [rows, len(manifest.classes)], "FP64", scores.reshape(-1).tolist()),
        ("label", [rows], "BYTES", labels(scores, manifest)),
    ]


def labels(scores: Predictions, manifest: BundleManifest) -> list[str]:
    """The most probable class of each row."""
    return [manifest.classes[index] for index in scores.argmax(axis=1)]


def v2_metadata(schema: FeatureSchema, manifest: BundleManifest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Input and output tensors for the V2 metadata endpoint."""
    given = [{"name": c.name, "datatype": V2_TYPES[c.type], "shape": [-1]} for c in schema.inputs]
    if manifest.task == "regression":
        return given, [{"name": "value", "datatype": "FP64", "shape": [-1]}]
    return given, [
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, len(manifest.classes)]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ]
