"""What a run's output says about it."""

import json
import time

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
