"""Rollouts on a cluster in which things break: real servers behind a real Envoy, a real Prometheus, counted clients."""

import pytest

from tests.cluster.kserve.kubelet import Timing
from tests.cluster.kserve.rollouts import SERVICE, Beside, Rollout
from tests.cluster.kserve.simulation import kserve
from tests.prometheus import Prometheus, binary

pytest_plugins = ["tests.cluster.fixtures"]

MECHANISMS = ("knative", "standard", "two-services")


@pytest.fixture(scope="module")
def simulation(api_server):
    timing = Timing(back_off=0.1, most_back_off=0.5, evict=0.8)
    with kserve(api_server, default_mode="Knative", timing=timing) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(simulation, tmp_path_factory):
    if binary() is None:
        pytest.skip("there is no Prometheus here")
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), interval="250ms")
    server.scrape(simulation.hub.address)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def registry(sqlite):
    from components.register.mlflow_client import client

    client().create_registered_model(SERVICE)
    for _version in (1, 2):
        client().create_model_version(SERVICE, "file:///nowhere")
    client().set_registered_model_alias(SERVICE, "champion", "1")
    return sqlite


def champion():
    from components.register.registry import champion as current

    return current(SERVICE).version


@pytest.fixture(params=MECHANISMS)
def rollout(request, simulation, api_server, prometheus, registry):
    made = Rollout(simulation, api_server, prometheus.url, request.param)
    made.deploy()
    yield made
    made.place.target.remove()
    simulation.faults.clear()


def test_a_good_challenger_is_promoted_and_no_request_fails(rollout):
    with rollout.client(per_second=100) as client:
        rollout.stage()
        result = rollout.go()
        client.reset()
        client.wait(30)
        assert client.failed == []
    assert result.outcome == "promoted", result
    assert champion() == "2"
