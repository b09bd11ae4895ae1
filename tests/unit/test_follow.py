"""What a run's output says about it."""

import json
import time

import pytest

from components.step import emit
from pipelines.follow import Follower
from pipelines.record import RunRecord, State, StepRecord, read_outputs


def record(tmp_path, *names):
    return RunRecord("r1", tmp_path, "svc", {}, {name: StepRecord(name) for name in names}, time.time())


def emitted(capsys, step, event, **fields):
    emit(step, event, **fields)
    return "    " + capsys.readouterr().out


def test_a_step_is_followed_from_start_to_fact(tmp_path, capsys):
    follower = Follower(record(tmp_path, "ingest"))
    step = follower.record.steps["ingest"]
    assert follower.line("05:52:56 - INFO - Executing task \x1b[96m'ingest'\x1b[0m\n")
    assert step.state is State.RUNNING
    assert follower.line(emitted(capsys, "ingest", "progress", message="2 of 4 files"))
    assert step.progress == ["2 of 4 files"]
    assert follower.line(emitted(capsys, "ingest", "finished", fact="569 rows", seconds=0.4))
    assert (step.state, step.fact, step.work_seconds) == (State.DONE, "569 rows", 0.4)
    assert 0 <= step.seconds < 5


def test_a_failure_keeps_its_sentence_and_exit_code(tmp_path, capsys):
    follower = Follower(record(tmp_path, "ingest", "settle"))
    follower.line(emitted(capsys, "ingest", "failed", kind="Busy", message="Another run…", exit_code=5))
    failed = follower.record.failed()
    assert failed is not None
    assert (failed.name, failed.error, failed.exit_code) == ("ingest", "Another run…", 5)


def test_other_lines_change_nothing(tmp_path):
    follower = Follower(record(tmp_path, "ingest"))
    assert not follower.line('    {"inputs": {}}\n')
    assert not follower.line("\n")
    assert follower.record.steps["ingest"].state is State.PENDING


def test_an_event_with_other_output_in_its_line_is_still_understood_or_left(tmp_path, capsys):
    follower = Follower(record(tmp_path, "rollout"))
    event = emitted(capsys, "rollout", "progress", message="10 % to the challenger").rstrip()
    assert follower.line(event + "[KFP Executor INFO]: HTTP Request\n")
    assert follower.record.steps["rollout"].progress == ["10 % to the challenger"]
    assert not follower.line(event[:40] + "[KFP Executor INFO]\n")


def test_a_kept_step_brings_its_outputs_from_the_cache(tmp_path):
    follower = Follower(record(tmp_path, "ingest", "train"))
    assert follower.line("INFO:root:Task ingest cache hit (key=abcdef123456); skipping execution.")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "abcdef1234567890.json").write_text(json.dumps({"snapshot": {"uri": "/s", "metadata": {"rows": 3}}}))
    ran = tmp_path / "artifacts" / "tiny-1" / "train"
    ran.mkdir(parents=True)
    artifact = {"name": "model", "uri": "/m", "metadata": {"task": "binary"}}
    (ran / "executor_output.json").write_text(
        json.dumps({"parameterValues": {"Output": "d"}, "artifacts": {"model": {"artifacts": [artifact]}}})
    )
    read_outputs(follower.record, cache, follower.cache_keys)
    assert follower.record.step("ingest").metadata("snapshot") == {"rows": 3}
    assert str(follower.record.step("train").artifact("model")) == "/m"
    assert follower.record.step("train").outputs["Output"] == "d"


RETRYING = "INFO:root:Task train-2 failed (attempt 1/6). Retrying in 10.0s...\n"
AGAIN = "05:52:56 - INFO - Executing task \x1b[96m'train-2'\x1b[0m\n"


def test_a_killed_step_is_tried_again_under_its_components_name(tmp_path, capsys):
    follower = Follower(record(tmp_path, "train"))
    step = follower.record.steps["train"]
    follower.line(AGAIN)
    follower.line(emitted(capsys, "train", "started"))
    follower.line(RETRYING)  # without a word: it was killed
    assert not follower.in_vain
    follower.line(AGAIN)
    follower.line(emitted(capsys, "train", "finished", fact="valid roc_auc 0.9", seconds=1.0))
    assert (step.state, step.error, list(follower.record.steps)) == (State.DONE, "", ["train"])


def test_an_attempt_after_something_unreachable_is_worth_it_and_one_after_bad_input_is_not(tmp_path, capsys):
    for kind, in_vain in (("Unreachable", False), ("BadInput", True), ("ValueError", True)):
        follower = Follower(record(tmp_path, "train"))
        follower.line(emitted(capsys, "train", "failed", kind=kind, message="x", exit_code=1))
        follower.line(RETRYING)
        assert follower.in_vain is in_vain, kind


def test_a_step_that_is_quickly_started_anew_is_not_tried_again_on_one_machine(tmp_path, capsys):
    for step in ("resolve", "stage", "settle"):
        follower = Follower(record(tmp_path, step))
        follower.line(emitted(capsys, step, "failed", kind="Unreachable", message="x", exit_code=1))
        follower.line(RETRYING.replace("train-2", step))
        assert follower.in_vain, step


def test_a_branch_that_did_not_run_gives_way_to_the_one_that_did():
    from kfp.local.io import IOStore

    from pipelines.local_run import from_the_branch_that_ran

    class Selector:
        def __init__(self, producer_subtask):
            self.producer_subtask, self.output_artifact_key = producer_subtask, "model"

    store = IOStore()
    store.put_task_output("on-gpus", "model", "the bundle")
    assert from_the_branch_that_ran([Selector("on-cpus"), Selector("on-gpus")], store) == "the bundle"
    with pytest.raises(RuntimeError, match="0 of 1"):
        from_the_branch_that_ran([Selector("on-cpus")], store)
