"""The models that are served: trained by the suite's own step, and written once more in the form that peers load."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.train.run import train
from tests.feature_sets import TELCO, feature_set, sklearn_frame, telco_frame

TRAINERS = {"numeric": "linear", "telco": "hist_gradient_boosting"}
"""The numeric model is the cheapest to compute, so that it measures the servers; telco's is the suite's default."""


@dataclass(frozen=True)
class Served:
    """A model and rows to ask it about.

    Attributes:
        name: ``numeric`` or ``telco``.
        bundle: the suite's bundle.
        folder: ``model.joblib``, the same fitted pipeline; ``mlflow/``; ``model.onnx``, the bundle's graph.
        matrix: a folder whose ``model.onnx`` takes all features as one matrix; None where some are text.
        columns: the names of the inputs.
        rows: of the test split, in the order of ``columns``.
    """

    name: str
    bundle: Path
    folder: Path
    matrix: Path | None
    columns: list[str]
    rows: list[list[Any]]

    @property
    def is_onnx(self) -> bool:
        """Whether the bundle is served by onnxruntime."""
        return bool(json.loads((self.bundle / "bundle.json").read_text())["runtime"] == "onnx")

    def objects(self, rows: list[list[Any]]) -> list[dict[str, Any]]:
        """Rows keyed by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in rows]


def make(name: str, folder: Path, trainer: str = "") -> Served:
    """Train a model and write it for everybody."""
    frame = telco_frame() if name == "telco" else sklearn_frame("breast_cancer")
    features = feature_set(folder / "features", frame, "binary")
    bundle = folder / "bundle"
    train(features, bundle, trainer=trainer or TRAINERS[name])
    return _written(name, features, bundle, folder)


def natively(model: Served, folder: Path) -> Served:
    """A copy whose manifest says that the framework itself serves it."""
    shutil.copytree(model.bundle, folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**manifest, "runtime": "native"}))
    return replace(model, bundle=folder)


def _written(name: str, features: Path, bundle: Path, folder: Path) -> Served:
    import pandas as pd

    test = pd.read_parquet(features / "test.parquet").drop(columns="target", errors="ignore").dropna()
    peers = folder / "peers"
    peers.mkdir()
    if (bundle / "model.onnx").exists():
        shutil.copy(bundle / "model.onnx", peers)
    matrix = None
    if (bundle / "model.skops").exists():
        matrix = _for_scikit_learn(bundle, peers, folder) if name == "numeric" else None
        if name == "telco":
            import joblib

            joblib.dump(_native(bundle), peers / "model.joblib")
    schema = json.loads((bundle / "features.json").read_text())
    columns = [column["name"] for column in schema["inputs"]]
    return Served(name, bundle, peers, matrix, columns, json.loads(test[columns].head(64).to_json(orient="values")))


def _native(bundle: Path) -> Any:
    import skops.io

    file = bundle / "model.skops"
    return skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))


def _for_scikit_learn(bundle: Path, peers: Path, folder: Path) -> Path:
    """The fitted numeric pipeline without the selection of columns by name, so that peers take a bare array."""
    import joblib
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.pipeline import Pipeline

    fitted = _native(bundle)
    numbers = fitted.named_steps["prepare"].named_transformers_["numeric"]
    plain = Pipeline([*numbers.steps, ("model", fitted.named_steps["model"])])
    for _, step in plain.steps:
        if hasattr(step, "feature_names_in_"):
            del step.feature_names_in_  # it warns on every request without names
    joblib.dump(plain, peers / "model.joblib")
    matrix = folder / "matrix"
    matrix.mkdir()
    width = plain.steps[0][1].n_features_in_
    graph = to_onnx(plain, initial_types=[("rows", FloatTensorType([None, width]))], options={"zipmap": False})
    (matrix / "model.onnx").write_bytes(graph.SerializeToString())
    return matrix


def available() -> list[str]:
    """The models that can be made here."""
    return ["numeric", *(["telco"] if TELCO.exists() else [])]
