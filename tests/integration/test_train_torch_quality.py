"""The torch trainer's defaults on real data."""

import numpy as np
import pytest

from components.evaluate.metrics import measure
from components.train.contract import Data, Run
from components.train.feature_set import read_split
from components.train.parity import compare
from components.train.torch.trainer import TRAINER
from tests.feature_sets import TELCO, feature_set, sklearn_frame, telco_frame


def measured(tmp_path, frame, task, seed=0):
    folder = feature_set(tmp_path / f"f{seed}", frame, task, seed=seed)
    data = Data.read(folder)
    fitted = TRAINER.fit(data, TRAINER.parameters(task), Run(0, "cpu"))
    rows = read_split(folder, "test", data.schema)
    predicted = fitted.predict(rows.inputs)
    parity = compare(fitted.graph(data.schema), rows.inputs, predicted, data.schema, 1e-5)
    assert parity.holds, parity.reason
    return measure(task, rows.target, predicted)


@pytest.mark.skipif(not TELCO.exists(), reason="the telco set is not beside the repository")
def test_telco_defaults_reach_an_auc_of_084_on_average_over_two_splits(tmp_path):
    found = [measured(tmp_path, telco_frame(), "binary", seed)["roc_auc"] for seed in range(2)]
    assert np.mean(found) >= 0.84, found


def test_digits_are_told_apart(tmp_path):
    assert measured(tmp_path, sklearn_frame("digits"), "multiclass")["accuracy"] >= 0.95


def test_diabetes_is_about_as_good_as_a_linear_model(tmp_path):
    found = [measured(tmp_path, sklearn_frame("diabetes"), "regression", seed)["r2"] for seed in range(3)]
    assert np.mean(found) >= 0.43, found  # ridge regression: 0.476, gradient boosting: 0.397
