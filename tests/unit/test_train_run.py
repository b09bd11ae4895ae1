"""Training: the bundle, its reproducibility, and what it refuses."""

import errno
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from components.errors import BadInput, StorageFull
from components.train.run import train
from serving.bundle import load, verify
from serving.schema import NATIVE_FILES, ONNX_FILE, BundleManifest
from tests.feature_sets import feature_set, mixed_frame, sklearn_frame


@pytest.fixture
def mixed(tmp_path):
    return feature_set(tmp_path / "features", mixed_frame(), "binary")


def test_one_recipe_trained_twice_gives_the_same_metrics_to_the_byte_and_the_same_predictions(tmp_path, mixed):
    first, second = (train(mixed, tmp_path / name, seed=7) for name in ("a", "b"))
    assert json.dumps(first.metrics) == json.dumps(second.metrics)
    assert first.manifest.recipe_digest == second.manifest.recipe_digest
    rows = pd.read_parquet(mixed / "test.parquet")
    assert (load(tmp_path / "a").predict(rows) == load(tmp_path / "b").predict(rows)).all()


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"trainer": "linear"}, {"hyperparameters": {"max_iter": 5}}, {"parity_tolerance": 1e-3}]
)
def test_another_recipe_has_another_digest(tmp_path, mixed, change):
    first = train(mixed, tmp_path / "a", seed=7)
    second = train(mixed, tmp_path / "b", **({"seed": 7} | change))
    assert first.manifest.recipe_digest != second.manifest.recipe_digest


def test_other_data_has_another_digest(tmp_path, mixed):
    other = feature_set(tmp_path / "other", mixed_frame(), "binary", version="v2")
    digests = {train(folder, tmp_path / folder.name / "b").manifest.recipe_digest for folder in (mixed, other)}
    assert len(digests) == 2


def test_the_bundle_verifies_serves_onnx_and_holds_no_pickle(tmp_path, mixed):
    made = train(mixed, tmp_path / "bundle")
    manifest = verify(tmp_path / "bundle")
    assert manifest == made.manifest
    assert manifest.runtime == "onnx"
    assert manifest.parity is not None
    assert manifest.parity.max_abs < 1e-12
    assert {NATIVE_FILES["sklearn"], ONNX_FILE, "MLmodel", "features.json"} <= set(manifest.files)
    assert not [name for name in manifest.files if name.endswith((".pkl", ".pickle", ".joblib"))]
    for path in (tmp_path / "bundle").rglob("*"):
        assert path.is_dir() or not path.read_bytes().startswith(b"\x80\x04")


def test_a_model_without_a_graph_that_holds_is_served_natively_with_the_reason(tmp_path, mixed):
    made = train(mixed, tmp_path / "bundle", parity_tolerance=0.0)
    assert made.manifest.runtime == "native"
    assert made.manifest.parity is not None
    assert "differ by up to" in made.manifest.parity.reason
    assert not (tmp_path / "bundle" / ONNX_FILE).exists()
    model = load(tmp_path / "bundle")
    assert model.runtime == "native"
    assert BundleManifest.read(tmp_path / "bundle") == made.manifest


def test_an_estimator_without_a_graph_is_served_natively_with_the_reason(tmp_path, mixed, monkeypatch):
    from components.train.contract import NoGraph
    from components.train.sklearn import graph

    def refuse(*_args):
        raise NoGraph("there is no ONNX graph for Oracle")

    monkeypatch.setattr(graph, "build", refuse)
    made = train(mixed, tmp_path / "bundle")
    assert made.manifest.runtime == "native"
    assert made.manifest.parity is not None
    assert made.manifest.parity.reason == "there is no ONNX graph for Oracle"


def test_prediction_bins_are_twenty_of_probability_or_quantiles_of_values(tmp_path, mixed):
    assert train(mixed, tmp_path / "a").manifest.prediction_bins == tuple(i / 20 for i in range(21))
    diabetes = feature_set(tmp_path / "d", sklearn_frame("diabetes"), "regression")
    bins = train(diabetes, tmp_path / "b").manifest.prediction_bins
    assert len(bins) == 21
    assert list(bins) == sorted(set(bins))
    wine = feature_set(tmp_path / "w", sklearn_frame("wine"), "multiclass")
    assert train(wine, tmp_path / "c").manifest.prediction_bins == ()


def test_early_stopping_watches_the_valid_split(tmp_path, mixed):
    stopped = train(mixed, tmp_path / "a", hyperparameters={"learning_rate": 0.3})
    ran = train(mixed, tmp_path / "b", hyperparameters={"learning_rate": 0.3, "early_stopping": False})
    assert stopped.metrics["iterations"] < ran.metrics["iterations"] == 500
    assert stopped.metrics["valid_log_loss"] < ran.metrics["valid_log_loss"]


def test_a_refused_value_says_what_scikit_learn_said(tmp_path, mixed):
    with pytest.raises(BadInput, match=r"'learning_rate' parameter.*must be"):
        train(mixed, tmp_path / "bundle", hyperparameters={"learning_rate": -1.0})
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(tmp_path, mixed, seed):
    with pytest.raises(BadInput, match="seed"):
        train(mixed, tmp_path / "bundle", seed=seed)


def test_a_class_missing_from_train_is_named(tmp_path, mixed):
    table = pd.read_parquet(mixed / "train.parquet")
    table[table["target"] == 0].to_parquet(mixed / "train.parquet")
    with pytest.raises(BadInput, match=r"No row of the train split has 'target' = 'yes'"):
        train(mixed, tmp_path / "bundle")


def test_missing_targets_are_counted(tmp_path):
    folder = feature_set(tmp_path / "f", sklearn_frame("diabetes"), "regression")
    table = pd.read_parquet(folder / "train.parquet")
    table.loc[:2, "target"] = np.nan
    table.to_parquet(folder / "train.parquet")
    with pytest.raises(BadInput, match=r"3 of .* rows of the train split have no finite value"):
        train(folder, tmp_path / "bundle")


@pytest.mark.parametrize("what", ["folder", "split", "rows", "column"])
def test_an_incomplete_feature_set_says_what_is_missing(tmp_path, mixed, what):
    path = mixed / "valid.parquet"
    if what == "folder":
        (mixed / "features.json").unlink()
        said = "no features.json"
    elif what == "split":
        path.unlink()
        said = "no valid.parquet"
    elif what == "rows":
        pd.read_parquet(path).head(0).to_parquet(path)
        said = "valid split .* has no rows"
    else:
        pd.read_parquet(path).drop(columns="age").to_parquet(path)
        said = "no column 'age'"
    with pytest.raises(BadInput, match=said):
        train(mixed, tmp_path / "bundle")


def test_a_full_disk_leaves_no_half_bundle_and_keeps_the_old_one(tmp_path, mixed, monkeypatch):
    from components.train import mlmodel

    train(mixed, tmp_path / "bundle")
    before = BundleManifest.read(tmp_path / "bundle")

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mlmodel, "write", full)
    with pytest.raises(StorageFull):
        train(mixed, tmp_path / "bundle", seed=9)
    assert verify(tmp_path / "bundle") == before
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "features"}


def test_origin_names_the_commit_and_run_from_the_environment(tmp_path, mixed, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_GIT_COMMIT", "abc123")
    monkeypatch.setenv("SLUICEWAY_RUN_ID", "run-7")
    origin = train(mixed, tmp_path / "bundle").manifest.origin
    assert (origin["git_commit"], origin["run_id"]) == ("abc123", "run-7")


def test_a_framework_that_is_not_installed_is_named_with_what_to_install(tmp_path, mixed):
    script = (
        "import sys, pathlib\n"
        "sys.modules['torch'] = None  # as where it is not installed\n"
        "from components.train.run import train\n"
        "train(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), trainer='torch')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(mixed), str(tmp_path / "b")], capture_output=True, text=True, check=False
    )
    assert "BadInput: The trainer 'torch' needs torch, which is not installed here: pip install" in ended.stderr
    assert not (tmp_path / "b").exists()


def test_a_device_that_is_none_is_refused(tmp_path, mixed):
    with pytest.raises(BadInput, match="device is 'tpu'; it must be one of auto, gpu, cpu"):
        train(mixed, tmp_path / "bundle", device="tpu")


def test_an_unknown_export_costs_no_training(tmp_path, mixed):
    with pytest.raises(BadInput, match=r"no export 'int4'.*int8"):
        train(mixed, tmp_path / "bundle", exports=["int4"])
    assert not (tmp_path / "bundle").exists()


def test_the_best_trial_of_a_search_is_what_is_trained(tmp_path, mixed, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path / "home"))
    said = []
    made = train(
        mixed,
        tmp_path / "bundle",
        trainer="linear",
        search={"trials": 4, "space": {"C": {"low": 1e-4, "high": 10.0, "log": True}}},
        say=said.append,
    )
    assert len(made.trials) == 4
    assert made.metrics["valid_roc_auc"] == max(made.trials)
    assert made.manifest.origin["search"]["trials"] == 4
    assert sum(line.startswith("trial ") for line in said) >= 4
