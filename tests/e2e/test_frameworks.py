"""The frameworks beside scikit-learn, through the compiled pipeline until they serve."""

import os
import signal
import subprocess
import sys
import time

import pytest
from sklearn.datasets import load_diabetes, load_digits

from tests.keys import write_pair

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def promoted(road, parameters):
    ended = road.run(parameters)
    assert ended.code == 0, ended.err
    assert ended.result["state"] == "promoted"
    return ended.result


def loaded_by_mlflow(road, model, rows):
    """What any MLflow user gets from the registry, in a process of its own: MLflow keeps whom it has talked to."""
    script = (
        "import sys, mlflow, pandas\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print(*model.predict(pandas.read_parquet(sys.argv[2])).shape)\n"
    )
    rows.to_parquet(road.home / "rows.parquet")
    ended = subprocess.run(
        [sys.executable, "-c", script, f"models:/{model}@champion", str(road.home / "rows.parquet")],
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{road.home / 'mlflow.db'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return tuple(map(int, ended.stdout.splitlines()[-1].split()))


def test_keras_on_ten_classes_is_signed_registered_and_serves(road, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # keys are often named as they lie, and a server runs in another folder
    signing, verify = write_pair(tmp_path, "ours")
    keys = {"SLUICEWAY_SIGNING_KEY": signing.name, "SLUICEWAY_VERIFY_KEY": verify.name}
    ended = road.run({"source_uri": "sklearn://digits", "trainer": "keras"}, **keys)
    assert ended.code == 0, ended.err
    assert ended.result["metrics"]["accuracy"]["value"] > 0.9
    assert list(road.home.glob("mlartifacts/*/artifacts/bundle/bundle.sig"))
    digits = load_digits(as_frame=True).data
    assert road.answers("digits", digits.iloc[0].to_dict()) == 200
    assert loaded_by_mlflow(road, "digits", digits.head(5).astype("float64")) == (5, 10)


def test_a_key_that_is_not_there_ends_the_run_before_its_first_step(road):
    ended = road.run({}, SLUICEWAY_SIGNING_KEY="nowhere.pem")
    assert ended.code == 1
    assert "SLUICEWAY_SIGNING_KEY names the key nowhere.pem, but there is no such file" in ended.err


def test_pytorch_on_a_regression_goes_on_where_a_killed_run_was_and_serves(road):
    parameters = {
        "source_uri": "sklearn://diabetes",
        "trainer": "torch",
        "hyperparameters": '{"epochs": 400, "patience": 400, "width": 32}',
    }
    killed = road.start(parameters)
    deadline = time.monotonic() + 300
    while not list(road.home.glob("store/checkpoints/*/checkpoint.safetensors")):
        assert killed.poll() is None, "the run ended before it had kept a state"
        assert time.monotonic() < deadline, "no state was kept"
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    promoted(road, parameters)
    newest = max((road.home / "runs").glob("*/kfp.log"), key=lambda log: log.stat().st_mtime)
    assert "Going on from the checkpoint" in newest.read_text()
    assert not list(road.home.glob("store/checkpoints/*/checkpoint.safetensors")), "an ended training keeps no state"
    rows = load_diabetes(as_frame=True).data
    assert road.answers("diabetes", rows.iloc[0].to_dict()) == 200
    assert loaded_by_mlflow(road, "diabetes", rows.head(5)) == (5,)
