"""A run killed at any step leaves the champion serving, and running again ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from components.ingest import dvc
from components.ingest.resolve import resolve
from tests.e2e.road import QUICK

ROOT = Path(__file__).parents[2]
MODEL = "few"
COLUMNS = 5  # the report draws every column, which is not what is tested here
DATA_STEPS = ("ingest", "validate", "features", "train", "evaluate")
SERVICE_STEPS = ("register", "stage", "rollout")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A table of few columns, of which one holds words and gaps, and one of its rows as a client sends it."""
    frame = load_breast_cancer(as_frame=True).frame
    few = frame[[*frame.columns[:COLUMNS], "target"]]
    words = pd.cut(frame["worst area"], [0, 600, 1000, 5000], labels=["small", "medium", "large"]).astype("object")
    few.insert(0, "size", words.where(frame["worst area"] > 400))
    path = tmp_path_factory.mktemp("data") / "few.csv"
    few.to_csv(path, index=False)
    return {"source_uri": str(path), "model_name": MODEL}, few.drop(columns="target").iloc[0].to_dict()


@pytest.fixture(scope="module")
def champion(road, data):
    """The first champion, version 1; the challengers differ from it by their seed alone."""
    ended = road.run({**data[0], "seed": "99"})
    assert ended.code == 0, ended.err
    return road


def wait_until_started(road, process, step):
    """Until the step's own code runs; then a moment more, a different one each time."""
    marker = f'{{"sluiceway": "started", "step": "{step}"'
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        newest = max((road.home / "runs").glob("*/kfp.log"), key=lambda log: log.stat().st_mtime)
        if newest.parent.name not in wait_until_started.seen and marker in newest.read_text():
            wait_until_started.seen.add(newest.parent.name)
            time.sleep(random.Random(step).uniform(0, 0.8))
            return
        assert process.poll() is None, "the run ended before the step began"
        time.sleep(0.02)
    raise AssertionError(f"{step} never began")


wait_until_started.seen = set()


@pytest.mark.parametrize("steps", [DATA_STEPS, SERVICE_STEPS], ids=["data", "service"])
def test_a_run_killed_at_every_step_in_turn_ends_in_the_same_state(champion, data, steps):
    """Each attempt goes on from what the killed one before it had finished, and is killed one step later."""
    road, (source, row) = champion, data
    before, serving = road.versions(MODEL), road.champion(MODEL)
    # Another share makes the steps from validate on run anew, another seed makes another challenger.
    parameters = {**source, "seed": str(len(steps)), "max_quarantine_share": "0.04"}

    for step in steps:
        wait_until_started.seen.update(run.name for run in (road.home / "runs").iterdir())
        killed = road.start(parameters, *(["--no-cache"] if step == "ingest" else []))
        wait_until_started(road, killed, step)
        killed.send_signal(signal.SIGKILL)
        killed.wait()

        assert road.answers(MODEL, row) == 200, "the service stopped answering"
        assert road.champion(MODEL) == serving
        assert len(road.versions(MODEL)) <= len(before) + 1, "registered twice"
        deadline = time.monotonic() + 10
        while road.steps_alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not road.steps_alive(), "a step outlived its run"

    again = road.run(parameters)
    assert again.code == 0, again.err
    after = road.versions(MODEL)
    assert len(after) == len(before) + 1, "registered twice, or not at all"
    newest = after[-1].version
    assert road.champion(MODEL) == str(newest) == again.result["model_version"]
    (service,) = road.status()
    assert service["model_version"] == str(newest)
    assert [entry["percent"] for entry in service["traffic"] if entry["percent"]] == [100]
    assert road.answers(MODEL, row) == 200


def test_running_the_champions_own_recipe_again_as_mlflow_run_does_changes_nothing(champion, data, tmp_path):
    road = champion
    before = [v.version for v in road.versions(MODEL)]
    parameters = {**QUICK, **data[0], "seed": str(len(SERVICE_STEPS))}
    given = [word for name, value in parameters.items() for word in ("-P", f"{name}={value}")]
    again = subprocess.run(
        ["mlflow", "run", str(ROOT), "--env-manager", "local", "--experiment-name", MODEL, *given],
        cwd=tmp_path,
        env=road.environment(
            MLFLOW_TRACKING_URI=f"sqlite:///{road.home / 'mlflow.db'}",
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        ),
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Promoted" in again.stdout
    assert [v.version for v in road.versions(MODEL)] == before


def test_the_champion_leads_back_to_the_bytes_that_it_was_trained_on(champion, data, tmp_path):
    from mlflow import MlflowClient

    road = champion
    ended = road.command("data", "restore", f"models:/{MODEL}@champion", "--to", str(tmp_path / "back"), "--json")
    assert ended.code == 0, ended.err
    (version,) = [one for one in road.versions(MODEL) if str(one.version) == road.champion(MODEL)]
    assert (
        ended.result["version"] == version.tags["sluiceway.data_version"] == resolve(data[0]["source_uri"], {}).version
    )
    snapshot = json.loads((tmp_path / "back" / "snapshot.json").read_text())
    assert snapshot["version"] == ended.result["version"]
    for part in snapshot["parts"]:
        assert dvc.md5(tmp_path / "back" / part["name"]) == part["md5"]

    run = MlflowClient(f"sqlite:///{road.home / 'mlflow.db'}").get_run(version.run_id)
    (trained_on,) = run.inputs.dataset_inputs
    assert (trained_on.dataset.name, trained_on.dataset.digest) == (MODEL, ended.result["version"][:36])
    told = {tag.key: tag.value for tag in trained_on.tags}
    assert told["mlflow.data.context"] == "training"
    assert told["sluiceway.data_version"] == ended.result["version"]
    assert told["sluiceway.data_object"] == ended.result["directory"]
    assert json.loads(trained_on.dataset.source)["uri"] == data[0]["source_uri"]

    models = json.loads(road.command("data", "show", MODEL, "--json").out)["models"]
    assert [one["version"] for one in models if "champion" in one["aliases"]] == [str(version.version)]


def test_a_rollout_that_nobody_can_judge_is_halted_until_a_person_ends_it(champion, data):
    road = champion
    serving = road.champion(MODEL)
    halting = {"plan": '{"min_requests": 50, "max_seconds": 1, "on_unclear": "halt"}', "replay_per_second": "0"}
    parameters = {**data[0], "seed": "50"}

    halted = road.run({**parameters, **halting})
    assert (halted.code, halted.result["state"]) == (6, "halted"), halted.err
    assert road.champion(MODEL) == serving
    refused = road.run(parameters)
    assert refused.code == 5, "a new run takes the service from the person who is to decide"
    assert f"sluiceway rollout abort {MODEL}" in refused.result["error"]

    ended = road.command("rollout", "abort", MODEL, "--yes")
    assert ended.code == 0, ended.err
    (service,) = road.status()
    assert service["model_version"] == serving
