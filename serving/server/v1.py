"""The V1 protocol: ``{"instances": [...]}`` to rows, predictions to ``{"predictions": [...]}``."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from components.errors import BadInput
from serving.bundle import Predictions
from serving.inputs import require
from serving.protocol import labels
from serving.schema import BundleManifest
from serving.server.columns import Reader, Row
from serving.server.failures import BadRequest
from serving.server.limits import Limits

NEEDS = 'The request body needs "instances": a list of objects keyed by input column, or of arrays.'


def rows_of(body: bytes | bytearray, reader: Reader, limits: Limits) -> list[Row]:
    """The rows of a V1 body, each with its values in the order of the inputs.

    Raises:
        BadRequest: the body is not JSON, too deep or too long, or an instance lacks a column.
    """
    payload = parsed(body)
    instances = payload.get("instances") if type(payload) is dict else None
    if type(instances) is not list:
        raise BadRequest(NEEDS)
    check_depth(payload, body, 2 + len(instances), limits)
    if len(instances) > limits.rows:
        raise BadRequest(f"The request has {len(instances):,} instances; the most is {limits.rows:,}. Send several.")
    try:
        pick = reader.pick
        rows = [pick(instance) for instance in instances]
    except (KeyError, TypeError, IndexError, AttributeError):  # arrays, or something wrong
        names = reader.names
        rows = [_row(index, instance, names) for index, instance in enumerate(instances)]
    if len(body) > limits.text_chars:
        check_texts(rows, reader.names, limits)
    return rows


def reply(scores: Predictions, manifest: BundleManifest) -> bytes:
    """The V1 reply: per row label and probabilities, or the value."""
    if manifest.task == "regression":
        return orjson.dumps({"predictions": scores.tolist()})
    classes = manifest.classes
    return orjson.dumps(
        {
            "predictions": [
                {"label": label, "probabilities": dict(zip(classes, row, strict=True))}
                for label, row in zip(labels(scores, manifest), scores.tolist(), strict=True)
            ]
        }
    )


def parsed(body: bytes | bytearray) -> Any:
    """The JSON of a body.

    Raises:
        BadRequest: it is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The request body is not JSON: {error}. A missing value is null.") from error


def check_depth(payload: Any, body: bytes | bytearray, usual: int, limits: Limits) -> None:
    """Refuse JSON that is nested too deep.

    Args:
        payload: what was parsed.
        body: what it was parsed from. Brackets are counted first, which costs next to nothing: with no more than usual
            none can be deep.
        usual: how many lists and objects a proper request of this size has.
        limits: what is refused.

    Raises:
        BadRequest: it is nested deeper than allowed.
    """
    if body.count(b"[") + body.count(b"{") > usual + limits.depth - 3 and _deeper(payload, limits.depth):
        raise BadRequest(f"The request body is nested more than {limits.depth} deep.")


def check_texts(rows: Sequence[Row], names: Sequence[str], limits: Limits) -> None:
    """Refuse texts that are too long.

    Raises:
        BadRequest: names the column and the row.
    """
    for index, row in enumerate(rows):
        for name, value in zip(names, row, strict=True):
            if type(value) is str and len(value) > limits.text_chars:
                raise BadRequest(
                    f"Input column {name!r}, row {index}: the text has {len(value):,} characters; "
                    f"the most is {limits.text_chars:,}."
                )


def _row(index: int, instance: Any, names: tuple[str, ...]) -> Row:
    if isinstance(instance, Mapping):
        try:
            return [instance[name] for name in names]
        except KeyError:
            try:
                require(names, instance)
            except BadInput as error:
                raise BadRequest(f"instances[{index}]: {error}") from error
    if isinstance(instance, list):
        if len(instance) == len(names):
            return instance
        raise BadRequest(f"instances[{index}] has {len(instance)} values; the inputs are {', '.join(names)}.")
    raise BadRequest(f"instances[{index}] is neither an object keyed by input column nor an array.")


def _deeper(payload: Any, depth: int) -> bool:
    level = [payload]
    for _ in range(depth + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
