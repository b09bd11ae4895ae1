"""What the server's metrics call the version, and how finely they measure it."""

import socket

import pytest

from serving.latency import LATENCY_MS
from serving.server.telemetry import Metrics, own_revision


@pytest.mark.parametrize(
    ("hostname", "revision"),
    [
        ("churn-v2-predictor-6d4f6c7b8-x2k9p", "churn-v2-predictor"),  # KServe's Standard mode
        ("churn-predictor-65d9f-bcdfg", "churn-predictor"),
        ("laptop", "churn"),
        ("churn-predictor-0", "churn"),  # of a StatefulSet
    ],
)
def test_the_revision_is_the_deployment_that_the_pod_belongs_to(monkeypatch, hostname, revision):
    monkeypatch.delenv("K_REVISION", raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: hostname)
    assert own_revision("churn") == revision


def test_knative_says_the_revision_itself(monkeypatch):
    monkeypatch.setenv("K_REVISION", "churn-predictor-00007")
    monkeypatch.setattr(socket, "gethostname", lambda: "churn-predictor-00007-deployment-6d4f6c7b8-x2k9p")
    assert own_revision("churn") == "churn-predictor-00007"


def test_latency_has_the_edges_that_envoy_counts_by():
    metrics = Metrics()
    metrics.model("edges", "edges-1").answered(200, 0.012)
    text = metrics.page().decode()
    mine = [
        line for line in text.splitlines() if line.startswith("sluiceway_request_seconds_bucket") and "edges-1" in line
    ]
    edges = [float(line.split('le="')[1].split('"')[0]) * 1000 for line in mine]
    assert edges[:-1] == pytest.approx(LATENCY_MS)
