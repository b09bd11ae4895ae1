"""The scikit-learn trainers: rare classes, calibrated probabilities, when they stop, what they say."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from components.errors import BadBundle, BadInput
from components.evaluate.metrics import measure
from components.train.contract import Data, Run
from components.train.history import History
from components.train.hyperparameters import checked
from components.train.interrupt import Interrupted
from components.train.run import train
from components.train.trainers import find
from serving.bundle import load
from serving.schema import NATIVE_FILES, ONNX_FILE
from serving.trust import load_native
from tests.feature_sets import feature_set, mixed_frame, sklearn_frame

TRAINERS = ["hist_gradient_boosting", "linear", "random_forest"]
SMALL = {"random_forest": {"n_estimators": 20}, "hist_gradient_boosting": {"max_iter": 40}}


def rare_frame() -> pd.DataFrame:
    """Handwritten digits seen through eight of their 64 points, where one in thirty is a four."""
    digits = load_digits(as_frame=True)
    points = digits.data.iloc[:, [18, 20, 26, 29, 34, 36, 42, 44]]
    is_four = (digits.target == 4).to_numpy()
    kept = ~is_four | (np.random.default_rng(0).random(len(is_four)) < 0.3)
    return points.assign(target=np.where(is_four, "four", "other"))[kept].reset_index(drop=True)


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    return feature_set(tmp_path_factory.mktemp("rare"), rare_frame(), "binary")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return feature_set(tmp_path_factory.mktemp("mixed"), mixed_frame(), "binary")


def fitted(folder, trainer, run=None, **chosen):
    data = Data.read(folder)
    chosen = SMALL.get(trainer, {}) | chosen
    return data, find(trainer).fit(data, checked(trainer, find(trainer), data.schema, chosen), run or Run(0))


def scores(folder, trainer, **chosen):
    """Target and predictions of rows that were not fitted."""
    _, model = fitted(folder, trainer, **chosen)
    table = pd.concat([pd.read_parquet(folder / f"{split}.parquet") for split in ("valid", "test")])
    return table["target"].to_numpy(), model.predict(table.drop(columns="target"))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_balanced_weights_find_the_rare_class(rare, trainer):
    target, plain = scores(rare, trainer)
    assert (target == 0).mean() < 0.04  # classes are sorted: "four" comes first
    _, weighted = scores(rare, trainer, class_weight="balanced")
    found = [(given[target == 0, 0] > 0.5).mean() for given in (plain, weighted)]
    assert found[1] > found[0]
    ranked = [measure("binary", target, given)["roc_auc"] for given in (plain, weighted)]
    assert ranked[1] > ranked[0] - 0.05


@pytest.mark.parametrize("trainer", TRAINERS)
def test_weights_by_label_do_what_balanced_does(rare, trainer):
    data = Data.read(rare)
    counts = np.bincount(data.train.target)
    by_label = dict(zip(data.schema.classes, (len(data.train.target) / (2 * counts)).tolist(), strict=True))
    wanted = fitted(rare, trainer, class_weight="balanced")[1].predict(data.valid.inputs)
    given = fitted(rare, trainer, class_weight=by_label)[1].predict(data.valid.inputs)
    assert np.abs(given - wanted).max() < 1e-12


def test_boosting_stops_by_the_weights_that_it_fits_to(rare):
    told = History()
    data, model = fitted(rare, "hist_gradient_boosting", Run(0, listeners=(told,)), class_weight="balanced")
    counts = np.bincount(data.train.target)
    weights = (len(data.train.target) / (2 * counts))[data.valid.target]
    losses = -np.log(model.predict(data.valid.inputs)[np.arange(len(weights)), data.valid.target])
    assert told.epochs[40]["valid_loss"] == pytest.approx(np.average(losses, weights=weights))


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_calibration_makes_weighted_scores_probabilities_again(rare, trainer, method):
    target, weighted = scores(rare, trainer, class_weight="balanced")
    _, calibrated = scores(rare, trainer, class_weight="balanced", calibration=method)
    before, after = (measure("binary", target, given)["brier"] for given in (weighted, calibrated))
    share = (target == 0).mean()
    assert abs(calibrated[:, 0].mean() - share) < 0.02
    assert after < before


def test_calibration_is_empty_or_one_of_two(mixed):
    assert type(fitted(mixed, "linear", calibration="")[1].pipeline.steps[-1][1]).__name__ == "LogisticRegression"
    with pytest.raises(BadInput, match="calibration is 'platt'; it must be empty or one of sigmoid, isotonic"):
        fitted(mixed, "linear", calibration="platt")
    diabetes = find("linear").parameters("regression")
    assert "calibration" not in diabetes


def test_a_class_that_the_valid_split_lacks_cannot_be_calibrated(tmp_path):
    folder = feature_set(tmp_path, sklearn_frame("wine"), "multiclass")
    table = pd.read_parquet(folder / "valid.parquet")
    table[table["target"] != 1].to_parquet(folder / "valid.parquet")
    with pytest.raises(BadInput, match=r"No row of the valid split has 'target' = 'class_1'.*calibrated"):
        fitted(folder, "linear", calibration="sigmoid")


def test_few_rows_for_isotonic_calibration_are_said(mixed):
    said: list[str] = []
    fitted(mixed, "linear", Run(0, say=said.append), calibration="isotonic")
    assert "sigmoid suits fewer than 1,000" in " ".join(said)


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_the_same_seed_gives_the_same_bits(tmp_path, trainer, task):
    folder = feature_set(tmp_path / "f", sklearn_frame("wine" if task == "multiclass" else "diabetes"), task)
    chosen = SMALL.get(trainer, {})
    first, again = (train(folder, tmp_path / n, trainer=trainer, hyperparameters=chosen, seed=3) for n in ("a", "b"))
    assert first.metrics == again.metrics
    assert first.manifest.files[ONNX_FILE] == again.manifest.files[ONNX_FILE]  # skops numbers objects by their address
    if trainer != "linear":
        assert train(folder, tmp_path / "c", trainer=trainer, hyperparameters=chosen, seed=4).metrics != first.metrics


def test_a_forest_predicts_many_rows_as_it_does_few(mixed):
    data, model = fitted(mixed, "random_forest")
    many = pd.concat([data.train.inputs] * 90, ignore_index=True)
    assert len(many) > 2 * 16_384
    few = np.concatenate([model.predict(many.iloc[start : start + 1000]) for start in range(0, len(many), 1000)])
    assert (model.predict(many) == few).all()


def test_boosting_reports_its_rounds(mixed):
    told = History()
    _, model = fitted(mixed, "hist_gradient_boosting", Run(0, listeners=(told,)), max_iter=250, early_stopping=False)
    assert told.epochs == {}  # scikit-learn measures rounds only where it may stop early
    _, model = fitted(mixed, "hist_gradient_boosting", Run(0, listeners=(told,)), n_iter_no_change=200, max_iter=250)
    losses = [value for _, value in told.series("train_loss")]
    assert losses == sorted(losses, reverse=True)
    assert 50 <= len(losses) <= 101
    assert max(told.epochs) == model.facts["iterations"] == 250
    assert told.epochs[250]["learning_rate"] == 0.05
    _, model = fitted(mixed, "hist_gradient_boosting", Run(0, listeners=(told,)), scoring="roc_auc", max_iter=20)
    assert 0.5 < told.epochs[20]["valid_roc_auc"] <= 1


def test_a_solver_that_stops_too_soon_is_said_and_not_warned_of(mixed, recwarn):
    said: list[str] = []
    fitted(mixed, "linear", Run(0, say=said.append), max_iter=2)
    assert "has not converged" in said[0]
    assert not recwarn.list


def test_an_l1_penalty_takes_a_solver_that_knows_it(mixed):
    _, model = fitted(mixed, "linear", l1_ratio=1.0, C=0.05)
    coefficients = model.pipeline.steps[-1][1].coef_
    assert (coefficients == 0).mean() > 0.5


@pytest.mark.parametrize(("given", "used"), [(1.0, 1.0), (3.0, 3), (0.5, 0.5), ("log2", "log2")])
def test_whole_numbers_of_features_count_and_one_is_all(tmp_path, given, used):
    for task, name in (("multiclass", "wine"), ("regression", "diabetes")):
        folder = feature_set(tmp_path / f"{task} {given}", sklearn_frame(name), task)
        _, model = fitted(folder, "random_forest", max_features=given, n_estimators=2.0)
        forest = model.pipeline.steps[-1][1]
        assert (forest.max_features, type(forest.max_features)) == (used, type(used))
        assert model.facts["trees"] == 2


def test_what_the_trainer_sets_itself_is_no_hyperparameter():
    for trainer in TRAINERS:
        names = set(find(trainer).parameters("binary"))
        assert {"class_weight", "calibration"} <= names
        assert not names & {"n_jobs", "random_state", "warm_start", "verbose", "penalty", "categorical_features"}


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="only the main thread hears signals"
)
def test_sigterm_ends_a_fit_that_keeps_no_checkpoints_at_once(tmp_path, mixed):
    alarm = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    alarm.start()
    began = time.monotonic()
    endless = {"max_iter": 1_000_000, "early_stopping": False}
    with pytest.raises(Interrupted, match="before it had anything to save"):
        train(mixed, tmp_path / "bundle", hyperparameters=endless)
    assert time.monotonic() - began < 10
    assert not (tmp_path / "bundle").exists()


def test_what_compiled_code_makes_of_being_told_to_stop_is_not_taken_for_bad_input(tmp_path, mixed, monkeypatch):
    def fit(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except Interrupted:  # as numpy does while it reads a buffer's format
            raise ValueError("not a valid PEP 3118 buffer format string") from None

    monkeypatch.setattr("sklearn.ensemble.HistGradientBoostingClassifier.fit", fit)
    with pytest.raises(Interrupted):
        train(mixed, tmp_path / "bundle")


@pytest.mark.parametrize("calibration", ["", "sigmoid", "isotonic"])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_native_model_is_loaded_and_predicts_without_its_graph(tmp_path, mixed, trainer, calibration):
    chosen = SMALL.get(trainer, {}) | {"calibration": calibration}
    train(mixed, tmp_path / "onnx", trainer=trainer, hyperparameters=chosen)
    made = train(mixed, tmp_path / "native", trainer=trainer, hyperparameters=chosen, parity_tolerance=0.0)
    rows = pd.read_parquet(mixed / "test.parquet")
    native = load(tmp_path / "native")
    if made.manifest.runtime == "native":  # a difference of exactly nothing is possible
        assert np.abs(native.predict(rows) - load(tmp_path / "onnx").predict(rows)).max() < 1e-9
    assert hasattr(load_native(tmp_path / "native" / NATIVE_FILES["sklearn"]), "predict_proba")


SAVED = """
import sys
from pathlib import Path
from sklearn.linear_model import LogisticRegression
from components.train.sklearn.fitted import FittedPipeline

FittedPipeline(LogisticRegression().fit([[0], [1]], [0, 1])).save(Path(sys.argv[1]))
print("torch" in sys.modules)
"""


def test_a_model_is_saved_without_pytorch_which_takes_seconds_to_import(tmp_path):
    saved = subprocess.run([sys.executable, "-c", SAVED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert saved.stdout.split() == ["False"]
    assert list(tmp_path.iterdir())


def test_a_calibrated_forest_is_written_once(tmp_path, mixed):
    plain, calibrated = (
        train(
            mixed,
            tmp_path / (method or "plain"),
            trainer="random_forest",
            hyperparameters=SMALL["random_forest"] | {"calibration": method},
        )
        for method in ("", "sigmoid")
    )
    sizes = [made.manifest.files[NATIVE_FILES["sklearn"]].bytes for made in (plain, calibrated)]
    assert sizes[1] < 1.2 * sizes[0]


def test_a_native_model_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    import zipfile

    path = tmp_path / "model.skops"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", " " * 50_000_000)
    with pytest.raises(BadBundle, match="unpacks to 50,000,000 bytes"):
        load_native(path)


def forged_forest(pipeline):
    tree = pipeline.steps[-1][1].estimators_[3].tree_
    state = tree.__getstate__()
    state["nodes"]["left_child"][0] = 10**6
    tree.__setstate__(state)


def looping_forest(pipeline):
    tree = pipeline.steps[-1][1].estimators_[0].tree_
    state = tree.__getstate__()
    state["nodes"]["right_child"][0] = 0
    tree.__setstate__(state)


def forest_of_other_columns(pipeline):
    tree = pipeline.steps[-1][1].estimators_[0].tree_
    state = tree.__getstate__()
    state["nodes"]["feature"][0] = 4
    tree.__setstate__(state)


def forged_boosting(pipeline):
    pipeline.steps[-1][1]._predictors[2][0].nodes["left"][0] = 10**6


def boosting_of_unknown_sets(pipeline):
    for (tree,) in pipeline.steps[-1][1]._predictors:
        tree.raw_left_cat_bitsets = tree.raw_left_cat_bitsets[:0]


@pytest.mark.parametrize(
    "forge", [forged_forest, looping_forest, forest_of_other_columns, forged_boosting, boosting_of_unknown_sets]
)
def test_a_tree_that_leads_out_of_its_arrays_is_refused(tmp_path, mixed, forge):
    import skops.io

    _, model = fitted(mixed, "hist_gradient_boosting" if "boosting" in forge.__name__ else "random_forest")
    path = tmp_path / "model.skops"
    skops.io.dump(model.pipeline, path)
    load_native(path)
    forge(model.pipeline)
    skops.io.dump(model.pipeline, path)
    with pytest.raises(BadBundle, match="a tree whose nodes lead nowhere"):
        load_native(path)
