"""Evaluation of real bundles: who passes the gate, who does not, and what is written."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from kfp import dsl

from components.errors import BadBundle, BadInput
from components.evaluate.columns import CHAMPION, PREDICTION
from components.evaluate.outputs import log, write
from components.evaluate.run import evaluate
from components.train.run import train
from serving.bundle import load
from tests.feature_sets import feature_set, sklearn_frame


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Feature sets and bundles: a good model, a weak one, one of shuffled labels, and three other tasks."""
    home = tmp_path_factory.mktemp("evaluate")
    good = feature_set(home / "features", sklearn_frame("breast_cancer"), "binary")
    train(good, home / "good", hyperparameters={"max_iter": 80})
    train(good, home / "weak", hyperparameters={"max_iter": 1, "max_depth": 1, "max_features": 0.05})
    shuffled = home / "shuffled_features"
    shutil.copytree(good, shuffled)
    for split in ("train", "valid"):
        table = pd.read_parquet(good / f"{split}.parquet")
        table["target"] = np.random.default_rng(0).permutation(table["target"].to_numpy())
        table.to_parquet(shuffled / f"{split}.parquet")
    train(shuffled, home / "shuffled", hyperparameters={"max_iter": 80})
    for name, task in (("wine", "multiclass"), ("diabetes", "regression")):
        train(feature_set(home / f"{name}_features", sklearn_frame(name), task), home / name, trainer="linear")
    return home


def test_a_good_first_model_passes(made):
    decision = evaluate(made / "features", made / "good").decision
    assert decision.passed
    assert [check.name for check in decision.checks][-1] == "not worse than champion"
    assert decision.metrics["roc_auc"].interval.low > 0.9
    assert decision.metrics["roc_auc"].champion is None


def test_a_model_of_shuffled_labels_is_blocked_with_reasons(made):
    first = evaluate(made / "features", made / "shuffled").decision
    assert [check.name for check in first.failures()] == ["floor"]
    later = evaluate(
        made / "features", made / "shuffled", champion_uri=str(made / "good"), champion_version="4"
    ).decision
    assert not later.passed
    assert "not worse than champion 4" in [check.name for check in later.failures()]
    assert all(check.reason for check in later.checks)


def test_a_clearly_better_challenger_passes_and_the_reverse_is_blocked(made):
    better = evaluate(made / "features", made / "good", champion_uri=str(made / "weak"), champion_version="1").decision
    assert better.passed, better.failures()
    assert better.metrics["log_loss"].difference.high < 0
    worse = evaluate(made / "features", made / "weak", champion_uri=str(made / "good"), champion_version="2").decision
    assert [check.name for check in worse.failures()] == ["not worse than champion 2"]


def test_an_equal_challenger_passes_from_a_file_uri(made):
    decision = evaluate(
        made / "features", made / "good", champion_uri=(made / "good").as_uri(), champion_version="1"
    ).decision
    assert decision.passed
    assert decision.checks[-1].value == 0


def test_decisions_repeat_to_the_byte(made):
    one, two = (
        evaluate(made / "features", made / "good", champion_uri=str(made / "weak"), seed=3).decision for _ in range(2)
    )
    assert one.model_dump_json() == two.model_dump_json()


@pytest.mark.parametrize("broken", ["absent", "altered", "other task", "no location"])
def test_a_champion_that_cannot_be_scored_blocks(made, tmp_path, broken):
    uri = str(tmp_path / "champion")
    if broken == "altered":
        shutil.copytree(made / "good", uri)
        (tmp_path / "champion" / "model.onnx").write_bytes(b"else")
    elif broken == "other task":
        uri = str(made / "diabetes")
    elif broken == "no location":
        uri = ""
    decision = evaluate(made / "features", made / "good", champion_uri=uri, champion_version="9").decision
    (failed,) = decision.failures()
    assert failed.name == "not worse than champion 9"
    assert "could not be scored" in failed.reason


def test_a_champion_that_wants_a_column_that_is_gone_blocks(made, tmp_path):
    frame = sklearn_frame("breast_cancer")
    features = feature_set(tmp_path / "f", frame.drop(columns="mean radius"), "binary")
    train(features, tmp_path / "b", trainer="linear")
    decision = evaluate(features, tmp_path / "b", champion_uri=str(made / "good"), champion_version="1").decision
    assert "'mean radius' is missing" in decision.failures()[0].reason


def test_a_champion_with_its_classes_in_another_order_is_compared_class_by_class(made, tmp_path):
    frame = sklearn_frame("breast_cancer")
    renamed = feature_set(tmp_path / "f", frame, "binary")
    text = (renamed / "features.json").read_text()
    (renamed / "features.json").write_text(text.replace('["benign","malignant"]', '["malignant","benign"]'))
    for split in ("train", "valid", "test"):
        table = pd.read_parquet(renamed / f"{split}.parquet")
        table.assign(target=1 - table["target"]).to_parquet(renamed / f"{split}.parquet")
    train(renamed, tmp_path / "b", hyperparameters={"max_iter": 80})
    decision = evaluate(renamed, tmp_path / "b", champion_uri=str(made / "good"), champion_version="1").decision
    assert decision.metrics["roc_auc"].champion > 0.9
    assert decision.passed


@pytest.mark.parametrize(("name", "metric"), [("wine", "roc_auc"), ("diabetes", "rmse")])
def test_other_tasks_pass_too(made, name, metric):
    found = evaluate(made / f"{name}_features", made / name, champion_uri=str(made / name), champion_version="1")
    assert found.decision.passed, found.decision.failures()
    assert found.decision.primary_metric == metric


def test_an_altered_challenger_is_refused(made, tmp_path):
    shutil.copytree(made / "good", tmp_path / "b")
    (tmp_path / "b" / "model.onnx").write_bytes(b"else")
    with pytest.raises(BadBundle, match=r"model\.onnx is altered"):
        evaluate(made / "features", tmp_path / "b")


def test_a_model_of_other_data_is_refused(made):
    with pytest.raises(BadInput, match="evaluate a model on the feature set it was trained on"):
        evaluate(made / "wine_features", made / "good")


def outputs(found, folder):
    write(found, folder / "decision", folder / "predictions", folder / "report.html")
    metrics = dsl.Metrics(uri=str(folder / "m"))
    classification = dsl.ClassificationMetrics(uri=str(folder / "c"))
    log(found, metrics, classification)
    return metrics.metadata, classification.metadata, (folder / "report.html").read_text()


def test_predictions_hold_the_raw_rows_and_what_the_bundle_says_of_them(made, tmp_path):
    found = evaluate(made / "features", made / "good")
    outputs(found, tmp_path)
    table = pq.read_table(tmp_path / "predictions").to_pandas()
    scores = np.stack(table.pop(PREDICTION))
    assert "target" not in table
    assert (scores == load(made / "good").predict(table)).all()
    assert found.predictions_metadata()["classes"] == ["benign", "malignant"]
    assert json.loads((tmp_path / "decision").read_text())["passed"] is True


def test_the_champions_predictions_lie_beside_the_challengers(made, tmp_path):
    outputs(evaluate(made / "features", made / "good", champion_uri=str(made / "weak")), tmp_path)
    table = pq.read_table(tmp_path / "predictions").to_pandas()
    assert (np.stack(table[CHAMPION]) == load(made / "weak").predict(table)).all()


def test_regression_predictions_are_lists_of_one(made, tmp_path):
    outputs(evaluate(made / "diabetes_features", made / "diabetes"), tmp_path)
    assert {len(row) for row in pq.read_table(tmp_path / "predictions").to_pandas()[PREDICTION]} == {1}


def test_kfp_gets_a_short_finite_roc_curve_a_confusion_matrix_and_intervals(made, tmp_path):
    metrics, classification, _ = outputs(evaluate(made / "features", made / "good"), tmp_path)
    curve = classification["confidenceMetrics"]
    assert 5 < len(curve) <= 100
    assert all(np.isfinite(list(point.values())).all() for point in curve)
    assert len(classification["confusionMatrix"]["rows"]) == 2
    assert metrics["roc_auc_low"] <= metrics["roc_auc"] <= metrics["roc_auc_high"]


@pytest.mark.parametrize("case", ["first", "blocked", "wine", "diabetes"])
def test_the_report_is_one_page_without_network_that_says_every_reason(made, tmp_path, case):
    folders = {"first": ("features", "good"), "blocked": ("features", "shuffled")}
    features, bundle = folders.get(case, (f"{case}_features", case))
    champion = {"champion_uri": str(made / "good"), "champion_version": "3"} if case == "blocked" else {}
    found = evaluate(made / features, made / bundle, **champion)
    page = outputs(found, tmp_path)[2]
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page
    assert len(page) < 100_000
    for check in found.decision.checks:
        assert check.name in page
    assert ("blocked" in page) is (case == "blocked")
