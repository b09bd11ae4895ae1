"""Search and epochs against a real MLflow: workers in processes of their own, one of them killed, and registration."""

import os
import signal
import subprocess
import sys
import time

import pytest

from components.errors import BadInput, Unreachable
from components.evaluate.run import evaluate
from components.register.mlflow_client import client
from components.register.registry import RECIPE
from components.register.run import register
from components.train.contract import Data, Run
from components.train.interrupt import Interrupted
from components.train.run import train
from components.train.search import best, search, search_worker
from components.train.tracking import tracked
from components.train.trials import SEARCH, TRIAL_OF, TrialRuns
from serving.schema import BundleManifest
from tests.feature_sets import feature_set, sklearn_frame
from tests.unit.test_train_search import Bowl, Memory, sought

NAME = "cancer"
TRIALS = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A feature set, a bundle and its decision."""
    home = tmp_path_factory.mktemp("search")
    features = feature_set(home / "features", sklearn_frame("breast_cancer"), "binary")
    train(features, home / "bundle", trainer="linear")
    decision = evaluate(features, home / "bundle", draws=50).decision
    (home / "decision").write_text(decision.model_dump_json())
    return home


def store_of(wanted, seed=0, **fields):
    return TrialRuns(NAME, wanted.key(seed), **fields)


def work(features, index):
    """What one worker's process does; its trials take a while."""
    wanted = sought(Data.read(features), Bowl(pause=0.05), trials=TRIALS)
    search_worker(wanted, Run(0, say=lambda said: print(said, flush=True)), store_of(wanted), index, 2)


def start(features, index):
    code = f"from pathlib import Path; from {__name__} import work; work(Path({str(features)!r}), {index})"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ)


def all_runs():
    mlflow = client()
    return mlflow.search_runs([found.experiment_id for found in mlflow.search_experiments()])


def children():
    return {number: [run for run in all_runs() if run.info.run_name == f"trial {number}"] for number in range(TRIALS)}


def test_two_workers_one_of_them_killed_and_tried_again_do_every_trial_once(made, sqlite):
    wanted = sought(Data.read(made / "features"), Bowl(), trials=TRIALS)
    parent = store_of(wanted).parent()  # as the step before the workers does
    first, second = (start(made / "features", index) for index in (0, 1))
    while not any((trial.number, trial.state) == (3, "running") for trial in store_of(wanted).read()):
        assert second.poll() is None
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    assert first.wait(120) == 0
    assert second.wait(120) == -signal.SIGKILL
    with pytest.raises(BadInput, match="no search worker"):
        search_worker(wanted, Run(0), store_of(wanted), 5, 2)
    retried = Bowl()
    search_worker(sought(wanted.data, retried, trials=TRIALS), Run(0), store_of(wanted), 1, 2)
    assert len(retried.fitted) == 2  # the one that was killed, and the one after it

    found = best(wanted, store_of(wanted))
    assert [trial.number for trial in found.trials] == list(range(TRIALS))
    assert found.run_id == parent
    assert found.value == max(found.values())
    assert {**Bowl().parameters("binary"), **found.trials[found.number].parameters} == found.parameters
    for number, runs in children().items():
        outcome = [run for run in runs if run.info.status in ("FINISHED", "FAILED")]
        assert len(outcome) == 1, (number, [run.info.status for run in runs])
        assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parent}
        assert outcome[0].data.params["x"] == str(found.trials[number].parameters["x"])
        assert outcome[0].data.metrics["search_value"] == found.trials[number].value
        history = client().get_metric_history(outcome[0].info.run_id, "valid_loss")
        assert [metric.step for metric in history] == [1, 2, 3, 4, 5, 6]
        assert found.trials[number].epochs == {metric.step: metric.value for metric in history}
    assert sorted(run.info.status for run in children()[3]) == ["FINISHED", "KILLED"]
    count = len(all_runs())
    search_worker(wanted, Run(0), store_of(wanted), 1, 2)
    assert len(all_runs()) == count  # nothing is left to do


def test_a_worker_proposes_from_what_the_others_have_found(made, sqlite):
    data = Data.read(made / "features")
    wanted, memory = sought(data, Bowl(epochs=0), trials=22), Memory()
    for index in (0, 1):
        search_worker(wanted, Run(0), store_of(wanted), index, 2)
    search_worker(wanted, Run(0), memory, 1, 2)  # the same worker without the other
    together, without = (
        [abs(trial.parameters["x"] - 0.3) for trial in store.read() if trial.number % 2]
        for store in (store_of(wanted), memory)
    )
    assert len(together) == len(without) == 11
    assert together[0] != without[0]  # the first already knows eleven others
    assert sum(together) < 0.75 * sum(without)


def test_pruned_and_failed_trials_say_so_and_a_retry_in_process_fits_nothing_again(made, sqlite):
    trainer = Bowl(lambda parameters: parameters["width"] > 150)
    wanted = sought(Data.read(made / "features"), trainer, trials=25)
    found = search(wanted, Run(0), store_of(wanted, required=False))
    states = {trial.state for trial in found.trials}
    assert states == {"finished", "pruned", "failed"}
    status = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    by_name = {run.info.run_name: run for run in all_runs()}
    for trial in found.trials:
        assert by_name[f"trial {trial.number}"].info.status == status[trial.state]
    fitted = len(trainer.fitted)
    again = search(wanted, Run(0), store_of(wanted, required=False))
    assert len(trainer.fitted) == fitted
    assert (again.number, again.value, again.parameters) == (found.number, found.value, found.parameters)
    assert again.trials == found.trials


def test_the_best_is_trained_in_the_searchs_run_and_registered_there(made, sqlite):
    wanted = sought(Data.read(made / "features"), Bowl(), trials=2)
    found = search(wanted, Run(0), store_of(wanted))
    manifest = BundleManifest.read(made / "bundle")
    with tracked(NAME, manifest.recipe, manifest.recipe_digest, print, found.run_id) as epochs:
        epochs(1, {"train_loss": 0.5})
    done = register(made / "bundle", made / "decision", NAME)
    assert done.run_id == found.run_id
    run = client().get_run(done.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["train_loss"] == 0.5
    assert run.data.metrics["test_roc_auc"] > 0.9
    assert run.data.params["trainer"] == "linear"
    assert run.data.tags[SEARCH] == wanted.key(0)
    assert sum(run.data.tags.get(TRIAL_OF) == wanted.key(0) for run in all_runs()) == 2
    assert len(all_runs()) == 3


def test_a_trainer_without_epochs_is_registered_in_the_searchs_run_too(made, sqlite):
    wanted = sought(Data.read(made / "features"), Bowl(epochs=0), trials=1)
    found = search(wanted, Run(0), store_of(wanted, required=False))
    assert client().get_run(found.run_id).info.status == "FINISHED"
    manifest = BundleManifest.read(made / "bundle")
    with tracked(NAME, manifest.recipe, manifest.recipe_digest, print, found.run_id):
        pass
    run = client().get_run(found.run_id)
    assert (run.info.status, run.data.params["trainer"]) == ("FINISHED", "linear")
    assert register(made / "bundle", made / "decision", NAME).run_id == found.run_id


def epochs_of(run_id):
    return [(metric.step, metric.value) for metric in client().get_metric_history(run_id, "train_loss")]


def test_a_training_that_was_interrupted_goes_on_in_its_run_without_an_epoch_twice(made, sqlite):
    manifest = BundleManifest.read(made / "bundle")
    with (
        pytest.raises(Interrupted),
        tracked(NAME, manifest.recipe, manifest.recipe_digest, print) as epochs,
    ):
        epochs(1, {"train_loss": 0.9})
        epochs(2, {"train_loss": 0.8})
        raise Interrupted("SIGTERM came.")
    (run,) = all_runs()
    assert (run.info.status, run.data.tags[RECIPE]) == ("KILLED", manifest.recipe_digest)
    with tracked(NAME, manifest.recipe, manifest.recipe_digest, print) as epochs:
        epochs(2, {"train_loss": 0.8})  # it went back to its last checkpoint
        assert client().get_run(run.info.run_id).info.status == "RUNNING"
        epochs(3, {"train_loss": 0.7})
    assert epochs_of(run.info.run_id) == [(1, 0.9), (2, 0.8), (3, 0.7)]
    assert [run.info.status for run in all_runs()] == ["FINISHED"]
    assert register(made / "bundle", made / "decision", NAME).run_id == run.info.run_id


def test_a_training_that_failed_says_so(made, sqlite):
    manifest = BundleManifest.read(made / "bundle")
    with (
        pytest.raises(BadInput),
        tracked(NAME, manifest.recipe, manifest.recipe_digest, print) as epochs,
    ):
        epochs(1, {"train_loss": 0.9})
        raise BadInput("Training diverged.")
    assert [run.info.status for run in all_runs()] == ["FAILED"]


def test_in_a_task_that_kfp_has_made_a_run_for_no_other_is_begun(made, sqlite, monkeypatch, tmp_path):
    mlflow = client()
    given = mlflow.create_run(mlflow.create_experiment("pipeline", (tmp_path / "artifacts").as_uri()))
    mlflow.log_param(given.info.run_id, "seed", "0.0")  # KFP logs a task's parameters in its own way
    monkeypatch.setenv("MLFLOW_RUN_ID", given.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", given.info.experiment_id)
    manifest = BundleManifest.read(made / "bundle")
    with tracked(NAME, manifest.recipe, manifest.recipe_digest, print) as epochs:
        epochs(1, {"train_loss": 0.9})
    (run,) = all_runs()
    assert (run.info.run_id, run.info.status) == (given.info.run_id, "RUNNING")  # KFP ends it
    assert (run.data.params["seed"], run.data.params["trainer"]) == ("0.0", "linear")
    other = mlflow.create_run(given.info.experiment_id)  # that of the registering task
    monkeypatch.setenv("MLFLOW_RUN_ID", other.info.run_id)
    assert register(made / "bundle", made / "decision", NAME).run_id == given.info.run_id


def test_without_mlflow_a_search_in_one_process_goes_on_and_says_so_once_but_workers_cannot(
    made, tmp_path, monkeypatch
):
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = []
    wanted = sought(Data.read(made / "features"), Bowl(), trials=3)
    found = search(wanted, Run(0), store_of(wanted, required=False, say=said.append))
    assert (len(found.trials), found.run_id) == (3, "")
    assert len(said) == 1
    assert "goes on without MLflow" in said[0]
    with pytest.raises(Unreachable):
        search_worker(wanted, Run(0), store_of(wanted), 0, 2)
