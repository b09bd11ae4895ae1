"""Exports a bundle's graph for devices: onnxruntime's own format, 8-bit on request, compared with the server."""

import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.errors import BadInput
from components.features import schema as features
from components.features.schema import FeatureSchema
from components.files import whole_folder
from serving import bundle as bundles
from serving.bundle import Model, Predictions
from serving.edge.manifest import (
    FILE,
    MODEL_FILE,
    OPERATORS_FILE,
    EdgeInput,
    EdgeManifest,
    EdgeParity,
)
from serving.inputs import Columns, coerce, columns_of
from serving.schema import FILE as BUNDLE_FILE
from serving.schema import ONNX_FILE, BundleManifest

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-5
"""Of the graph as it is, where the bundle names none; times the median size of a value above 1."""
QUANTIZED_TOLERANCE = 0.05
MOST_ROWS = 1_000

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(string)": "string"}


@dataclass(frozen=True)
class _Compared:
    """Rows that are predicted by both."""

    columns: Columns
    source: str


def export(
    bundle: Path, to: Path, *, quantize: bool = False, rows: Path | None = None, tolerance: float | None = None
) -> EdgeManifest:
    """Verify a bundle, write its model for devices, and compare what both predict.

    Args:
        bundle: with an ONNX graph.
        to: folder to write; it appears whole or not at all, and replaces an earlier export.
        quantize: make the layers of a network 8-bit integers: a quarter of the size.
        rows: CSV or Parquet file of raw rows to compare on, the first thousand; None takes the bundle's background.
        tolerance: largest difference allowed, of a probability or of a value; None takes the bundle's own, or for
            8-bit integers 0.05, of values times their median size where that is above 1.

    Raises:
        BadBundle: the bundle does not verify.
        BadInput: it has no graph, nothing to quantise or no rows to compare on; ``to`` is something else already; or
            the difference is too large.
        StorageFull: there is no space left.
    """
    manifest = bundles.verify(bundle)
    if manifest.runtime != "onnx":
        reason = manifest.parity.reason if manifest.parity else ""
        raise BadInput(
            f"{bundle} has no ONNX graph to export: it is served by {manifest.framework} itself"
            + (f", since {reason}" if reason else "")
            + ". Train with a larger parity_tolerance, or another trainer."
        )
    _check_target(to)
    model = bundles.load(bundle)
    compared = _rows(rows, model, bundle)
    with whole_folder(to) as folder:
        path = folder / MODEL_FILE
        _write_model(bundle, quantize, path)
        shutil.copyfile(bundle / features.FILE, folder / features.FILE)
        _write_operators(path)
        inputs, output, given = _run(path, model.schema, _frame(compared.columns, model.schema))
        wanted = model.predict_typed(compared.columns)
        parity = _parity(given, wanted, compared, _allowed(manifest, wanted, quantize, tolerance))
        made = EdgeManifest(
            recipe_digest=manifest.recipe_digest,
            bundle_sha256=hashlib.sha256((bundle / BUNDLE_FILE).read_bytes()).hexdigest(),
            task=manifest.task,
            classes=manifest.classes,
            quantized=quantize,
            onnxruntime=_version(),
            inputs=inputs,
            output=output,
            parity=parity,
            files=bundles.digest_files(folder),
        )
        (folder / FILE).write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return made


def _check_target(to: Path) -> None:
    if to.exists() and not (to / FILE).is_file() and not (to.is_dir() and not any(to.iterdir())):
        raise BadInput(f"{to} exists and is no earlier export: name another folder.")


def _rows(path: Path | None, model: Model, bundle: Path) -> _Compared:
    if path is None:
        if model.background is None:
            raise BadInput(f"{bundle} keeps no rows to compare on: name a CSV or Parquet file of raw rows with --rows.")
        return _Compared(model.background.columns, "background")
    table = _table(path).head(MOST_ROWS)
    if table.empty:
        raise BadInput(f"{path} holds no rows to compare on.")
    return _Compared(coerce(columns_of(table, model.schema), model.schema), path.name)


def _table(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as raw rows, CSV or Parquet: {error}") from error


def _write_model(bundle: Path, quantize: bool, path: Path) -> None:
    import onnx

    from components.train.exports import errors, has_float_layers, to_int8, to_ort

    graph: onnx.ModelProto = onnx.load(bundle / ONNX_FILE)
    if quantize and not has_float_layers(graph):
        raise BadInput(
            f"{bundle} has nothing to quantise: its graph has no float32 layer, only trees or doubles. Export it "
            "without --quantize."
        )
    try:
        if quantize:
            aside = path.with_suffix(".int8.onnx")
            to_int8(graph, aside)
            graph = onnx.load(aside)
            aside.unlink()
        to_ort(graph, path)
    except errors() as error:
        raise BadInput(f"onnxruntime cannot export {bundle}: {' '.join(str(error).split())}") from error


def _write_operators(path: Path) -> None:
    """What a build of onnxruntime for this model alone needs (its ``--include_ops_by_config``)."""
    from onnxruntime.tools.ort_format_model import create_config_from_models

    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)

    config = path.with_name(OPERATORS_FILE)
    create_config_from_models([path], config, enable_type_reduction=True)
    lines = config.read_text(encoding="utf-8").splitlines()  # its comments name the folder that was written to
    config.write_text("\n".join(line for line in lines if not line.startswith("#")) + "\n", encoding="utf-8")


def _frame(columns: Columns, schema: FeatureSchema) -> "pd.DataFrame":
    import pandas as pd

    from components.features.expressions import derive

    return bundles.model_frame(derive(pd.DataFrame(columns), schema), schema)


def _run(path: Path, schema: FeatureSchema, frame: "pd.DataFrame") -> tuple[tuple[EdgeInput, ...], str, Predictions]:
    """The exported model's inputs, output, and predictions of rows of the model frame as a device makes them."""
    import onnxruntime

    from components.train.parity import onnx_predictions

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    types = {column.name: column.type for column in schema.inputs}
    features = {feature.name: feature for feature in schema.features}
    inputs = tuple(
        EdgeInput.model_validate(
            {
                "name": one.name,
                "dtype": _DTYPES[one.type],
                "takes": "derived" if features[one.name].expression else types[one.name],
                "expression": features[one.name].expression,
                "encoding": features[one.name].encoding,
            }
        )
        for one in session.get_inputs()
    )
    output = session.get_outputs()[-1].name
    return inputs, output, onnx_predictions(str(path), frame, schema, 1)


def _allowed(manifest: BundleManifest, wanted: Predictions, quantize: bool, tolerance: float | None) -> float:
    if tolerance is not None:
        return tolerance
    usual = max(1.0, float(np.median(np.abs(wanted)))) if manifest.task == "regression" else 1.0
    if quantize:
        return QUANTIZED_TOLERANCE * usual
    known = manifest.parity.tolerance if manifest.parity else 0.0
    return known or TOLERANCE * usual


def _parity(given: Predictions, wanted: Predictions, compared: _Compared, tolerance: float) -> EdgeParity:
    difference: Any = np.abs(given.reshape(wanted.shape) - wanted)
    largest = float(difference.max()) if np.isfinite(difference).all() else float("inf")
    if largest > tolerance:
        raise BadInput(
            f"The export predicts otherwise than the server: by up to {largest:.3g} on {len(wanted):,} rows of "
            f"{compared.source}, where {tolerance:.3g} is allowed; --tolerance allows more."
        )
    return EdgeParity(rows=len(wanted), source=compared.source, max_abs=largest, tolerance=tolerance)


def _version() -> str:
    import onnxruntime

    version: str = onnxruntime.__version__
    return version
