"""Writes a bundle whole: native model, graph and its other forms, MLflow files, manifest, signature."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.features.schema import FILE as FEATURES_FILE
from components.features.schema import FeatureSchema
from components.files import whole_folder
from components.train import mlmodel
from components.train.contract import Fitted
from components.train.environment import PACKAGES_FILE, Meter, machine, packages
from components.train.exports import export
from components.train.feature_set import Split
from components.train.recipe import digest, origin
from serving.schema import FILE, ONNX_FILE, BundleManifest, Framework, Parity

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from serving.background import Background

EXAMPLE_ROWS = 3
BINS = 20


@dataclass(frozen=True)
class Made:
    """What goes into a bundle.

    Attributes:
        schema: of the feature set.
        framework: of the native model.
        fitted: the model.
        valid: the rows that its other forms are measured on.
        scores: its predictions of them.
        recipe: what decided what it is.
        graph: the ONNX graph, where it holds parity.
        parity: how far the graph is from the model.
        device: what it was trained on.
        search: what the search for its parameters did.
        exports: which other forms of the graph to write.
        background: raw rows to explain predictions against; None keeps none.
    """

    schema: FeatureSchema
    framework: Framework
    fitted: Fitted
    valid: Split
    scores: "np.ndarray[Any, Any]"
    recipe: dict[str, Any]
    graph: "onnx.ModelProto | None"
    parity: Parity
    device: str = "cpu"
    search: dict[str, Any] = field(default_factory=dict)
    exports: tuple[str, ...] = ()
    background: "Background | None" = None


def write(bundle: Path, made: Made, meter: Meter) -> BundleManifest:
    """Write the bundle.

    Args:
        bundle: folder to write; it appears whole or not at all.
        made: what goes into it.
        meter: has counted since the training began.

    Raises:
        StorageFull: there is no space left.
        BadInput: the signing key cannot be used.
    """
    from serving.bundle import digest_files
    from serving.signing import sign_if_asked

    schema, identity = made.schema, digest(made.recipe)
    with whole_folder(bundle) as folder:
        flavor = made.fitted.save(folder)
        if made.graph is not None:
            (folder / ONNX_FILE).write_bytes(made.graph.SerializeToString(deterministic=True))
        exports = export(made.graph, made.exports, folder, made.valid, made.scores, schema)
        (folder / FEATURES_FILE).write_text(schema.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if made.background is not None:
            made.background.write(folder)
        (folder / PACKAGES_FILE).write_text(packages(), encoding="utf-8")
        mlmodel.write(folder, schema, made.valid.inputs.head(EXAMPLE_ROWS), flavor, identity)
        manifest = BundleManifest(
            framework=made.framework,
            task=schema.task,
            classes=schema.classes,
            runtime="native" if made.graph is None else "onnx",
            prediction_bins=prediction_bins(schema.task, made.scores),
            recipe=made.recipe,
            recipe_digest=identity,
            origin=_origin(made, meter),
            parity=made.parity,
            exports=exports,
            files=digest_files(folder),
        )
        (folder / FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        sign_if_asked(folder)
    return manifest


def _origin(made: Made, meter: Meter) -> dict[str, Any]:
    searched = {"search": made.search} if made.search else {}
    return origin() | machine(made.framework, made.device) | meter.spent() | searched


def prediction_bins(task: str, scores: "np.ndarray[Any, Any]") -> tuple[float, ...]:
    """Edges for counting live predictions: twenty equal ones of probability, or quantiles of values on valid."""
    import numpy as np

    if task == "multiclass":
        return ()
    if task == "binary":
        return tuple(index / BINS for index in range(BINS + 1))
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, BINS + 1)))
    return tuple(map(float, edges)) if len(edges) > 1 else ()
