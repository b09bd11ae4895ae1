"""Runs on a KFP server: started once, followed, run again, ended, whatever happens on the way."""

import json
import threading
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from components.errors import BadInput, Unreachable
from pipelines.cli import app
from pipelines.record import State
from pipelines.server import runs, watching
from pipelines.server.connection import connect
from pipelines.server.logs import Pods, told
from pipelines.server.submit import Request, submit
from pipelines.server.upload import read_package, upload
from tests.cluster.server import ApiServer
from tests.kfp_package import on_server, package, write_package

pytest_plugins = ["tests.kfp_api.fixtures"]

GIVEN = {"target": "y"}
_FAULTS = [
    ("answer", {"code": 503}),
    ("after", {"code": 502}),
    ("drop", {}),
    ("lose", {}),
    ("hang", {"seconds": 0.5}),
    ("answer", {"code": 429}),
]


@pytest.fixture(autouse=True)
def _commit(monkeypatch):
    monkeypatch.setenv("SLUICEWAY_GIT_COMMIT", "c0ffee")


@pytest.fixture
def pipeline(kfp, tmp_path, unique):
    """A pipeline on the server, by its name."""
    on_server(kfp, write_package(tmp_path / "package.yaml", unique))
    return unique


@pytest.fixture
def run_id(kfp, pipeline):
    """A run of it."""
    return submit(kfp, Request(pipeline, GIVEN))[0].run_id


@pytest.fixture(scope="module")
def cluster():
    with ApiServer() as server:
        yield server


def task(name, state="SUCCEEDED"):
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"display_name": name, "state": state, "start_time": time, "end_time": time}


def tasks(**steps):
    """A run's nodes as KFP tells of them: steps, and what it adds."""
    return [task("root"), task("resolve-driver"), task("executor"), *(task(*about) for about in steps.items())]


def say(cluster, run_id, path, *lines, phase="Succeeded"):
    """Have a pod of a run that has said something."""
    name = f"pod-{len(cluster.logs)}-{run_id[:8]}"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"pipeline/runid": run_id},
            "annotations": {"workflows.argoproj.io/node-name": f"wf-x.root.{path}"},
        },
        "spec": {"containers": [{"name": "main", "image": "example.com/x"}]},
    }
    from kubernetes.client import CoreV1Api

    api = CoreV1Api(cluster.client())
    api.create_namespaced_pod("default", pod)
    api.patch_namespaced_pod_status(name, "default", {"status": {"phase": phase}})
    cluster.logs[("default", name)] = "".join(f"{line}\n" for line in lines)
    return name


def event(kind, step, **fields):
    return json.dumps({"sluiceway": kind, "step": step, "time": 1.0, **fields})


def pods(cluster, run_id):
    from kubernetes.client import CoreV1Api

    return Pods(CoreV1Api(cluster.client()), "default", run_id)


def test_a_run_is_of_the_newest_uploaded_version_with_typed_parameters(kfp, pipeline, tmp_path):
    second = upload(kfp, read_package(write_package(tmp_path / "two.yaml", pipeline, "two")), keep=10)
    run, new = submit(
        kfp, Request(pipeline, {"target": "7", "seed": "7", "plan": '{"steps": [10]}'}, experiment=pipeline)
    )
    made = kfp.client.get_run(run.run_id)
    assert new
    assert made.pipeline_version_reference.pipeline_version_id == second.version_id
    assert made.runtime_config.parameters == {"target": "7", "seed": 7, "plan": {"steps": [10]}}
    assert kfp.client.get_experiment(made.experiment_id).display_name == pipeline
    assert runs.find(kfp, run.name) == runs.find(kfp, run.run_id) == runs.get(kfp, run.run_id)
    assert [one.run_id for one in runs.listed(kfp, 5, pipeline=pipeline)] == [run.run_id]


def test_a_package_is_run_without_being_uploaded_and_no_cache_reaches_steps_within_branches(kfp, tmp_path, unique):
    path = write_package(tmp_path / "package.yaml", unique)
    run, _ = submit(kfp, Request(str(path), GIVEN, cache=False))
    text = json.dumps(kfp.client.get_run(run.run_id).pipeline_spec)
    assert "executorLabel" in text
    assert "enableCache" not in text
    assert "enableCache" in path.read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [({"sed": "1"}, "did you mean seed"), ({"target": "y", "seed": "x"}, "takes a number integer"), ({}, "no default")],
)
def test_wrong_parameters_are_told_before_anything_is_sent(kfp, kfp_api, pipeline, given, message):
    with pytest.raises(BadInput, match=message):
        submit(kfp, Request(pipeline, given))
    assert not kfp_api.count("POST", "/runs")


@pytest.mark.parametrize(("how", "about"), _FAULTS)
def test_a_submission_that_fails_or_whose_answer_gets_lost_starts_one_run(kfp, kfp_api, pipeline, how, about):
    kfp_api.faults.add(how, method="POST", path="/runs$", **about)
    kfp_api.faults.add("answer", code=500, method="GET", path="/runs$")
    run, _ = submit(kfp, Request(pipeline, GIVEN))
    assert [*kfp_api.store.runs] == [run.run_id]


def test_the_same_key_is_the_same_run(kfp, pipeline):
    first, new = submit(kfp, Request(pipeline, GIVEN, key="ci-17"))
    again, second = submit(kfp, Request(pipeline, GIVEN, key="ci-17"))
    other, third = submit(kfp, Request(pipeline, GIVEN, key="ci-18"))
    assert (new, second, third) == (True, False, True)
    assert first.run_id == again.run_id != other.run_id


def test_of_two_that_submit_under_one_key_at_once_one_run_goes_on(kfp_options, kfp_api, pipeline):
    meet, found = threading.Barrier(2, timeout=10), []

    def both_have_looked(method, path):
        if method == "POST" and path.endswith("/runs"):
            meet.wait()

    def start():
        with connect(kfp_options.model_copy(update={"timeout_seconds": 5})) as connection:
            found.append(submit(connection, Request(pipeline, GIVEN, key="ci-17"))[0].run_id)

    kfp_api.before = both_have_looked
    threads = [threading.Thread(target=start) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(kfp_api.store.runs) == 2
    going_on = [key for key, one in kfp_api.store.runs.items() if one["state"] == "PENDING"]
    assert found == going_on * 2


@pytest.mark.parametrize(("how", "about"), _FAULTS[:4])
def test_a_retry_and_a_termination_are_carried_out_once(kfp, kfp_api, run_id, how, about):
    kfp_api.runs.become(run_id, "FAILED", "step evaluate failed")
    kfp_api.faults.add(how, method="POST", path=":retry", **about)
    assert runs.retry(kfp, runs.get(kfp, run_id))
    states = [one["state"] for one in kfp_api.store.runs[run_id]["state_history"]]
    assert states == ["PENDING", "FAILED", "RUNNING"]
    assert not runs.retry(kfp, runs.get(kfp, run_id))
    kfp_api.faults.add(how, method="POST", path=":terminate", **about)
    assert runs.terminate(kfp, runs.get(kfp, run_id))
    assert kfp_api.store.runs[run_id]["state"] == "CANCELING"
    assert not runs.terminate(kfp, runs.get(kfp, run_id))


def test_a_run_that_ends_by_itself_while_it_is_terminated_is_no_failure(kfp, kfp_api, run_id):
    run = runs.get(kfp, run_id)
    kfp_api.before = lambda method, _path: method == "POST" and kfp_api.runs.become(run_id, "SUCCEEDED")
    assert runs.terminate(kfp, run)
    with pytest.raises(BadInput, match="has succeeded: only one that failed or was ended can be retried"):
        runs.retry(kfp, runs.get(kfp, run_id))


def test_a_run_is_named_by_its_first_digits_or_its_name_where_that_is_clear(kfp, kfp_api, run_id, pipeline):
    assert runs.find(kfp, run_id[:8]).run_id == run_id
    twin = kfp_api.store.runs[run_id] | {"run_id": f"{run_id[:-1]}x"}
    kfp_api.store.runs[twin["run_id"]] = twin
    for named in (run_id[:8], twin["display_name"]):
        with pytest.raises(BadInput, match="names 2 runs, such as"):
            runs.find(kfp, named)
    with pytest.raises(BadInput, match="There is no run 'nightly' on the KFP server"):
        runs.find(kfp, "nightly")


def test_a_run_is_followed_through_its_steps_to_its_end(kfp, kfp_api, run_id):
    seen = []
    script = iter([("RUNNING", tasks(resolve="RUNNING")), ("RUNNING", tasks(resolve="SUCCEEDED", evaluate="RUNNING"))])

    def show(record):
        seen.append({name: step.state for name, step in record.steps.items()})
        state, reported = next(script, ("FAILED", tasks(resolve="SUCCEEDED", evaluate="FAILED")))
        kfp_api.runs.become(run_id, state, tasks=reported)

    kfp_api.faults.add("answer", code=503, path=f"/runs/{run_id}$", skip=1)
    assert watching.follow(kfp, run_id, show, every=0.01).state == "FAILED"
    assert seen == [
        {},
        {"resolve": State.RUNNING},
        {"resolve": State.DONE, "evaluate": State.RUNNING},
        {"resolve": State.DONE, "evaluate": State.FAILED},
    ]


def test_a_server_that_goes_away_while_a_run_is_followed_is_told_with_the_way_back(kfp_options, kfp_api, run_id):
    with connect(kfp_options.model_copy(update={"patience_seconds": 0.2})) as connection:
        kfp_api.faults.add("answer", code=503, path=f"/runs/{run_id}$", times=99)
        with pytest.raises(Unreachable, match=f"The run goes on: `sluiceway runs {run_id} --wait` follows it again"):
            watching.follow(connection, run_id, lambda _record: None, every=0.01)


@pytest.mark.parametrize(
    ("state", "steps", "said", "end"),
    [
        ("SUCCEEDED", {"evaluate": "SUCCEEDED"}, None, ("blocked", 3)),
        ("SUCCEEDED", {"rollout": "SUCCEEDED"}, {"event": "finished", "outcome": "promoted"}, ("promoted", 0)),
        ("SUCCEEDED", {"rollout": "SUCCEEDED"}, {"event": "finished", "outcome": "rolled_back"}, ("rolled_back", 4)),
        ("SUCCEEDED", {"rollout": "SUCCEEDED"}, None, ("unknown", 7)),
        ("FAILED", {"rollout": "FAILED"}, {"event": "failed", "exit_code": 5, "message": "busy"}, ("failed", 5)),
        ("FAILED", {"evaluate": "FAILED"}, None, ("failed", 1)),
        ("CANCELED", {"evaluate": "SUCCEEDED"}, None, ("terminated", 1)),
    ],
)
def test_the_exit_code_says_how_a_run_ended_as_sluiceway_run_does(cluster, unique, state, steps, said, end):
    nodes = tuple(runs.Task(name, how, None, None) for name, how in {"executor": "FAILED", **steps}.items())
    run = runs.Run(unique, "a run", state, datetime.now(UTC), None, "", "", "", "", nodes, 2, package("a"))
    if said:
        rollout = "exit-handler-1.condition-2.rollout.executor"
        say(cluster, unique, f"{rollout}(0)", event("failed", "rollout", message="shy"))
        about = {name: value for name, value in said.items() if name != "event"}
        say(cluster, unique, f"{rollout}(1)", event(said["event"], "rollout", **about))
    found = watching.ended(run, set(watching.step_names(None, run)), lambda: pods(cluster, unique))
    assert (found.state, found.exit_code) == end
    assert bool(found.said) == (end not in (("promoted", 0), ("rolled_back", 4)))


def test_logs_are_told_step_by_step_and_readably(cluster, run_id, kfp, kfp_api, monkeypatch, tmp_path):
    say(cluster, run_id, "exit-handler-1.resolve-driver", "chatter")
    say(
        cluster,
        run_id,
        "exit-handler-1.resolve.executor(0)",
        "I1124 19:36:12.123456 1 launcher.go:1] chatter",
        event("started", "resolve"),
        event("finished", "resolve", fact="7,043 rows", seconds=1.25),
    )
    say(cluster, run_id, "exit-handler-1.evaluate.executor(0)", "Traceback", event("failed", "evaluate", message="NaN"))
    assert [pod.step for pod in pods(cluster, run_id).all()] == ["resolve", "evaluate"]
    assert next(line for _, line in told(pods(cluster, run_id), "evaluate")) == "Traceback"
    with pytest.raises(BadInput, match="The step 'train' has no pod: those of the run are of resolve, evaluate"):
        list(told(pods(cluster, run_id), "train"))
    monkeypatch.setattr("pipelines.server.logs.pods_of", lambda run_id, *_: pods(cluster, run_id))
    shown = CliRunner().invoke(app, ["logs", run_id, "--host", kfp_api.url], catch_exceptions=False).stdout
    assert "chatter" not in shown
    assert "✓ 7,043 rows (1.2 s)" in shown
    assert "✗ NaN" in shown
    raw = CliRunner().invoke(app, ["logs", run_id, "--raw", "--host", kfp_api.url]).stdout
    assert "I1124 19:36:12" in raw


def test_logs_are_followed_until_the_run_has_ended(cluster, run_id):
    looks = iter([False, False, True])

    def ended():
        look = next(looks)
        if not look:
            say(cluster, run_id, "resolve.executor(0)", "one more")
        return look

    assert [line for _, line in told(pods(cluster, run_id), follow=ended, every=0)] == ["one more", "one more"]


def test_ctrl_c_leaves_the_run_going_and_says_how_to_follow_it(kfp_api, run_id, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "follow", interrupted)
    found = CliRunner().invoke(app, ["runs", run_id, "--wait", "--host", kfp_api.url])
    assert found.exit_code == 130
    assert f"The run goes on: `sluiceway runs {run_id} --wait` follows it again." in found.stdout
    assert kfp_api.store.runs[run_id]["state"] == "PENDING"


def test_what_a_script_gets_from_submit_and_runs(kfp_api, pipeline, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_KFP_HOST", kfp_api.url)
    monkeypatch.setenv("KUBECONFIG", "/nowhere")

    def command(*words):
        found = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
        return found.exit_code, json.loads(found.stdout)

    submitting = ("submit", pipeline, "--set", "target=y", "--key", "ci-17")
    _, first = command(*submitting)
    assert first["new"]
    assert first["link"] == f"{kfp_api.url}/#/runs/details/{first['run_id']}"
    kfp_api.runs.become(first["run_id"], "SUCCEEDED", tasks=tasks(resolve="SUCCEEDED", evaluate="SUCCEEDED"))
    code, waited = command(*submitting, "--wait")
    assert (code, waited["new"], waited["outcome"], waited["run_id"]) == (3, False, "blocked", first["run_id"])
    assert waited["steps"]["evaluate"]["state"] == "done"
    code, listed = command("runs", "--state", "succeeded")
    assert (code, [one["run_id"] for one in listed["runs"]]) == (0, [first["run_id"]])
    code, shown = command("runs", first["run_id"][:8])
    assert (code, shown["outcome"]) == (0, "blocked")
    assert CliRunner().invoke(app, ["retry", first["run_id"]]).exit_code == 1
    code, told = command("terminate", first["run_id"])
    assert (code, told["terminated"]) == (0, False)
