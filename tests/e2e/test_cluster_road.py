"""The road on a real cluster with KFP and KServe: ``make cluster``, then ``make test-cluster``.

Needs SLUICEWAY_TEST_KUBECONFIG and, in that cluster, Kubeflow Pipelines and KServe; skipped elsewhere.
"""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.cluster import credentials
from components.cluster.api import DEPLOYMENT, INFERENCE_SERVICE, Cluster

KUBECONFIG = os.environ.get("SLUICEWAY_TEST_KUBECONFIG", "")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not KUBECONFIG, reason="needs a cluster with KFP and KServe: make cluster && make test-cluster"),
]

Plain = dict[str, Any]
NAMESPACE = "models"
# Nobody sends requests but the test's own shadow traffic, so that the steps are short and few requests are enough.
PLAN = {"steps": [10, 50, 100], "min_requests": 50, "min_seconds": 20, "max_seconds": 600, "shadow_per_second": 20}


@pytest.fixture(scope="module")
def models() -> Cluster:
    """The namespace that models are served in."""
    client, _ = credentials.client(KUBECONFIG)
    whole = Cluster(client, "kubeflow", patience_seconds=30)
    if whole.get(DEPLOYMENT, "ml-pipeline") is None or not whole.serves(INFERENCE_SERVICE):
        pytest.skip("this cluster has no Kubeflow Pipelines, or no KServe")
    return whole.inside(NAMESPACE)


@pytest.fixture(scope="module")
def model(models: Cluster) -> Iterator[str]:
    """The name of a service that is removed afterwards."""
    name = f"road-{uuid.uuid4().hex[:6]}"
    yield name
    for one in (name, f"{name}-canary"):
        models.delete(INFERENCE_SERVICE, one)


def sluiceway(*words: str) -> str:
    """The command's standard output; KFP is reached through the Kubernetes API."""
    environment = os.environ | {"KUBECONFIG": KUBECONFIG, "SLUICEWAY_KFP_PORT_FORWARD": "true"}
    command = [str(Path(sys.executable).with_name("sluiceway")), *words]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return ended.stdout


def submit(model: str, **parameters: object) -> Plain:
    sluiceway("upload", "train-and-deploy")
    given = {
        "model_name": model,
        "plan": json.dumps(PLAN),
        "deployment": json.dumps({"namespace": NAMESPACE, "service_account": "sluiceway-server"}),
    }
    set_ = [f"--set={name}={value}" for name, value in (given | parameters).items()]
    said = sluiceway("submit", "train-and-deploy", *set_, "--service-account=sluiceway-deploy", "--wait", "--json")
    return json.loads(said)


def served(models: Cluster, model: str) -> list[Plain]:
    """The InferenceServices of a model: one, or two where a canary needs that."""
    found = [models.get(INFERENCE_SERVICE, name) for name in (model, f"{model}-canary")]
    return [one for one in found if one is not None]


def sources(services: list[Plain]) -> set[str]:
    return {one["spec"]["predictor"]["model"]["storageUri"] for one in services}


def test_a_first_model_is_trained_and_served(models: Cluster, model: str) -> None:
    submit(model)
    (service,) = served(models, model)
    ready = {one["type"]: one["status"] for one in service["status"]["conditions"]}
    assert ready["Ready"] == "True"


def test_a_challenger_goes_through_a_canary_and_is_promoted(models: Cluster, model: str) -> None:
    before = sources(served(models, model))
    assert before, "the first model is not served"
    submit(model, trainer="random_forest")
    after = served(models, model)
    assert sources(after) - before, "the challenger is not served"
    assert not any(one["spec"].get("canary") for one in after), "a canary was left"
