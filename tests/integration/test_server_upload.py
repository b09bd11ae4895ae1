"""Uploads to a KFP server: one version for each package, whatever happens on the way."""

import json
import os
import threading
import time

import pytest
from typer.testing import CliRunner

from components.errors import BadInput, Refused, Unreachable
from pipelines.cli import app
from pipelines.server.connection import connect
from pipelines.server.upload import read_package, upload

pytest_plugins = ["tests.kfp_api.fixtures"]

COMMIT = "c0ffee" * 6 + "beef"
_VERSION = "/upload_version"


@pytest.fixture(autouse=True)
def _commit(monkeypatch):
    monkeypatch.setenv("SLUICEWAY_GIT_COMMIT", COMMIT)


@pytest.fixture
def packages(tmp_path, unique):
    """Packages of one pipeline, each with other content."""

    def make(content: str = "one", commit: str = COMMIT):
        path = tmp_path / f"{content}.yaml"
        path.write_text(
            f"pipelineInfo: {{name: {unique}, description: Trains.}}\n"
            f"components: {{comp-a: {{executorLabel: exec-a}}}}\n"
            f"deploymentSpec: {{executors: {{exec-a: {{container: {{image: 'example.com/{content}'}}}}}}}}\n"
            "root: {dag: {tasks: {a: {componentRef: {name: comp-a}, taskInfo: {name: a}}}}}\n"
            "schemaVersion: 2.1.0\nsdkVersion: kfp-2.17.0\n"
        )
        os.environ["SLUICEWAY_GIT_COMMIT"] = commit
        return read_package(path)

    return make


def versions(connection, name):
    """Names of a pipeline's versions, oldest first."""
    pipeline = connection.client.get_pipeline_id(name)
    found = connection.client.list_pipeline_versions(pipeline, page_size=100, sort_by="created_at").pipeline_versions
    return [one.display_name for one in found or []]


def test_an_upload_makes_the_pipeline_and_a_version_named_by_commit_and_digest(kfp, packages, unique):
    package = packages()
    done = upload(kfp, package, keep=10)
    assert done.state == "new"
    assert versions(kfp, unique) == [f"c0ffeec0ffee-{package.digest[:12]}"]
    made = kfp.client.get_pipeline_version(done.pipeline_id, done.version_id)
    assert made.description == f"commit {COMMIT}, package sha256:{package.digest}, by sluiceway"
    assert made.pipeline_spec["pipelineInfo"]["name"] == unique
    assert kfp.client.get_pipeline(done.pipeline_id).description == "Trains."
    assert done.link == f"{kfp.ui}/#/pipelines/details/{done.pipeline_id}/version/{done.version_id}"


def test_the_same_package_makes_no_second_version_even_from_another_commit(kfp, packages, unique):
    first = upload(kfp, packages(), keep=10)
    again = upload(kfp, packages(commit="d" * 40), keep=10)
    assert (again.state, again.version_id, again.version) == ("there", first.version_id, first.version)
    other = upload(kfp, packages("two"), keep=10)
    assert versions(kfp, unique) == [first.version, other.version]


def test_a_dry_run_changes_nothing(kfp, packages, unique):
    assert upload(kfp, packages(), keep=0, dry_run=True).state == "new"
    assert kfp.client.get_pipeline_id(unique) is None
    first = upload(kfp, packages(), keep=0)
    done = upload(kfp, packages("two"), keep=0, dry_run=True)
    assert (done.state, done.deleted) == ("new", [first.version])
    assert versions(kfp, unique) == [first.version]


@pytest.mark.parametrize(
    ("path", "how", "about"),
    [
        (_VERSION, "answer", {"code": 503}),
        (_VERSION, "after", {"code": 502}),
        (_VERSION, "drop", {}),
        (_VERSION, "lose", {}),
        (_VERSION, "hang", {"seconds": 0.5}),
        (_VERSION, "slow", {"seconds": 0.5}),
        (_VERSION, "answer", {"code": 429}),
        ("/pipelines", "answer", {"code": 500}),
        ("/pipelines", "lose", {}),
        ("/pipelines", "slow", {"seconds": 0.5}),
    ],
)
def test_an_attempt_that_fails_or_whose_answer_is_lost_makes_no_duplicate(
    kfp, kfp_api, packages, unique, path, how, about
):
    fault = kfp_api.faults.add(how, method="POST", path=f"{path}$", **about)
    done = upload(kfp, packages(), keep=10)
    assert fault.happened == 1
    assert versions(kfp, unique) == [done.version]
    assert len(kfp_api.store.pipelines) == 1


def test_looks_that_fail_are_repeated(kfp, kfp_api, packages, unique):
    for path in ("/pipelines", "/versions"):
        kfp_api.faults.add("answer", code=500, method="GET", path=f"{path}$", times=1)
        kfp_api.faults.add("drop", method="GET", path=f"{path}$")
    done = upload(kfp, packages(), keep=10)
    assert versions(kfp, unique) == [done.version]


def test_an_old_server_that_calls_a_taken_name_its_own_failure_gets_no_second_version(
    kfp_api, kfp_options, packages, unique
):
    kfp_api.store.version = "2.5.0"
    kfp_api.faults.add("lose", path=_VERSION)
    with connect(kfp_options) as kfp:
        done = upload(kfp, packages(), keep=10)
        assert versions(kfp, unique) == [done.version]
        assert upload(kfp, packages(commit="d" * 40), keep=10).state == "there"


def test_an_upload_that_was_cut_off_between_pipeline_and_version_is_finished_by_the_next(
    kfp_api, kfp_options, packages, unique
):
    kfp_api.faults.add("answer", code=503, path=_VERSION, times=100)
    with connect(kfp_options.model_copy(update={"patience_seconds": 0.2})) as hasty, pytest.raises(Unreachable):
        upload(hasty, packages(), keep=10)
    assert (len(kfp_api.store.pipelines), len(kfp_api.store.versions)) == (1, 0)
    kfp_api.faults.clear()
    with connect(kfp_options) as kfp:
        done = upload(kfp, packages(), keep=10)
        assert versions(kfp, unique) == [done.version]
    assert len(kfp_api.store.pipelines) == 1


@pytest.mark.parametrize("path", [_VERSION, "/pipelines"])
def test_a_token_that_expires_in_the_middle_is_read_anew(kfp_api, kfp_options, packages, unique, tmp_path, path):
    token = tmp_path / "token"
    token.write_text("first")
    kfp_api.gate.tokens = {"first": "anna"}

    def expire(method, where):
        if (method, where.endswith(path)) == ("POST", True) and "first" in kfp_api.gate.tokens:
            token.write_text("second")
            kfp_api.gate.tokens = {"second": "anna"}

    kfp_api.before = expire
    with connect(kfp_options.model_copy(update={"token_file": token})) as kfp:
        done = upload(kfp, packages(), keep=10)
        assert versions(kfp, unique) == [done.version]


@pytest.mark.parametrize("commits", [(COMMIT, COMMIT), (COMMIT, "d" * 40)], ids=["same commit", "two commits"])
@pytest.mark.parametrize("tick", [1.0, 0.0], ids=["a second apart", "in one second"])
def test_two_uploads_at_once_end_with_one_version(kfp_api, kfp_options, packages, unique, commits, tick, monkeypatch):
    monkeypatch.setattr("pipelines.server.upload.SETTLES_WITHIN", 0.3)
    kfp_api.store.tick, kfp_api.store.clock = tick, time.time()
    meeting = threading.Barrier(2, timeout=5)
    met: set[int] = set()

    def meet(method, path):
        if method == "POST" and path.endswith(_VERSION) and threading.get_ident() not in met:
            met.add(threading.get_ident())
            if len(met) <= 2:
                meeting.wait()

    kfp_api.before = meet
    prepared = [packages(commit=commit) for commit in commits]
    done = []

    def work(package):
        with connect(kfp_options) as kfp:
            done.append(upload(kfp, package, keep=10))

    threads = [threading.Thread(target=work, args=(one,)) for one in prepared]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (left,) = kfp_api.store.versions
    assert [one.version_id for one in done] == [left, left]
    assert len(kfp_api.store.pipelines) == 1


def test_a_third_upload_reports_no_version_that_one_of_two_others_takes_back(
    kfp_api, kfp_options, packages, unique, monkeypatch
):
    monkeypatch.setattr("pipelines.server.upload.SETTLES_WITHIN", 0.3)
    with connect(kfp_options) as kfp:
        upload(kfp, packages("before"), keep=10)
    kfp_api.store.tick, kfp_api.store.clock = 0.0, time.time()  # all in one second, which is this one
    looked, made, third_is_done = threading.Barrier(2, timeout=5), threading.Barrier(3, timeout=5), threading.Event()
    client = threading.local()

    def meet(_method, path):
        if path.endswith(_VERSION) and not third_is_done.is_set():
            client.makes = True
            looked.wait()
        elif path.endswith("/versions") and getattr(client, "makes", False):
            client.makes = False
            made.wait()  # both are on the server, and neither has seen the other
            third_is_done.wait(5)

    kfp_api.before = meet
    prepared = [packages(commit=digit * 40) for digit in "abc"]
    done = {}

    def work(package):
        with connect(kfp_options.model_copy(update={"timeout_seconds": 10.0})) as kfp:
            done[package.commit] = upload(kfp, package, keep=10).version_id

    threads = [threading.Thread(target=work, args=(one,)) for one in prepared[:2]]
    for thread in threads:
        thread.start()
    made.wait()
    work(prepared[2])
    third_is_done.set()
    for thread in threads:
        thread.join()
    left = {key for key, one in kfp_api.store.versions.items() if "example.com/one" in str(one["pipeline_spec"])}
    assert set(done.values()) == left
    assert len(left) == 1


def test_a_version_that_comes_in_the_same_second_and_sorts_before_is_waited_for(
    kfp_api, kfp_options, packages, unique, monkeypatch
):
    monkeypatch.setattr("pipelines.server.upload.SETTLES_WITHIN", 1.0)
    ids = iter(f"{digit}0000000-0000-4000-8000-000000000000" for digit in "fedcba")
    monkeypatch.setattr(kfp_api.store, "new_id", lambda: next(ids))
    with connect(kfp_options) as kfp:
        before = upload(kfp, packages("before"), keep=10)
    kfp_api.store.tick, kfp_api.store.clock = 0.0, time.time()
    late_has_looked, early_has_looked = threading.Event(), threading.Event()
    client = threading.local()

    def meet(_method, path):
        if path.endswith(_VERSION) and not late_has_looked.is_set():
            late_has_looked.set()
            early_has_looked.wait(5)
        elif path.endswith(_VERSION):
            client.made = True
        elif path.endswith("/versions") and getattr(client, "made", False):
            threading.Timer(0.05, early_has_looked.set).start()

    kfp_api.before = meet
    late, early = (packages(commit=digit * 40) for digit in "ab")
    done = {}

    def work(package):
        with connect(kfp_options.model_copy(update={"timeout_seconds": 10.0})) as kfp:
            done[package.commit] = upload(kfp, package, keep=10).version_id

    thread = threading.Thread(target=work, args=(late,))
    thread.start()
    assert late_has_looked.wait(5)
    work(early)
    thread.join()
    assert {before.version_id, *done.values()} == set(kfp_api.store.versions)
    assert len(set(done.values())) == 1


def test_the_newest_old_versions_stay_and_those_that_are_in_use_or_not_ours(kfp, kfp_api, packages, unique):
    made = [upload(kfp, packages(f"v{number}"), keep=10) for number in range(7)]
    client, pipeline = kfp.client, made[0].pipeline_id
    foreign = client.pipeline_uploads.upload_pipeline_version(
        str(packages("v0").path), name="by-hand", pipelineid=pipeline
    )
    experiment = client.create_experiment(unique).experiment_id
    client.create_recurring_run(
        experiment, "nightly", cron_expression="0 0 2 * * *", enabled=False, pipeline_id=pipeline,
        version_id=made[0].version_id,
    )  # fmt: skip
    client.run_pipeline(experiment, "long", pipeline_id=pipeline, version_id=made[1].version_id)
    ended = client.run_pipeline(experiment, "ended", pipeline_id=pipeline, version_id=made[2].version_id)
    kfp_api.runs.become(ended.run_id, "SUCCEEDED")
    lost = kfp_api.faults.add("lose", method="DELETE")
    done = upload(kfp, packages("v7"), keep=2)
    assert lost.happened == 1
    assert sorted(done.deleted) == sorted(made[number].version for number in (2, 3, 4))
    assert set(versions(kfp, unique)) == {
        made[0].version, made[1].version, made[5].version, made[6].version, done.version, foreign.display_name,
    }  # fmt: skip
    assert any("recurring run nightly" in note for note in done.notes)
    assert any("run long" in note for note in done.notes)


def test_a_version_that_was_made_long_ago_is_found_behind_many_others(kfp, kfp_api, packages, unique):
    first = upload(kfp, packages("first"), keep=100)
    for number in range(25):
        kfp.client.pipeline_uploads.upload_pipeline_version(
            str(packages("first").path), name=f"by-hand-{number}", pipelineid=first.pipeline_id
        )
    upload(kfp, packages("second"), keep=100)
    assert upload(kfp, packages("first", commit="d" * 40), keep=0).version_id == first.version_id
    assert len(kfp_api.store.versions) == 26  # the second was old and over the limit


def test_a_shared_pipeline_is_for_every_namespace_and_its_old_versions_stay(kfp_api, kfp_options, packages):
    kfp_api.store.multi_user = True
    kfp_api.gate.tokens = {"t": "anna"}
    kfp_api.store.rights = {"anna": {"team-a"}}
    token = packages().path.with_name("token")
    token.write_text("t")
    options = kfp_options.model_copy(update={"namespace": "team-a", "token_file": token})
    with connect(options) as kfp:
        own = upload(kfp, packages(), keep=10)
    with connect(options.model_copy(update={"shared": True})) as kfp:
        shared = upload(kfp, packages(), keep=0)
        newer = upload(kfp, packages("two"), keep=0)
    namespaces = [(key, one["namespace"]) for key, one in kfp_api.store.pipelines.items()]
    assert namespaces == [(own.pipeline_id, "team-a"), (shared.pipeline_id, "")]
    assert newer.deleted == []
    assert "all namespaces may use a shared pipeline" in newer.notes[0]
    with (
        connect(options.model_copy(update={"namespace": "team-b"})) as kfp,
        pytest.raises(Refused, match=r"forbids .*anna"),
    ):
        upload(kfp, packages(), keep=10)


def test_what_is_no_package_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 1\n")
    with pytest.raises(BadInput, match=r"x\.yaml is no compiled pipeline.*sluiceway compile"):
        read_package(tmp_path / "x.yaml")
    with pytest.raises(BadInput, match=r"Cannot read the package .*none\.yaml"):
        read_package(tmp_path / "none.yaml")


def test_the_command_uploads_and_says_so_in_json(kfp_server, packages, kfp):
    path = str(packages().path)
    first = CliRunner().invoke(app, ["upload", path, "--host", kfp_server, "--json"])
    assert first.exit_code == 0, first.output
    (done,) = json.loads(first.stdout.splitlines()[-1])["uploads"]
    assert done["state"] == "new"
    assert done["link"].endswith(f"/version/{done['version_id']}")
    again = CliRunner().invoke(app, ["upload", path, "--host", kfp_server])
    assert again.exit_code == 0
    assert "there already" in again.stdout
    assert done["link"] in again.stdout


def test_the_command_compiles_what_is_named_and_takes_the_host_from_the_environment(kfp_api, packages, monkeypatch):
    package = packages()
    compiled = []

    def compile_package(name, path):
        compiled.append(name)
        path.write_bytes(package.path.read_bytes())

    monkeypatch.setattr("pipelines.packages.compile_package", compile_package)
    monkeypatch.setenv("SLUICEWAY_KFP_HOST", kfp_api.url)
    done = CliRunner().invoke(app, ["upload", "train-and-deploy", "--json"])
    assert (done.exit_code, compiled) == (0, ["train-and-deploy"])
    (version,) = kfp_api.store.versions.values()
    assert version["name"] == package.version


def test_a_pipeline_that_is_not_there_is_named(kfp_api):
    done = CliRunner().invoke(app, ["upload", "no-such", "--host", kfp_api.url])
    assert done.exit_code == 1
    assert "There is no pipeline 'no-such'" in done.stderr
