"""What the judge reads on one machine, from a real service: supervisor, Envoy and model servers."""

import contextlib
import math
import os
import signal
import time

import httpx
import pytest

from components.errors import SignalsLost
from components.rollout.signals.local import LocalSource
from serving.local import client
from tests.serving_bundle import write_bundle

ROW = {
    "mean_radius": 14.2,
    "mean_texture": None,
    "mean_smoothness": 0.1,
    "mean_concavity": 0.08,
    "size": "large",
    "rough": True,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("home")
    yield path
    client.stop(path)


def apply(home, bundle, percent=None):
    model = {"modelFormat": {"name": "mlflow"}, "storageUri": bundle.as_uri()}
    predictor = {"model": model} if percent is None else {"model": model, "canaryTrafficPercent": percent}
    kind = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "churn"}}
    generation = client.apply(home, {**kind, "spec": {"predictor": predictor}})
    return client.wait(home, "churn", generation, 30)["status"]


@pytest.fixture(scope="module")
def split(home, tmp_path_factory):
    """A service whose traffic is shared evenly by two versions."""
    folder = tmp_path_factory.mktemp("bundles")
    for seed, name in enumerate("ab"):
        write_bundle(folder / name, seed=seed)
    apply(home, folder / "a")
    return apply(home, folder / "b", 50)


def revisions(status):
    predictor = status["components"]["predictor"]
    return predictor["latestRolledoutRevision"], predictor["latestCreatedRevision"]


def send(url, count):
    """Send predictions; gives how many each revision answered."""
    answers = [httpx.post(f"{url}/v1/models/churn:predict", json={"instances": [ROW]}) for _ in range(count)]
    names = [answer.headers["x-sluiceway-revision"] for answer in answers]
    return {name: names.count(name) for name in names}


def eventually(read, wanted, seconds=10.0):
    """Read again until it is as wanted; a source that is lost meanwhile is asked again."""
    deadline, found = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        with contextlib.suppress(SignalsLost):
            found = read()
            if wanted(found):
                return found
        time.sleep(0.05)
    raise AssertionError(f"it did not come to be; last seen: {found}")


def is_ready(document):
    return {condition["type"]: condition["status"] for condition in document["status"]["conditions"]}["Ready"] == "True"


def test_both_versions_are_counted_from_begin_on(home, split):
    stable, canary = revisions(split)
    send(split["url"], 10)  # before it begins
    source = LocalSource(home, "churn")
    time.sleep(0.6)  # Envoy merges its histograms
    source.begin(stable, canary)
    sent = send(split["url"], 40)
    seen = eventually(source.seen, lambda seen: seen.canary.latency.get(math.inf) == sent[canary])
    assert (seen.stable.requests, seen.canary.requests) == (sent[stable], sent[canary])
    assert seen.stable.errors == seen.canary.errors == seen.canary.restarts == 0
    assert sum(seen.stable.predictions.values()) == sent[stable]
    assert list(seen.canary.predictions) == ["0.25", "0.5", "0.75", "+Inf"]
    assert source.baseline(stable).requests > sent[stable]


def test_counts_go_on_over_the_end_of_the_proxy_and_of_a_server(home, split):
    stable, canary = revisions(split)
    source = LocalSource(home, "churn")
    source.begin(stable, canary)
    sent = send(split["url"], 30)
    assert source.seen().canary.requests == sent[canary]
    local = split["local"]
    os.kill(local["envoy"]["pid"], signal.SIGKILL)
    with pytest.raises(SignalsLost, match="does not say what it has counted"):
        source.seen()
    os.kill(next(s["pid"] for s in local["servers"] if s["revision"] == canary), signal.SIGKILL)
    eventually(source.seen, lambda seen: seen.canary.restarts == 1)
    eventually(lambda: client.read(home, "churn"), is_ready)
    before = source.seen()
    more = send(split["url"], 60)  # more than before the end: a counter that has overtaken itself
    after = source.seen().since(before)
    assert (after.stable.requests, after.canary.requests) == (more[stable], more[canary])
    assert sum(source.seen().canary.predictions.values()) == sent[canary] + more[canary]


def test_a_service_that_is_not_there_is_lost_and_not_healthy(tmp_path):
    with pytest.raises(SignalsLost, match="no service churn"):
        LocalSource(tmp_path, "churn").begin("a", "b")
