"""Whatever goes wrong ends in one clear sentence and the right exit code, with the last good model still serving."""

import html
import json
import re
import resource
import signal
import socket
import subprocess
import time

import psutil
import pytest
from sklearn.datasets import load_wine

from tests.e2e.road import CLI

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
MODEL = "wine"


@pytest.fixture(scope="module")
def live(road):
    """A champion that serves."""
    ended = road.run({"source_uri": "sklearn://wine", "trainer": "linear"})
    assert ended.code == 0, ended.err
    return road


@pytest.fixture
def still_serving(live):
    """Checks after the test that the champion is what it was."""
    yield live
    row = load_wine(as_frame=True).data.iloc[0].to_dict()
    assert live.answers(MODEL, row) == 200
    (service,) = [s for s in live.status() if s["name"] == MODEL]
    assert service["model_version"] == live.champion(MODEL) == "1"
    assert [entry["percent"] for entry in service["traffic"] if entry["percent"]] == [100]


def failed(ended, *words):
    """The run failed with one sentence that says all the words."""
    assert ended.code == 1, ended.err
    result = ended.result
    assert (result["state"], result["exit_code"]) == ("failed", 1)
    sentence = result["error"]
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence
    assert sentence in ended.err


HEADER = "a,b,target\n"
ROWS = "".join(f"{i},{i % 7},{i % 2}\n" for i in range(200))


# What is wrong before the data, in it, and beside it; what each step refuses is in the tests of the step.
@pytest.mark.parametrize(
    ("content", "parameters", "words"),
    [
        (None, {}, ("data.csv",)),
        ((HEADER + ROWS).encode(), {"target": "Target_"}, ("Target_", "target")),
        ((HEADER + ROWS).encode(), {"trainer": "xgboost"}, ("xgboost", "linear")),
    ],
    ids=[
        "no such file",
        "no such target",
        "unknown trainer",
    ],
)
def test_bad_data_and_parameters(still_serving, tmp_path, content, parameters, words):
    path = tmp_path / "data.csv"
    if content is not None:
        path.write_bytes(content)
    # Data of its own must not be held against the wine contract; the service of that name is another one.
    given = {"source_uri": str(path), "model_name": f"bad-{time.time_ns() % 10**9}", **parameters}
    failed(still_serving.run(given), *words)


def test_the_curl_line_of_the_report_works_as_it_stands(live):
    report = min((live.home / "runs").glob("*/report.html"))  # of the run that deployed the champion
    line = html.unescape(re.search(r"<pre>(curl .*?)</pre>", report.read_text(), re.DOTALL)[1])
    answer = json.loads(subprocess.run(line, shell=True, capture_output=True, check=True, text=True).stdout)
    (prediction,) = answer["predictions"]
    assert prediction["label"] in ("class_0", "class_1", "class_2")
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)


def test_mlflow_unreachable(still_serving):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"  # bound but not listening: refused
        ended = still_serving.run({"source_uri": "sklearn://wine"}, MLFLOW_TRACKING_URI=uri)
    failed(ended, "MLflow", uri)


def test_a_server_that_never_becomes_ready(still_serving):
    given = {"source_uri": "sklearn://wine", "server_env": '{"PYTHONHOME": "/nowhere"}'}
    failed(still_serving.run(given), "stage", "ready")
    assert len(still_serving.versions(MODEL)) == 2  # registered, but it never became champion


def test_a_port_already_taken(still_serving):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        given = {"source_uri": "sklearn://wine", "model_name": "another"}
        ended = still_serving.run(given, SLUICEWAY_PORT=port)
    failed(ended, port)


def test_a_disk_that_fills(still_serving):
    arguments = still_serving.arguments({"source_uri": "sklearn://digits"})
    ended = subprocess.run(
        [*CLI, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=still_serving.environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY)),
    )
    assert ended.returncode == 1
    assert "No space left" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_two_runs_at_once(still_serving):
    first = still_serving.start({"source_uri": "sklearn://wine", "trainer": "linear"})
    lock, deadline = still_serving.home / "locks" / f"{MODEL}.run", time.monotonic() + 30
    while f"process {first.pid}," not in lock.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    second = still_serving.run({"source_uri": "sklearn://wine"})
    assert second.code == 5, second.err
    assert "Another run is at work on service wine" in second.err
    assert first.wait(timeout=120) == 0


def test_a_plain_mistake_on_the_command_line(live):
    unknown = live.run({"sauce_uri": "x"})
    assert unknown.code == 1
    assert "did you mean source_uri" in unknown.err
    assert live.command("run", "train").code == 1
    assert live.command("run", "train-and-deploy", "--set", "x").code == 2


def test_a_dead_supervisor_is_seen_and_repaired(still_serving):
    (pid,) = {p.pid for p in still_serving.processes() if "serving.local" in p.cmdline() and MODEL in p.cmdline()[-1]}
    before = next(s for s in still_serving.status() if s["name"] == MODEL)
    psutil.Process(pid).kill()
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=5)
    seen = still_serving.command("status", "--json")
    assert seen.code == 1
    assert next(s for s in json.loads(seen.out)["services"] if s["name"] == MODEL)["state"] == "dead"
    repaired = still_serving.command("status", "--repair", "--json")
    after = next(s for s in json.loads(repaired.out)["services"] if s["name"] == MODEL)
    assert (after["state"], after["url"]) == ("ready", before["url"])


def test_an_interrupted_run_ends_at_once_and_leaves_the_champion(still_serving):
    given = {"source_uri": "sklearn://wine", "hyperparameters": '{"max_iter": 30}', "plan": '{"min_requests": 100000}'}
    process = still_serving.start(given)
    deadline = time.monotonic() + 100
    while "10 % to the challenger" not in newest_log(still_serving) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(timeout=30) not in (0, 3, 4)
    finally:
        process.kill()
    assert not still_serving.steps_alive()


def newest_log(road):
    return max((road.home / "runs").glob("*/kfp.log"), key=lambda log: log.stat().st_mtime).read_text()
