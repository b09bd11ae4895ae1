"""The champion's predictions of the same raw rows, through its own bundle."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

import numpy as np

from components.errors import SluicewayError
from components.evaluate.metrics import Floats
from components.features.schema import FeatureSchema

if TYPE_CHECKING:
    import pyarrow as pa


class NotScored(Exception):
    """The champion gave no predictions that can be compared; the message says why."""


def champion_scores(uri: str, table: "pa.Table", schema: FeatureSchema) -> Floats:
    """Predictions of the champion, its classes in the challenger's order.

    Args:
        uri: where its bundle lies: a path, ``file://``, or anything that MLflow downloads.
        table: raw rows.
        schema: the challenger's features, for task and classes.

    Raises:
        NotScored: it cannot be fetched, verified, loaded or run, or answers another question.
    """
    from serving.bundle import load

    try:
        with tempfile.TemporaryDirectory() as scratch:
            model = load(_local(uri, Path(scratch)))
        manifest = model.manifest
        if manifest.task != schema.task:
            raise NotScored(f"it is a {manifest.task} model and the challenger a {schema.task} model")
        if set(manifest.classes) != set(schema.classes):
            raise NotScored(f"its classes are {', '.join(manifest.classes)} and not {', '.join(schema.classes)}")
        scores = model.predict(table)
    except (SluicewayError, OSError) as error:
        raise NotScored(str(error)) from error
    if not np.isfinite(scores).all():
        raise NotScored("some of its predictions are not numbers")
    return scores[:, [manifest.classes.index(label) for label in schema.classes]] if schema.classes else scores


def _local(uri: str, scratch: Path) -> Path:
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    if not parsed.scheme:
        return Path(uri)
    from components.register.registry import download

    return download(uri, scratch)
