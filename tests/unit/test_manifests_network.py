"""Who reaches whom in the rendered overlays."""

import json
import os

import pytest

from tests import manifests
from tests.network_policies import End, connects, selects

THEIRS = {
    "pipelines.kubeflow.org/v2_component": "true",  # KFP, on every pod of a run
    "component": "metadata-grpc-server",  # KFP's metadata store
    "app": "ml-pipeline",  # KFP's API; its object store is `seaweedfs`, before 2.16 `minio`
    "serving.kserve.io/inferenceservice": "churn",  # KServe, on every server
    "jobset.sigs.k8s.io/jobset-name": "job",  # JobSet, on the pods of a TrainJob
    "training.kubeflow.org/job-name": "job",  # the Training Operator
    "sparkoperator.k8s.io/app-name": "job",  # the Spark Operator, on driver and executors
}
"""Labels that other projects put on their pods, from their sources."""

RUN = End("kubeflow", {"pipelines.kubeflow.org/v2_component": "true"})
TRAINING = End("kubeflow", {"jobset.sigs.k8s.io/jobset-name": "job"})
SPARK = End("kubeflow", {"sparkoperator.k8s.io/app-name": "job"})
SERVER = End("models", {"serving.kserve.io/inferenceservice": "churn"})
STAGED = End("models-staging", {"serving.kserve.io/inferenceservice": "churn"})
MLFLOW = End("mlflow", {"app.kubernetes.io/name": "mlflow"})
DATABASE = End("mlflow", {"app.kubernetes.io/name": "mlflow-postgresql"})
BUCKETS = End("mlflow", {"app.kubernetes.io/name": "object-store"})
METADATA = End("kubeflow", {"component": "metadata-grpc-server"})
KFP = End("kubeflow", {"app": "ml-pipeline"})
ARTIFACTS = End("kubeflow", {"app": "seaweedfs"})
PROMETHEUS = End("monitoring", {"app.kubernetes.io/name": "prometheus"})
GATEWAY = End("envoy-gateway-system", {})
ACTIVATOR = End("knative-serving", {"app": "activator"})
DNS = End("kube-system", {"k8s-app": "kube-dns"})
STRANGER = End("default", {"app": "curl"})
GOOGLE = End(address="142.250.1.1")
API_SERVER = End(address="10.0.0.1")
TOKENS = End(address="169.254.169.254")

ALWAYS = [
    (RUN, METADATA, 8080),
    (RUN, KFP, 8887),
    (RUN, ARTIFACTS, 8333),
    (RUN, MLFLOW, 5000),
    (RUN, SERVER, 8080),
    (RUN, STAGED, 8080),
    (RUN, SERVER, 8012),
    (RUN, GATEWAY, 80),
    (RUN, PROMETHEUS, 9090),
    (RUN, API_SERVER, 443),
    (RUN, API_SERVER, 6443),
    (RUN, GOOGLE, 443),
    (TRAINING, TRAINING, 29500),
    (TRAINING, MLFLOW, 5000),
    (TRAINING, GOOGLE, 443),
    (SPARK, SPARK, 7078),
    (SPARK, API_SERVER, 443),
    (SPARK, ARTIFACTS, 8333),
    (SPARK, GOOGLE, 443),
    (GATEWAY, SERVER, 8080),
    (ACTIVATOR, SERVER, 8012),
    (PROMETHEUS, SERVER, 8080),
    (PROMETHEUS, SERVER, 9091),
    (SERVER, GOOGLE, 443),
    (MLFLOW, GOOGLE, 443),
]
NEVER = [
    (STRANGER, SERVER, 8080),
    (STRANGER, MLFLOW, 5000),
    (STRANGER, RUN, 8080),
    (STRANGER, TRAINING, 29500),
    (STRANGER, SPARK, 7078),
    (SPARK, MLFLOW, 5000),
    (SPARK, SERVER, 8080),
    (SERVER, MLFLOW, 5000),
    (SERVER, STAGED, 8080),
    (SERVER, API_SERVER, 443),
    (SERVER, PROMETHEUS, 9090),
    (GATEWAY, MLFLOW, 5000),
    (TRAINING, API_SERVER, 443),
    (TRAINING, SERVER, 8080),
    (MLFLOW, API_SERVER, 443),
    (MLFLOW, RUN, 8080),
    (RUN, DATABASE, 5432),
    (SERVER, DATABASE, 5432),
    (STRANGER, DATABASE, 5432),
    (DATABASE, GOOGLE, 443),
    (RUN, End("mlflow", {}), 5432),
]
OWN = {
    "dev": [(MLFLOW, DATABASE, 5432), (MLFLOW, BUCKETS, 4443), (RUN, BUCKETS, 4443), (SERVER, BUCKETS, 4443)],
    "staging": [(MLFLOW, DATABASE, 5432), (RUN, TOKENS, 80), (SERVER, TOKENS, 80), (MLFLOW, TOKENS, 80)],
    "prod": [(MLFLOW, API_SERVER, 5432), (RUN, TOKENS, 80), (TRAINING, TOKENS, 80), (SPARK, TOKENS, 80)],
}
NOT_THERE = {
    "dev": [(RUN, TOKENS, 80), (STRANGER, BUCKETS, 4443)],
    "staging": [(STRANGER, MLFLOW, 15008)],
    "prod": [(RUN, DATABASE, 5432)],
}


@pytest.mark.parametrize("name", manifests.OVERLAYS)
def test_what_has_to_talk_can_and_nothing_else(name: str) -> None:
    policies = manifests.of_kind(manifests.overlay(name), "NetworkPolicy")
    cut = [one for one in ALWAYS + OWN[name] if not connects(policies, *one)]
    assert not cut, f"cannot talk: {cut}"
    open_ = [one for one in NEVER + NOT_THERE[name] if connects(policies, *one)]
    assert not open_, f"should not talk: {open_}"
    for end in (RUN, TRAINING, SPARK, SERVER, STAGED, MLFLOW):
        assert connects(policies, end, DNS, 53, "UDP")
        assert not connects(policies, end, DNS, 9153)


@pytest.mark.parametrize("name", ["staging", "prod"])
def test_in_the_mesh_the_same_pods_talk_through_its_own_port(name: str) -> None:
    policies = manifests.of_kind(manifests.overlay(name), "NetworkPolicy")
    inside = [(source, target) for source, target, _ in ALWAYS if not target.address and source != TRAINING]
    assert not [one for one in inside if not connects(policies, *one, 15008)]


@pytest.mark.parametrize("name", manifests.OVERLAYS)
def test_every_selector_selects_pods_that_there_are(name: str) -> None:
    objects = manifests.overlay(name)
    ours = [one.labels for one in manifests.pods(objects)]
    theirs = [{key: value} for key, value in THEIRS.items()] + [{"app": "seaweedfs"}]
    for policy in manifests.of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        rules = [*(spec.get("ingress") or []), *(spec.get("egress") or [])]
        peers = [peer for rule in rules for part in ("from", "to") for peer in rule.get(part, [])]
        selectors = [spec["podSelector"], *(peer["podSelector"] for peer in peers if "podSelector" in peer)]
        for selector in selectors:
            assert any(selects(selector, labels) for labels in [*ours, *theirs]), (manifests.named(policy), selector)


@pytest.mark.parametrize("name", manifests.OVERLAYS)
def test_a_namespace_of_ours_is_closed_by_default(name: str) -> None:
    objects = manifests.overlay(name)
    closed = {
        one["metadata"]["namespace"]
        for one in manifests.of_kind(objects, "NetworkPolicy")
        if one["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    }
    assert closed >= {"mlflow", "models", "models-staging"}


def test_runs_reach_databases_and_kafka_only_where_the_component_for_data_sources_is(tmp_path):
    parts = {"resources": ["base"], "components": ["components/data-sources"]}
    relative = {
        kind: [os.path.relpath(manifests.FOLDER / part, tmp_path.resolve()) for part in names]
        for kind, names in parts.items()
    }
    (tmp_path / "kustomization.yaml").write_text(json.dumps(relative))
    opened = manifests.of_kind(manifests.rendered(str(tmp_path)), "NetworkPolicy")
    closed = manifests.of_kind(manifests.rendered(str(manifests.FOLDER / "base")), "NetworkPolicy")
    for port in (3306, 5432, 9000, 9092):
        assert connects(opened, RUN, End(address="10.1.2.3"), port), port
        assert not connects(closed, RUN, End(address="10.1.2.3"), port), port
        assert not connects(opened, TRAINING, End(address="10.1.2.3"), port), port
