"""The Keras trainer through the training step: quality, the bundle, and MLflow."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from components.train.run import train
from serving.bundle import load, model_frame
from serving.explain import explain
from serving.server.served import Served
from tests.feature_sets import TELCO, feature_set, mixed_frame, sklearn_frame, telco_frame


@pytest.mark.skipif(not TELCO.exists(), reason="the telco set is not beside the repository")
def test_telco_defaults_reach_an_auc_of_083_and_mlflow_reads_the_bundle(tmp_path):
    import mlflow

    features = feature_set(tmp_path / "features", telco_frame(), "binary")
    said: list[str] = []
    made = train(features, tmp_path / "bundle", trainer="keras", checkpoint_uri=str(tmp_path / "c"), say=said.append)
    assert made.manifest.runtime == "onnx"
    assert made.manifest.parity is not None
    assert made.manifest.parity.max_abs < 1e-6
    assert any(sentence.startswith("Training on the ") for sentence in said)
    model, rows = load(tmp_path / "bundle"), pd.read_parquet(features / "test.parquet")
    scores = model.predict(rows)
    assert roc_auc_score(rows["target"], scores[:, 1]) >= 0.83

    frame = model_frame(rows, model.schema)
    assert np.abs(mlflow.pyfunc.load_model(str(tmp_path / "bundle")).predict(frame) - scores).max() < 1e-6
    native = mlflow.tensorflow.load_model(str(tmp_path / "bundle"))
    given = [np.array(frame[[name]], "float64" if frame[name].dtype == float else str) for name in frame]
    assert np.abs(np.asarray(native(given)) - scores).max() < 1e-6


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_graph_that_does_not_hold_is_served_natively_with_the_same_predictions(tmp_path, task):
    frame = mixed_frame(200) if task == "binary" else sklearn_frame("diabetes").head(200)
    features = feature_set(tmp_path / "features", frame, task)
    predictions, explained = {}, {}
    for tolerance, runtime in ((0.0, "native"), (1e-5, "onnx")):
        made = train(
            features,
            tmp_path / runtime,
            trainer="keras",
            hyperparameters={"epochs": 1, "width": 4, "blocks": 0},
            parity_tolerance=tolerance,
            checkpoint_uri=str(tmp_path / "c"),
        )
        assert made.manifest.runtime == runtime
        model, rows = load(tmp_path / runtime), pd.read_parquet(features / "test.parquet")
        predictions[runtime] = model.predict(rows)
        columns = {column.name: rows[column.name].head(2).tolist() for column in model.schema.inputs}
        explained[runtime] = explain(Served("model", "1", model), columns, 2, seconds=60, precision=0.1)
    assert np.abs(predictions["native"] - predictions["onnx"]).max() < (1e-6 if task == "binary" else 1e-3)
    for native, onnx in zip(explained["native"], explained["onnx"], strict=True):
        assert native.contributions == pytest.approx(onnx.contributions, abs=1e-5 if task == "binary" else 1e-2)
        assert any(native.contributions.values())
