"""The InferenceService on one machine: real servers, real Envoy, real signals."""

import contextlib
import http.client
import json
import math
import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from components.errors import BadInput, NotReady
from serving.local import client, metrics
from tests.serving_bundle import write_bundle

ROW = {
    "mean_radius": 14.2,
    "mean_texture": None,
    "mean_smoothness": 0.1,
    "mean_concavity": 0.08,
    "size": "large",
    "rough": True,
}
BODY = {"instances": [ROW]}
CRD = Path(__file__).resolve().parents[3] / "shared" / "schemas" / "serving.kserve.io_inferenceservices.yaml"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two bundles that differ in their predictions, and one that is broken."""
    folder = tmp_path_factory.mktemp("bundles")
    for seed, name in enumerate(("a", "b", "broken")):
        write_bundle(folder / name, seed=seed * 20)
    (folder / "broken" / "MLmodel").write_text("altered")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("home")
    yield path
    client.stop(path)


def document(bundle, percent=None, name="churn", port=None, env=None):
    model = {"modelFormat": {"name": "mlflow"}, "storageUri": bundle.as_uri()}
    if env:
        model["env"] = [{"name": key, "value": value} for key, value in env.items()]
    predictor = {"model": model} if percent is None else {"model": model, "canaryTrafficPercent": percent}
    metadata = {"name": name} if port is None else {"name": name, "annotations": {"sluiceway.dev/port": str(port)}}
    spec = {"predictor": predictor}
    kind = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    return {**kind, "metadata": metadata, "spec": spec}


def apply(home, *arguments, **options):
    wanted = document(*arguments, **options)
    return client.wait(home, wanted["metadata"]["name"], client.apply(home, wanted), 30)


def predictor(found):
    return found["status"]["components"]["predictor"]


def percents(found):
    return {entry["revisionName"]: entry["percent"] for entry in predictor(found)["traffic"]}


def ready(found):
    return next(c for c in found["status"]["conditions"] if c["type"] == "Ready")


def server_of(found, revision):
    return next(s for s in found["status"]["local"]["servers"] if s["revision"] == revision)


def eventually(check, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return result


class Load:
    """Clients that send requests until told to stop; counts status codes and revisions."""

    def __init__(self, url, name="churn", clients=4):
        self.codes, self.revisions, self._stop = Counter(), Counter(), threading.Event()
        self._host, self._path = url.removeprefix("http://"), f"/v1/models/{name}:predict"
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def _send(self):
        connection = http.client.HTTPConnection(self._host, timeout=20)
        while not self._stop.is_set():
            try:
                connection.request("POST", self._path, json.dumps(BODY), {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.codes[type(error).__name__] += 1
                connection.close()
                continue
            self.codes[answer.status] += 1
            self.revisions[answer.getheader("x-sluiceway-revision")] += 1
        connection.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count):
        """Wait for that many more requests; gives the revisions that answered them."""
        before = self.revisions.copy()
        goal = sum(before.values()) + count
        eventually(lambda: sum(self.revisions.values()) >= goal, 30)
        return self.revisions - before


def test_a_canary_is_dark_then_walks_to_all_traffic_while_no_request_fails(home, bundles):
    first = apply(home, bundles / "a", 10, name="walk")  # the first has nothing beside it
    one, two = "walk-predictor-00001", "walk-predictor-00002"
    assert percents(first) == {one: 100}
    assert predictor(first)["latestRolledoutRevision"] == one

    with Load(first["status"]["url"], "walk") as load:
        dark = apply(home, bundles / "b", 0, name="walk")
        assert percents(dark) == {one: 100, two: 0}
        latest = next(entry for entry in predictor(dark)["traffic"] if entry["latestRevision"])
        assert latest["tag"] == "latest"
        own = httpx.post(f"{latest['url']}/v1/models/walk:predict", json=BODY).json()
        assert own != httpx.post(f"{server_of(dark, one)['url']}/v1/models/walk:predict", json=BODY).json()
        assert set(load.more(50)) == {one}

        for percent in (10, 50):
            split = apply(home, bundles / "b", percent, name="walk")
            assert percents(split) == {one: 100 - percent, two: percent}
            load.more(10)  # those in flight when the weights changed
            seen = load.more(400)
            share, deviation = percent / 100, math.sqrt(percent / 100 * (1 - percent / 100) / seen.total())
            assert abs(seen[two] / seen.total() - share) < 3.3 * deviation
            assert predictor(split)["latestRolledoutRevision"] == one

        promoted = apply(home, bundles / "b", name="walk")
        assert percents(promoted) == {two: 100}
        assert predictor(promoted)["latestRolledoutRevision"] == two
        assert predictor(promoted)["previousRolledoutRevision"] == one
        old = server_of(promoted, one)["pid"]
        eventually(lambda: not psutil.pid_exists(old))
        load.more(10)
        assert set(load.more(50)) == {two}
    assert set(load.codes) == {200}, load.codes
    assert [s["revision"] for s in client.read(home, "walk")["status"]["local"]["servers"]] == [two]
    client.stop(home, "walk")


def test_slow_requests_in_flight_are_finished_when_their_revision_is_promoted_away(home, bundles):
    slow = apply(home, bundles / "a", name="slow", env={"SLUICEWAY_FAULTS": "delay_ms=400"})
    old = predictor(slow)["latestRolledoutRevision"]
    with Load(slow["status"]["url"], "slow", clients=8) as load:
        load.more(8)
        promoted = apply(home, bundles / "b", name="slow")
        eventually(lambda: not psutil.pid_exists(server_of(promoted, old)["pid"]))
    assert set(load.codes) == {200}, load.codes
    assert set(load.revisions) == {old, predictor(promoted)["latestRolledoutRevision"]}
    client.stop(home, "slow")


@pytest.fixture
def churn(home, bundles):
    """A service with one revision in force; each test leaves whatever it leaves."""
    return apply(home, bundles / "a")


def test_the_status_has_the_shape_of_kserve_s(churn, home, bundles):
    if not CRD.exists():
        pytest.skip(f"no schema at {CRD}")
    crd = yaml.load(CRD.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    version = next(v for v in crd["spec"]["versions"] if v["name"] == "v1beta1")
    schema = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    found = apply(home, bundles / "b", 20)
    apply(home, bundles / "a")
    status = {key: value for key, value in found["status"].items() if key != "local"}
    assert complaints(status, schema, "status") == []


def complaints(value, schema, where):
    """What does not fit a structural schema: unknown fields, types, enums, missing fields."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if schema.get("x-kubernetes-preserve-unknown-fields") or "type" not in schema:
        return []
    if not isinstance(value, kinds[schema["type"]]):
        return [f"{where} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: {value!r} is none of {schema['enum']}"]
    said = [f"{where}.{name} is missing" for name in schema.get("required", []) if name not in value]
    if isinstance(value, list):
        return said + [c for i, item in enumerate(value) for c in complaints(item, schema["items"], f"{where}[{i}]")]
    if isinstance(value, dict):
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            said += complaints(item, inner, f"{where}.{name}") if inner else [f"{where}.{name} is unknown"]
    return said


def test_applying_the_same_again_changes_nothing(churn, home, bundles):
    pids = [server["pid"] for server in churn["status"]["local"]["servers"]]
    assert client.apply(home, document(bundles / "a")) == churn["metadata"]["generation"]
    again = client.read(home, "churn")
    assert [server["pid"] for server in again["status"]["local"]["servers"]] == pids
    assert client.names(home) == sorted({"churn", *client.names(home)})


def test_a_rolled_back_canary_is_gone_and_the_old_server_was_never_touched(churn, home, bundles):
    stable = predictor(churn)["latestRolledoutRevision"]
    staged = apply(home, bundles / "b", 50)
    canary = predictor(staged)["latestCreatedRevision"]
    back = apply(home, bundles / "a")
    assert percents(back) == {stable: 100}
    assert server_of(back, stable)["pid"] == server_of(churn, stable)["pid"]
    eventually(lambda: not psutil.pid_exists(server_of(staged, canary)["pid"]))
    assert apply(home, bundles / "a", 10)["status"]["conditions"][0]["status"] == "True"


def test_a_revision_that_fails_leaves_the_old_one_serving_and_says_why_at_once(churn, home, bundles):
    stable = predictor(churn)["latestRolledoutRevision"]
    generation = client.apply(home, document(bundles / "broken", 10))
    began = time.monotonic()
    with pytest.raises(NotReady, match=r"exited with code 1: BadBundle: .*MLmodel is altered"):
        client.wait(home, "churn", generation, 30)
    assert time.monotonic() - began < 20  # of the 30 that it may take
    found = client.read(home, "churn")
    assert percents(found) == {stable: 100}
    assert (ready(found)["status"], ready(found)["reason"]) == ("False", "RevisionFailed")
    assert found["status"]["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad"
    answer = httpx.post(f"{found['status']['url']}/v1/models/churn:predict", json=BODY)
    assert (answer.status_code, answer.headers["x-sluiceway-revision"]) == (200, stable)
    assert ready(apply(home, bundles / "a"))["status"] == "True"


def test_a_revision_that_takes_too_long_is_not_ready_in_time(churn, home, bundles):
    generation = client.apply(home, document(bundles / "b", 0))
    with pytest.raises(NotReady, match=r"not ready after 0\.2 s: The server of .* is not ready yet"):
        client.wait(home, "churn", generation, 0.2)
    apply(home, bundles / "a")


def test_a_killed_server_is_started_again_and_its_failures_are_counted(churn, home):
    stable = server_of(churn, predictor(churn)["latestRolledoutRevision"])
    before = metrics.revision_stats(churn)[stable["revision"]]
    os.kill(stable["pid"], signal.SIGKILL)
    url = f"{churn['status']['url']}/v1/models/churn:predict"
    eventually(lambda: httpx.post(url, json=BODY).status_code == 503)
    restarts = stable["restarts"] + 1
    eventually(lambda: server_of(client.read(home, "churn"), stable["revision"])["restarts"] == restarts)
    eventually(lambda: ready(client.read(home, "churn"))["status"] == "True")
    again = client.read(home, "churn")
    assert httpx.post(url, json=BODY).status_code == 200
    after = metrics.revision_stats(again)[stable["revision"]]
    assert after.errors - before.errors >= 1
    assert after.requests > before.requests


def test_a_killed_supervisor_leaves_no_orphan_and_is_repaired_on_the_same_port(churn, home):
    local = churn["status"]["local"]
    pids = [local["supervisor"]["pid"], local["envoy"]["pid"], *(server["pid"] for server in local["servers"])]
    os.kill(local["supervisor"]["pid"], signal.SIGKILL)
    eventually(lambda: not any(running(pid) for pid in pids), 3)
    assert not client.alive(home, "churn")
    assert ready(client.read(home, "churn"))["reason"] == "SupervisorGone"
    with pytest.raises(NotReady, match="supervisor of churn is not running"):
        client.wait(home, "churn", 1, 5)

    client.repair(home, "churn")
    again = client.wait(home, "churn", churn["metadata"]["generation"], 30)
    assert again["status"]["url"] == churn["status"]["url"]
    assert percents(again) == percents(churn)
    assert httpx.post(f"{again['status']['url']}/v1/models/churn:predict", json=BODY).status_code == 200


def test_a_killed_envoy_comes_back_on_the_same_port_with_the_same_split(churn, home, bundles):
    split = apply(home, bundles / "b", 30)
    os.kill(split["status"]["local"]["envoy"]["pid"], signal.SIGKILL)
    eventually(lambda: ready(client.read(home, "churn"))["status"] != "True")
    eventually(lambda: ready(client.read(home, "churn"))["status"] == "True")
    again = client.read(home, "churn")
    assert (again["status"]["url"], percents(again)) == (split["status"]["url"], percents(split))
    assert httpx.post(f"{again['status']['url']}/v1/models/churn:predict", json=BODY).status_code == 200
    apply(home, bundles / "a")


def running(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_envoy_and_the_servers_count_what_the_judge_needs(churn, home):
    revision = predictor(churn)["latestRolledoutRevision"]
    time.sleep(1.2)  # Envoy merges histograms every half second
    before, shown = metrics.revision_stats(churn)[revision], metrics.prediction_counts(churn)[revision]
    for _ in range(20):
        httpx.post(f"{churn['status']['url']}/v1/models/churn:predict", json=BODY)
    time.sleep(1.2)
    after, predicted = metrics.revision_stats(churn)[revision], metrics.prediction_counts(churn)[revision]
    assert after.requests - before.requests == 20
    assert after.errors == before.errors
    assert list(after.latency_ms) == sorted(after.latency_ms)
    assert after.latency_ms[math.inf] - before.latency_ms.get(math.inf, 0) == 20
    assert list(predicted) == ["0.25", "0.5", "0.75", "+Inf"]
    assert sum(predicted.values()) - sum(shown.values()) == 20


def test_injected_errors_are_counted_against_the_revision_that_has_them(churn, home, bundles):
    stable = predictor(churn)["latestRolledoutRevision"]
    found = apply(home, bundles / "b", 50, env={"SLUICEWAY_FAULTS": "errors=1.0"})
    canary = predictor(found)["latestCreatedRevision"]
    answers = [httpx.post(f"{found['status']['url']}/v1/models/churn:predict", json=BODY) for _ in range(40)]
    for answer in answers:
        assert answer.status_code == (500 if answer.headers["x-sluiceway-revision"] == canary else 200)
    stats = metrics.revision_stats(found)
    assert stats[canary].errors == stats[canary].requests == sum(answer.status_code == 500 for answer in answers)
    assert stats[stable].errors == metrics.revision_stats(churn)[stable].errors
    apply(home, bundles / "a")


def test_a_port_that_is_asked_for_and_taken_is_said_and_mended_when_it_is_free(tmp_path, bundles):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        generation = client.apply(tmp_path, document(bundles / "a", port=port))
        with pytest.raises(NotReady, match=f"Port {port} on 127.0.0.1 is already in use"):
            client.wait(tmp_path, "churn", generation, 20)
    eventually(lambda: ready(client.read(tmp_path, "churn"))["status"] == "True")
    found = client.read(tmp_path, "churn")
    assert found["status"]["url"].endswith(f":{port}")
    client.stop(tmp_path)


def test_stop_leaves_no_process_and_what_was_rolled_out_comes_back(tmp_path, bundles):
    found = apply(tmp_path, bundles / "a")
    local = found["status"]["local"]
    pids = [local["supervisor"]["pid"], local["envoy"]["pid"], *(server["pid"] for server in local["servers"])]
    assert all(running(pid) for pid in pids)
    client.stop(tmp_path)
    assert not any(running(pid) for pid in pids)
    assert not client.alive(tmp_path, "churn")
    assert client.read(tmp_path, "churn")["status"]["local"]["servers"] == []
    again = apply(tmp_path, bundles / "a")
    assert percents(again) == percents(found)
    assert again["status"]["url"] == found["status"]["url"]
    client.stop(tmp_path)


def test_stop_ends_what_a_killed_supervisor_left(tmp_path, bundles):
    client.apply(tmp_path, document(bundles / "a"))
    supervisor = eventually(lambda: client.read(tmp_path, "churn")["status"])["local"]["supervisor"]["pid"]
    stray = psutil.Popen(["sleep", "60"])  # stands for a child that the kernel did not end
    from serving.local.processes import record

    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: not client.alive(tmp_path, "churn"))
    record(tmp_path / "services" / "churn" / "children.json", [stray.pid])
    client.stop(tmp_path)
    assert not running(stray.pid)


def test_a_service_whose_folder_is_deleted_ends(tmp_path, bundles):
    import shutil

    client.apply(tmp_path, document(bundles / "a"))
    status = eventually(lambda: client.read(tmp_path, "churn")["status"])
    local = status["local"]
    shutil.rmtree(tmp_path / "services")
    eventually(lambda: not any(running(pid) for pid in (local["supervisor"]["pid"], local["envoy"]["pid"])))


def test_a_bad_document_is_refused_and_nothing_starts(tmp_path, bundles):
    with pytest.raises(BadInput, match="canaryTrafficPercent"):
        client.apply(tmp_path, document(bundles / "a", 200))
    assert client.names(tmp_path) == []
    assert client.read(tmp_path, "churn") is None
