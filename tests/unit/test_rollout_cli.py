"""`sluiceway rollout` against the real file store, with somebody at work on the service or nobody."""

import json
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from components.rollout.evidence import Arm, Observation
from components.rollout.ledger import Ledger, Phase
from components.rollout.release import Release
from components.rollout.store import Command
from components.rollout.stores.files import FileStore
from pipelines.cli import app

CHECK = {
    "signal": "errors",
    "stable": 0.003,
    "canary": 0.05,
    "evidence": 2.3,
    "decides": 4.6,
    "finding": "unclear",
    "reason": "5.0% of the challenger's requests failed [so far]",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("SLUICEWAY_WHERE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rollout(home, **changes):
    """The record of a rollout at 10 %."""
    store = FileStore(home, "churn")
    ledger = store.load()
    ledger.run_id, ledger.phase, ledger.weight = "run-7", Phase.SHIFTING, 10
    ledger.stable = Release(version="6", uri="file:///6", document={})
    ledger.candidate = Release(version="7", uri="file:///7", document={})
    ledger.step_seconds, ledger.total_seconds = 75.0, 3700.0
    latency = {5.0: 100.0, 10.0: 470.0, float("inf"): 480.0}
    ledger.seen = Observation(Arm(requests=4321, errors=12, latency=latency), Arm(requests=480, errors=24))
    ledger.note("staged", 0, revision="churn-2", rows=500)
    ledger.note("shift", 10, reason="staged and checked")
    ledger.note("sample", 10, stable={"requests": 4321, "errors": 12}, canary={}, checks=[CHECK])
    for name, value in changes.items():
        setattr(ledger, name, value)
    store.save(ledger)
    return store


@contextmanager
def at_work(store, does):
    """Own the service, and do as the real owner does with each command: note it, clear it, act."""
    stop, ready = threading.Event(), threading.Event()

    def work():
        with store.owned("run-7"):
            ready.set()
            ledger = store.load()
            while not stop.wait(0.02):
                command = store.command()
                if command is None:
                    continue
                ledger.note("command", ledger.weight, command=command.what, by=command.by)
                store.save(ledger)
                store.clear()
                if does(ledger, command) == "end":
                    store.save(ledger)
                    return
                store.save(ledger)

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(5)
    yield
    stop.set()
    thread.join()


def call(*arguments, **more):
    return CliRunner().invoke(app, ["rollout", *arguments], **more)


def text(result):
    return re.sub(r"\s+", " ", result.output)


def pauses(ledger, command):
    if bool(ledger.paused_by) != (command.what == "pause"):
        ledger.paused_by = command.by if command.what == "pause" else ""
        ledger.note(f"{command.what}d", ledger.weight, by=command.by)
    ledger.note("sample", ledger.weight, stable={}, canary={}, checks=[])


def ends(outcome, event):
    def end(ledger, command):
        ledger.note("verdict", ledger.weight, action="roll back", reason="x")
        ledger.end(outcome, f"{command.what} by {command.by}")
        ledger.note(event, 0, reason=ledger.reason)
        return "end"

    return end


def test_status_shows_traffic_versions_counts_proof_and_the_last_decisions(home):
    store = rollout(home)
    with at_work(store, pauses):
        result = call("status", "churn")
    assert result.exit_code == 0, result.output
    said = text(result)
    assert "churn ▂▂ shifting at 10 %" in said
    assert "version 7 in place of version 6" in said
    assert "run run-7" in said
    assert "1 min 15 s in this step, 1 h 1 min in all" in said
    assert "champion 4,321 12 (0.28%) 6.9 ms 9.8 ms 10.0 ms 0" in said
    assert "challenger 480 24 (5.00%)" in said
    assert "errors unclear █████░░░░░ 50% 5.0% of the challenger's requests failed [so far]" in said
    assert "0.0 s staged 0 % churn-2 answers 500 test rows as offline" in said


def test_status_as_json_has_the_same_for_scripts(home):
    rollout(home, paused_by="ada@desk")
    result = call("status", "--json")
    (one,) = json.loads(result.stdout)["rollouts"]
    assert result.exit_code == 1  # nobody is at work on it
    assert (one["service"], one["phase"], one["weight"], one["owner"]) == ("churn", "shifting", 10, "")
    assert (one["stable_version"], one["candidate_version"], one["paused_by"]) == ("6", "7", "ada@desk")
    assert one["stable"] == {
        "requests": 4321, "errors": 12, "restarts": 0, "p50_ms": 6.892, "p95_ms": 9.811, "p99_ms": 10.0
    }  # fmt: skip
    assert one["canary"]["p95_ms"] is None
    assert one["checks"] == [CHECK]
    assert [event["what"] for event in one["decisions"]] == ["staged", "shift"]


def test_status_says_when_a_run_has_left_its_rollout_behind(home):
    rollout(home)
    result = call("status")
    assert result.exit_code == 1
    assert "nobody: its run has ended" in result.output


def test_status_of_a_machine_without_rollouts_says_how_to_begin_one(home):
    assert call("status").exit_code == 0
    assert "There has been no rollout on this machine yet" in call("status").output
    result = call("status", "churn")
    assert result.exit_code == 1
    assert "There has been no rollout of churn here" in result.output


def test_watch_follows_a_rollout_to_its_end_with_a_line_per_change(home):
    store = rollout(home)

    def halts(ledger, _command):
        ledger.end("halted", "the champion is sick")
        ledger.note("halted", 10, reason=ledger.reason)
        return "end"

    with at_work(store, halts):
        threading.Timer(0.4, store.send, [Command(what="pause", by="ada@desk", time=0.0)]).start()
        result = call("status", "churn", "--watch", "--every", "0.1")
    first = (
        "churn ▂▂ shifting at 10 %; version 7 in place of version 6; 480 requests, 24 failed; errors at 50% of proof"
    )
    lines = result.output.splitlines()
    assert lines[0].startswith(first)
    assert lines[1].startswith("churn ▂▂▂ halted; ")
    assert "the champion is sick" in result.output


def test_pause_and_resume_are_carried_out_by_the_owner_and_answered(home):
    store = rollout(home)
    with at_work(store, pauses):
        paused = call("pause", "churn")
        assert store.load().paused_by
        again = call("pause", "churn")
        resumed = call("resume", "churn")
    assert re.search(r"^paused at 10 %: by \S+@\S+$", paused.stdout, re.M), paused.output
    assert "run run-7 has taken the command" in paused.stderr
    assert "it was paused already" in again.stdout
    assert "resumed at 10 %" in resumed.stdout
    assert (paused.exit_code, again.exit_code, resumed.exit_code) == (0, 0, 0)
    assert not store.load().paused_by


def test_abort_tells_what_will_happen_and_waits_for_the_end(home):
    store = rollout(home)
    with at_work(store, ends("rolled_back", "rolled back")):
        result = call("abort", "churn")
    assert result.exit_code == 0, result.output
    assert (
        "version 6 of churn gets all traffic; version 7 is taken away (it has 10 % of the traffic now)" in result.stderr
    )
    assert re.search(r"rolled back at 0 %: abort by \S+@\S+", result.stdout)


def test_promote_asks_first_and_does_nothing_without_a_yes(home):
    store = rollout(home)
    with at_work(store, ends("promoted", "promoted")):
        refused = call("promote", "churn", input="n\n")
        assert refused.exit_code == 1
        assert "becomes the champion and gets all traffic" in refused.output
        assert store.load().outcome is None
        assert store.command() is None
        done = call("promote", "churn", "--yes")
    assert done.exit_code == 0, done.output
    assert "promoted at 0 %" in done.stdout


@pytest.mark.parametrize("what", ["pause", "resume"])
def test_a_command_to_a_rollout_that_nobody_is_at_work_on_says_so_and_leaves_nothing(home, what):
    store = rollout(home)
    result = call(what, "churn")
    assert result.exit_code == 1
    assert "Nobody is at work on churn: run run-7 ended while it was shifting at 10 %" in text(result)
    assert "sluiceway rollout abort churn" in text(result)
    assert store.command() is None


@pytest.mark.parametrize("what", ["pause", "resume", "abort", "promote"])
def test_a_command_after_the_end_says_how_it_ended(home, what):
    rollout(home, phase=Phase.SETTLED, candidate=None, outcome="rolled_back", reason="too many errors")
    result = call(what, "churn")
    assert result.exit_code == 1
    assert f"nothing to {what}: no rollout of churn is under way (the last one was rolled back)" in text(result)


@pytest.mark.parametrize("what", ["pause", "abort"])
def test_a_command_to_a_service_that_is_not_known_here_says_where_to_look(home, what):
    result = call(what, "chrun")
    assert result.exit_code == 1
    assert "There has been no rollout of chrun here: `sluiceway rollout status` lists those of this machine" in text(
        result
    )


def test_an_end_that_comes_before_the_command_is_told_apart_from_its_answer(home):
    store = rollout(home)

    def ends_by_itself(ledger, _command):
        ledger.events.pop()
        return ends("promoted", "promoted")(ledger, _command)

    with at_work(store, ends_by_itself):
        result = call("pause", "churn")
    assert result.exit_code == 1
    assert "The command to pause came too late: the rollout of churn is promoted" in text(result)


def test_an_owner_that_is_busy_leaves_the_command_in_force(home):
    store = rollout(home, phase=Phase.STAGED)
    with store.owned("run-7"):
        result = call("abort", "churn", "--seconds", "0.3")
    assert result.exit_code == 1
    assert "is not taken yet after 0 s: run run-7 is staged. It stays in force" in text(result)
    assert store.command().what == "abort"


def test_a_halted_rollout_is_ended_here_after_a_yes(home, monkeypatch):
    rollout(home, phase=Phase.HALTED, outcome="halted", reason="the champion is sick")
    decided = []
    monkeypatch.setattr(
        "components.rollout.settle.decided_by",
        lambda _place, store, what, by: decided.append((store.load().service, what, by)) or "version 7 is promoted",
    )
    assert call("promote", "churn", input="n\n").exit_code == 1
    assert decided == []
    result = call("promote", "churn", "-y")
    assert result.exit_code == 0, result.output
    assert "version 7 is promoted" in result.stdout
    assert decided[0][:2] == ("churn", "promote")
    assert "@" in decided[0][2]


def test_history_lists_every_decision_and_report_writes_the_page(home):
    rollout(home)
    listed = call("history", "churn")
    assert "shift" in listed.output
    assert "staged and checked" in listed.output
    as_json = json.loads(call("history", "churn", "--json").stdout)
    assert [event["what"] for event in as_json["decisions"]] == ["staged", "shift"]
    written = call("report", "churn", "--out", "page.html")
    assert "wrote page.html" in written.stdout
    assert "Rollout of churn" in (home / "page.html").read_text()


def test_with_a_namespace_the_service_is_looked_for_on_the_cluster(home, monkeypatch):
    seen = []

    def store_for(deployment, service, kubeconfig):
        seen.append((deployment.where, deployment.namespace, service, kubeconfig))
        return FileStore(home, service)

    monkeypatch.setattr("components.rollout.place.store_for", store_for)
    rollout(home)
    call("status", "churn", "--namespace", "team-a", "--kubeconfig", "k.yaml")
    call("status", "churn")
    assert seen[0][0] not in ("auto", "single-machine")
    assert seen[0][1:] == ("team-a", "churn", "k.yaml")
    assert seen[1] == ("auto", "", "churn", "")
    result = call("status", "--namespace", "team-a")
    assert result.exit_code == 1
    assert "On a cluster name the service" in text(result)


def test_the_commands_help_loads_in_no_time():
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", "rollout", "pause", "--help"], capture_output=True)
    assert done.returncode == 0
    assert b"until" in done.stdout
    assert time.monotonic() - began < 5
    heavy = "import sys, pipelines.cli; print([m for m in ('kubernetes', 'numpy', 'httpx', 'kfp') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_the_empty_record_is_one_of_no_rollout():
    assert Ledger(service="x").outcome is None
