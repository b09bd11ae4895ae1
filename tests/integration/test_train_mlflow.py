"""The bundle as an MLflow model, and the quality of the defaults on real data."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from components.evaluate.run import evaluate
from components.train.run import train
from serving.bundle import load, model_frame
from tests.feature_sets import TELCO, feature_set, mixed_frame, sklearn_frame, telco_frame


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression", "calibrated forest"])
def bundle(request, tmp_path_factory):
    home = tmp_path_factory.mktemp(request.param.replace(" ", "_"))
    frames = {"multiclass": lambda: sklearn_frame("wine"), "regression": lambda: sklearn_frame("diabetes")}
    frame = frames.get(request.param, mixed_frame)()
    features = feature_set(home / "features", frame, request.param if request.param in frames else "binary")
    if request.param == "calibrated forest":
        chosen = {"n_estimators": 10, "calibration": "isotonic"}
        train(features, home / "bundle", trainer="random_forest", hyperparameters=chosen)
    else:
        train(features, home / "bundle", hyperparameters={"max_iter": 30})
    return home / "bundle"


def rows_of(bundle: Path) -> pd.DataFrame:
    return pd.read_parquet(bundle.parent / "features" / "test.parquet")


def test_mlflow_loads_it_and_predicts_what_serving_predicts(bundle):
    import mlflow

    model = load(bundle)
    rows = rows_of(bundle)
    frame = model_frame(rows, model.schema)
    wanted = model.predict(rows)
    assert np.abs(mlflow.pyfunc.load_model(str(bundle)).predict(frame) - wanted).max() < 1e-9
    native = mlflow.sklearn.load_model(str(bundle))
    predict = native.predict if model.manifest.task == "regression" else native.predict_proba
    assert np.abs(predict(frame) - wanted).max() < 1e-9


def test_the_input_example_fits_the_signature_and_the_schema_is_enforced(bundle):
    import mlflow
    from mlflow.models import Model

    described = Model.load(str(bundle))
    example = described.load_input_example(str(bundle))
    loaded = mlflow.pyfunc.load_model(str(bundle))
    assert len(loaded.predict(example)) == len(example)
    with pytest.raises(mlflow.exceptions.MlflowException, match="missing inputs"):
        loaded.predict(example.drop(columns=example.columns[0]))


def test_mlflows_own_writer_writes_the_same_files_and_keys(bundle, tmp_path):
    import mlflow

    native = mlflow.sklearn.load_model(str(bundle))
    described = mlflow.models.Model.load(str(bundle))
    trusted = described.flavors["sklearn"]["skops_trusted_types"]
    mlflow.sklearn.save_model(
        native,
        tmp_path / "own",
        serialization_format="skops",
        skops_trusted_types=trusted,
        signature=described.signature,
        input_example=described.load_input_example(str(bundle)),
        pip_requirements=["scikit-learn"],
        metadata={"a": "b"},
        pyfunc_predict_fn=described.flavors["python_function"]["predict_fn"],
    )
    ours, theirs = (yaml.safe_load((folder / "MLmodel").read_text()) for folder in (bundle, tmp_path / "own"))
    assert ours.keys() == theirs.keys()
    for flavor in theirs["flavors"]:
        assert ours["flavors"][flavor].keys() == theirs["flavors"][flavor].keys()
    assert json.loads(ours["signature"]["inputs"]) == json.loads(theirs["signature"]["inputs"])
    assert json.loads(ours["signature"]["outputs"]) == json.loads(theirs["signature"]["outputs"])
    written = {path.name for path in (tmp_path / "own").iterdir()}
    assert written <= {path.name for path in bundle.iterdir()}


@pytest.mark.skipif(not TELCO.exists(), reason="the telco set is not beside the repository")
@pytest.mark.parametrize("trainer", ["hist_gradient_boosting", "random_forest", "linear"])
def test_telco_defaults_reach_an_auc_of_083_on_average_over_five_splits(tmp_path, trainer):
    found = []
    chosen = {"n_estimators": 50} if trainer == "random_forest" else {}  # a quarter of its trees, in a quarter the time
    for seed in range(5):
        features = feature_set(tmp_path / f"f{seed}", telco_frame(), "binary", seed=seed)
        made = train(features, tmp_path / f"b{seed}", trainer=trainer, hyperparameters=chosen)
        assert made.manifest.runtime == "onnx"
        decision = evaluate(features, tmp_path / f"b{seed}", draws=50).decision
        assert decision.passed, decision.failures()
        found.append(decision.metrics["roc_auc"].value)
    assert np.mean(found) >= 0.83, found
