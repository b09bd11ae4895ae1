"""A small real model bundle, as training writes one: scikit-learn, skops, ONNX, features.json, bundle.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.features.schema import FeatureColumn, FeatureSchema, InputColumn, Task
from serving.bundle import digest_files, model_frame
from serving.schema import BundleManifest

NUMBERS = ("mean_radius", "mean_texture", "mean_smoothness", "mean_concavity")


def _frame() -> pd.DataFrame:
    from sklearn.datasets import load_breast_cancer

    return load_breast_cancer(as_frame=True).frame.rename(columns=lambda name: name.replace(" ", "_"))


def rows(count: int = 0) -> pd.DataFrame:
    """Raw input rows of the breast cancer data, with a text column, a boolean and some missing values."""
    frame = _frame()
    raw = frame[list(NUMBERS)].copy()
    raw["size"] = np.where(frame["mean_area"] > 700, "large", np.where(frame["mean_area"] > 450, "medium", "small"))
    raw["rough"] = frame["mean_texture"] > 19
    raw.loc[raw.index % 11 == 0, "mean_texture"] = np.nan
    raw.loc[raw.index % 13 == 0, "size"] = None
    return raw.head(count) if count else raw


def schema(task: Task = "binary") -> FeatureSchema:
    """The feature schema of the bundle."""
    classes = {"binary": ("No", "Yes"), "multiclass": ("low", "mid", "high"), "regression": ()}[task]
    numeric = [*NUMBERS, "rough"]
    return FeatureSchema(
        task=task,
        target="target",
        classes=classes,
        inputs=(
            *(InputColumn(name=name, type="number") for name in NUMBERS),
            InputColumn(name="size", type="string"),
            InputColumn(name="rough", type="boolean"),
        ),
        features=(
            *(FeatureColumn(name=name, kind="numeric") for name in numeric),
            FeatureColumn(name="size", kind="categorical"),
        ),
        data_version="test",
    )


def target(task: Task) -> np.ndarray:
    """What to predict."""
    frame = _frame()
    if task == "binary":
        return frame["target"].to_numpy()
    if task == "multiclass":
        return pd.qcut(frame["mean_area"], 3, labels=False).to_numpy()
    return frame["mean_area"].to_numpy(dtype=float)


def pipeline(task: Task, native: bool, seed: int) -> Any:
    """An unfitted pipeline: linear for ONNX, histogram gradient boosting for native."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric = [*NUMBERS, "rough"]
    numbers = Pipeline([("impute", SimpleImputer()), ("scale", StandardScaler())])
    prepare = ColumnTransformer(
        [("numeric", numbers, numeric), ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["size"])]
    )
    if native:
        kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
        return Pipeline([("prepare", prepare), ("model", kind(max_iter=10, random_state=seed))])
    model = Ridge() if task == "regression" else LogisticRegression(C=1.0 / (1 + seed), max_iter=500)
    return Pipeline([("prepare", prepare), ("model", model)])


def write_bundle(folder: Path, task: Task = "binary", runtime: str = "onnx", seed: int = 0) -> Any:
    """Train and write a bundle; gives the fitted pipeline back."""
    import skops.io

    folder.mkdir(parents=True)
    features = schema(task)
    model = pipeline(task, runtime == "native", seed).fit(model_frame(rows(), features), target(task))
    skops.io.dump(model, folder / "model.skops")
    if runtime == "onnx":
        (folder / "model.onnx").write_bytes(_onnx(model, features))
    (folder / "features.json").write_text(features.model_dump_json())
    (folder / "MLmodel").write_text("flavors: {}\n")
    bins = {"binary": (0.25, 0.5, 0.75), "multiclass": (), "regression": (300.0, 600.0, 1200.0)}[task]
    write_manifest(folder, task=task, classes=features.classes, runtime=runtime, prediction_bins=bins)
    return model


def write_manifest(folder: Path, **fields: Any) -> None:
    """Write bundle.json over the files that are there."""
    manifest = BundleManifest(
        framework="sklearn", recipe={}, recipe_digest="0" * 64, files=digest_files(folder), **fields
    )
    (folder / "bundle.json").write_text(json.dumps(manifest.model_dump(mode="json")))


def _onnx(model: Any, features: FeatureSchema) -> bytes:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    kinds = {"numeric": FloatTensorType, "categorical": StringTensorType}
    given = [(feature.name, kinds[feature.kind]([None, 1])) for feature in features.features]
    options = {} if features.task == "regression" else {id(model): {"zipmap": False}}
    graph: bytes = to_onnx(model, initial_types=given, options=options).SerializeToString()
    return graph
