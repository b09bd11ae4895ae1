"""Schedules on a KFP server: exactly those that are declared, whatever happens on the way."""

import copy
import itertools
import json
import os
import threading
from collections import Counter

import pytest
import yaml
from typer.testing import CliRunner

from components.errors import BadInput, Unreachable
from pipelines.cli import app
from pipelines.server import runs, schedules, schedules_apply
from pipelines.server.connection import connect
from pipelines.server.submit import Request, submit
from pipelines.server.upload import read_package, upload
from tests.kfp_package import on_server, write_package

pytest_plugins = ["tests.kfp_api.fixtures"]

_PATH = "/recurringruns"


@pytest.fixture
def pipeline(kfp, tmp_path, unique, monkeypatch):
    """A pipeline on the server; its name, which is the owner's too."""
    monkeypatch.setenv("SLUICEWAY_GIT_COMMIT", "c0ffee")
    on_server(kfp, write_package(tmp_path / "package.yaml", unique))
    yield unique
    if os.environ.get("SLUICEWAY_TEST_KFP"):
        apply(kfp, document(unique))


def document(owner, *about):
    given = [{"pipeline": owner, "cron": "0 3 * * *", "parameters": {"target": "y"}} | dict(one) for one in about]
    return schedules.Document(owner=owner, schedules=given)


def apply(connection, declared):
    wanted = schedules_apply.resolve(connection, declared, make=True)
    return schedules_apply.apply(connection, declared.owner, wanted, lambda _change, _step: None)


def schedules_of(connection, owner):
    """Name, seed and state of an owner's recurring runs."""
    listed = connection.client.list_recurring_runs(page_size=100, namespace=connection.namespace).recurring_runs or []
    return sorted(
        (one.display_name, one.runtime_config.parameters.get("seed", 0), one.status == "ENABLED")
        for one in listed
        if f"[sluiceway {owner}/" in (one.description or "")
    )


@pytest.fixture
def at_most_one_is_on(kfp_api):
    """At no request are two schedules of one name switched on."""
    twice = []

    def look(_method, _path):
        on = Counter(one["display_name"] for one in list(kfp_api.store.recurring.values()) if one["mode"] == "ENABLE")
        twice.extend(name for name, count in on.items() if count > 1)

    kfp_api.before = look
    yield
    assert not twice, f"switched on twice: {twice}"


BEFORE = (
    {"name": "kept"},
    {"name": "changed", "parameters": {"target": "y", "seed": 1}},
    {"name": "gone"},
    {"name": "rests"},
)
AFTER = (
    {"name": "kept"},
    {"name": "changed", "parameters": {"target": "y", "seed": 2}},
    {"name": "new", "every": "6h", "cron": ""},
    {"name": "rests", "paused": True},
)
DECLARED = [("changed", 2, True), ("kept", 0, True), ("new", 0, True), ("rests", 0, False)]


def test_schedules_are_made_changed_paused_and_deleted_and_then_nothing_is_done(kfp, pipeline):
    apply(kfp, document(pipeline, *BEFORE))
    kept = {one.display_name: one.recurring_run_id for one in listed(kfp)}["kept"]
    assert apply(kfp, document(pipeline, *AFTER)) == []
    assert schedules_of(kfp, pipeline) == DECLARED
    again = {one.display_name: one for one in listed(kfp)}
    assert again["kept"].recurring_run_id == kept
    assert again["new"].trigger.periodic_schedule.interval_second == "21600"
    assert again["kept"].trigger.cron_schedule.cron == "0 0 3 * * *"
    assert (again["kept"].no_catchup, again["kept"].max_concurrency) == (True, "1")
    apply(kfp, document(pipeline, *AFTER))
    assert {one.display_name: one.recurring_run_id for one in listed(kfp)} == {
        name: one.recurring_run_id for name, one in again.items()
    }


def listed(connection):
    return connection.client.list_recurring_runs(page_size=100, namespace=connection.namespace).recurring_runs


def test_nothing_is_sent_when_all_is_as_declared(kfp, kfp_api, pipeline):
    apply(kfp, document(pipeline, *BEFORE))
    kfp_api.requests.clear()
    apply(kfp, document(pipeline, *BEFORE))
    assert {method for method, _ in kfp_api.requests} == {"GET"}


@pytest.mark.usefixtures("at_most_one_is_on")
def test_an_apply_that_is_killed_after_any_call_is_taken_up_by_the_next(kfp, kfp_api, pipeline, monkeypatch):
    perform = schedules_apply._perform
    apply(kfp, document(pipeline, BEFORE[1], BEFORE[2]))
    before = copy.deepcopy(kfp_api.store.recurring)
    for calls in itertools.count():
        kfp_api.store.recurring = copy.deepcopy(before)
        left = itertools.repeat(None, calls)

        def killed(*given, left=left):
            if next(left, "dead") == "dead":
                raise KeyboardInterrupt
            return perform(*given)

        monkeypatch.setattr(schedules_apply, "_perform", killed)
        try:
            apply(kfp, document(pipeline, AFTER[1]))
        except KeyboardInterrupt:
            pass
        else:
            break
        finally:
            monkeypatch.undo()
        apply(kfp, document(pipeline, AFTER[1]))
        assert schedules_of(kfp, pipeline) == [("changed", 2, True)], f"killed after {calls} calls"
    assert calls == 6  # make, switch two off, switch one on, delete two


@pytest.mark.usefixtures("at_most_one_is_on")
@pytest.mark.parametrize(
    ("how", "about"),
    [("answer", {"code": 503}), ("after", {"code": 502}), ("drop", {}), ("lose", {}), ("answer", {"code": 429})],
)
def test_calls_that_fail_or_whose_answers_get_lost_make_no_duplicate_and_lose_none(kfp, kfp_api, pipeline, how, about):
    apply(kfp, document(pipeline, *BEFORE))
    for method, path in (
        ("POST", "recurringruns$"),
        ("POST", ":enable"),
        ("POST", ":disable"),
        ("DELETE", "recurringruns/"),
        ("GET", "recurringruns$"),
    ):
        kfp_api.faults.add(how, method=method, path=path, **about)
    apply(kfp, document(pipeline, *AFTER))
    assert schedules_of(kfp, pipeline) == DECLARED


def test_a_server_that_does_not_answer_in_time_makes_no_duplicate(kfp, kfp_api, pipeline):
    for how in ("hang", "slow"):
        kfp_api.faults.add(how, method="POST", path="recurringruns$", seconds=0.5)
    apply(kfp, document(pipeline, *BEFORE[:1]))
    assert schedules_of(kfp, pipeline) == [("kept", 0, True)]


def test_a_server_that_stays_broken_is_given_up_with_a_clear_word(kfp_options, kfp_api, pipeline):
    kfp_api.faults.add("answer", code=500, message="no space", method="POST", path="recurringruns$", times=999)
    with (
        connect(kfp_options.model_copy(update={"patience_seconds": 0.3})) as connection,
        pytest.raises(Unreachable, match=r"fails at POST .*recurringruns: no space"),
    ):
        apply(connection, document(pipeline, *BEFORE))


def test_a_token_that_runs_out_in_the_middle_is_taken_anew(kfp_options, kfp_api, pipeline, tmp_path):
    token = tmp_path / "token"
    token.write_text("first")
    kfp_api.gate.tokens = {"first": "anna"}
    with connect(kfp_options.model_copy(update={"token_file": token})) as connection:

        def renew(method, _path):
            if method == "POST":
                token.write_text("second")
                kfp_api.gate.tokens = {"second": "anna"}

        kfp_api.before = renew
        apply(connection, document(pipeline, *AFTER))
        assert schedules_of(connection, pipeline) == DECLARED


@pytest.mark.usefixtures("at_most_one_is_on")
def test_two_reconcilers_at_once_make_each_schedule_once(kfp_options, kfp, pipeline):
    apply(kfp, document(pipeline, *BEFORE))
    failures = []

    def reconcile():
        try:
            with connect(kfp_options) as connection:
                apply(connection, document(pipeline, *AFTER))
        except Exception as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=reconcile) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not failures
    assert schedules_of(kfp, pipeline) == DECLARED


def test_schedules_of_others_are_left_alone(kfp, kfp_api, pipeline, unique):
    """Another owner's, somebody's own, and a copy that the UI made of one of ours, with its description."""
    other = f"{unique}-too"
    apply(kfp, document(pipeline, *BEFORE))
    apply(kfp, schedules.Document(owner=other, schedules=document(pipeline, *BEFORE).schedules))
    for about in ({"display_name": "Clone of kept"}, {"display_name": "kept", "description": "mine"}):
        one = next(iter(kfp_api.store.recurring.values()))
        kfp_api.store.recurring[about["display_name"]] = one | about | {"recurring_run_id": about["display_name"]}
    apply(kfp, document(pipeline))
    assert schedules_of(kfp, other) == [
        (one["name"], one.get("parameters", {}).get("seed", 0), True)
        for one in sorted(BEFORE, key=lambda one: one["name"])
    ]
    assert {"Clone of kept", "kept"} <= kfp_api.store.recurring.keys()
    assert [name for name, *_ in schedules_of(kfp, pipeline)] == ["Clone of kept"]


def test_an_old_schedule_whose_run_is_going_on_is_switched_off_and_deleted_once_it_has_ended(kfp, kfp_api, pipeline):
    """The cluster deletes a schedule's runs with it."""
    apply(kfp, document(pipeline, BEFORE[1], BEFORE[2]))
    run_ids = [kfp_api.recurring.fire(key) for key in [*kfp_api.store.recurring]]
    waiting = apply(kfp, document(pipeline, AFTER[1]))
    assert [one.name for one in waiting] == ["changed", "gone"]
    assert schedules_of(kfp, pipeline) == [("changed", 1, False), ("changed", 2, True), ("gone", 0, False)]
    for run_id in run_ids:
        kfp_api.runs.become(run_id, "SUCCEEDED")
    assert apply(kfp, document(pipeline, AFTER[1])) == []
    assert schedules_of(kfp, pipeline) == [("changed", 2, True)]


def test_a_changed_schedule_counts_on_from_the_last_run_of_the_old_one(kfp, kfp_api, pipeline):
    apply(kfp, document(pipeline, BEFORE[1]))
    (old,) = kfp_api.store.recurring
    run_id = kfp_api.recurring.fire(old)
    kfp_api.runs.become(run_id, "SUCCEEDED")
    apply(kfp, document(pipeline, AFTER[1]))
    (new,) = kfp.client.list_recurring_runs().recurring_runs
    assert new.trigger.cron_schedule.start_time == kfp.client.get_run(run_id).scheduled_at


def test_a_pinned_version_stays_and_the_newest_is_whichever_there_is_then(kfp, pipeline, tmp_path):
    second = upload(kfp, read_package(write_package(tmp_path / "two.yaml", pipeline, "two")), keep=10)
    pinned = {"name": "pinned", "version": second.version}
    apply(kfp, document(pipeline, pinned, {"name": "moves"}))
    found = {one.display_name: one.pipeline_version_reference for one in listed(kfp)}
    assert found["pinned"].pipeline_version_id == second.version_id
    assert not found["moves"].pipeline_version_id
    with pytest.raises(BadInput, match=r"has no version 'v9' on the KFP server"):
        apply(kfp, document(pipeline, pinned | {"version": "v9"}))


def test_a_wrong_parameter_is_told_before_anything_is_changed(kfp, kfp_api, pipeline):
    kfp_api.requests.clear()
    for parameters, message in (
        ({"target": "y", "sed": 1}, "Schedule kept: the pipeline .* has no parameter 'sed': did you mean seed"),
        ({"target": "y", "seed": "1"}, "parameter seed takes a number integer, not '1'"),
        ({}, "parameter target has no default"),
    ):
        with pytest.raises(BadInput, match=message):
            apply(kfp, document(pipeline, BEFORE[2], {"name": "kept", "parameters": parameters}))
    assert {method for method, _ in kfp_api.requests} == {"GET"}


@pytest.mark.parametrize(("version", "multi_user"), [("2.5.0", False), ("2.17.0", True)])
def test_older_servers_and_those_of_many_users_are_served_alike(
    kfp_api, kfp_options, unique, tmp_path, version, multi_user
):
    token = tmp_path / "token"
    token.write_text("annas")
    kfp_api.store.version, kfp_api.store.multi_user = version, multi_user
    kfp_api.store.rights = {"anna": {"team-a"}}
    kfp_api.gate.tokens = {"annas": "anna"}
    namespace = "team-a" if multi_user else ""
    about = {"token_file": token, "namespace": namespace}
    with connect(kfp_options.model_copy(update=about)) as connection:
        upload(connection, read_package(write_package(tmp_path / "package.yaml", unique)), keep=10)
        apply(connection, document(unique, *BEFORE))
        apply(connection, document(unique, *AFTER))
        assert schedules_of(connection, unique) == DECLARED
        run, new = submit(connection, Request(unique, {"target": "y"}, key="ci-1"))
        assert (new, submit(connection, Request(unique, {"target": "y"}, key="ci-1"))) == (True, (run, False))
        assert (
            runs.listed(connection, 9, ["pending"], unique, "Default")
            == [run]
            == [runs.find(connection, run.run_id[:8])]
        )
        kfp_api.store.local.user = "anna"
        fired = kfp_api.recurring.fire(next(iter(kfp_api.store.recurring)))
        assert [one.run_id for one in runs.listed(connection, 9, schedule="kept")] == [fired]
        assert schedules_apply.overview(connection, unique)[1]["last_run"] == fired


def test_the_diff_says_what_apply_would_change_and_ends_with_3(kfp, kfp_api, pipeline, tmp_path, monkeypatch):
    def command(*words):
        return CliRunner().invoke(app, ["schedule", *words, str(path)], catch_exceptions=False)

    def declare(*about):
        declared = document(pipeline, *about).model_dump(mode="json", exclude_defaults=True)
        path.write_text(yaml.safe_dump(declared))

    path = tmp_path / "schedules.yaml"
    monkeypatch.setenv("SLUICEWAY_KFP_HOST", kfp_api.url)
    apply(kfp, document(pipeline, *BEFORE))
    declare(*AFTER)
    found = command("diff")
    assert found.exit_code == 3
    assert "changed: changed, next " in found.stdout
    assert "-parameters.seed: 1\n+parameters.seed: 2\n" in found.stdout
    assert "gone: no longer declared" in found.stdout
    assert "-paused: false\n+paused: true\n" in found.stdout
    assert "kept" not in found.stdout
    changes = json.loads(command("diff", "--json").stdout)["changes"]
    assert {one["name"]: one["change"] for one in changes} == {
        "changed": "replace",
        "gone": "delete",
        "new": "create",
        "rests": "pause",
    }
    applied = command("apply")
    assert (applied.exit_code, schedules_of(kfp, pipeline)) == (0, DECLARED)
    again = command("diff")
    assert (again.exit_code, again.stdout) == (0, "All schedules are as declared.\n")
    listed = json.loads(CliRunner().invoke(app, ["schedule", "list", "--json"]).stdout)["schedules"]
    assert [(one["name"], one["state"]) for one in listed] == [
        ("changed", "on"),
        ("kept", "on"),
        ("new", "on"),
        ("rests", "off"),
    ]
