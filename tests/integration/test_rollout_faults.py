"""Rollouts on a cluster in which things break: real servers behind a real Envoy, a real Prometheus, counted clients.

Each fault is tried with one mechanism; ``SLUICEWAY_TEST_FAULTS=all`` tries each with every one, in ten minutes.
"""

import contextlib
import itertools
import os
import signal
import time

import pytest

from components.errors import NotReady, SluicewayError
from components.rollout.ledger import Phase
from tests.cluster.kserve.kubelet import Timing
from tests.cluster.kserve.rollouts import SERVICE, Beside, Rollout
from tests.cluster.kserve.simulation import kserve
from tests.prometheus import Prometheus, binary, eventually

pytest_plugins = ["tests.cluster.fixtures"]

MECHANISMS = ("knative", "standard", "two-services")
RATE = 200
ALL = os.environ.get("SLUICEWAY_TEST_FAULTS") == "all"


def each(faults, first=0, mechanisms=MECHANISMS):
    """Pairs of mechanism and fault: every one when all are asked for, else each fault with the next mechanism."""
    if ALL:
        return list(itertools.product(mechanisms, faults))
    return [(mechanisms[(first + number) % len(mechanisms)], fault) for number, fault in enumerate(faults)]


def one(first, mechanisms=MECHANISMS):
    """One mechanism, or every one when all are asked for."""
    return [where for where, _ in each([""], first, mechanisms)]


@pytest.fixture(scope="module")
def simulation(api_server):
    timing = Timing(back_off=0.1, most_back_off=0.5, evict=0.8)
    with kserve(api_server, timing=timing) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(simulation, tmp_path_factory):
    if binary() is None:
        pytest.skip("there is no Prometheus here")
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), interval="250ms")
    server.scrape(simulation.hub.address)
    started(server)
    yield server
    server.kill()


def started(server):
    """Start Prometheus and wait until it scrapes: it takes seconds to notice its targets."""
    server.start()
    eventually(lambda: (server.value("count_over_time(up[1s])") or 0) >= 2)


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


@pytest.fixture
def made(simulation, api_server, prometheus, registry):
    """Makes a service that is live."""
    rollouts = []

    def make(where, **more):
        rollouts.append(Rollout(simulation, api_server, prometheus.url, where, **more))
        rollouts[-1].deploy()
        with rollouts[-1].client(per_second=400) as client:
            client.wait(500)  # what the champion is like; at 100 % nothing is left to compare with but this
        assert client.failed == []
        return rollouts[-1]

    yield make
    simulation.faults.clear()
    for rollout in rollouts:
        rollout.new_place().target.remove()


def serves_alone(rollout, client, number):
    """Whether every request of from now on is answered by one version."""
    client.reset()
    client.wait(40)
    (revision,) = client.counts()
    pods = [pod for pod in rollout.simulation.pods(namespace=rollout.namespace) if revision in pod["metadata"]["name"]]
    uri = "internal.serving.kserve.io/storage-initializer-sourceuri"
    return {pod["metadata"]["annotations"][uri].rpartition("/")[2] for pod in pods} == {number}


def rolled_back(rollout, client, said):
    """The champion serves alone, nothing failed since, and the record and the registry say what happened."""
    assert serves_alone(rollout, client, "1")
    assert client.failed == []
    ledger = rollout.ledger()
    assert (ledger.outcome, ledger.phase, ledger.candidate) == ("rolled_back", Phase.SETTLED, None)
    assert said in ledger.reason, ledger.reason
    assert champion() == "1"


def promoted(rollout, client):
    assert serves_alone(rollout, client, "2")
    assert rollout.ledger().outcome == "promoted"
    assert champion() == "2"


@pytest.mark.parametrize("where", one(0))
def test_a_good_challenger_is_promoted_and_no_request_fails(made, where):
    rollout = made(where, replicas=2)
    with rollout.client(per_second=RATE) as client:
        rollout.stage()
        assert rollout.go().outcome == "promoted"
        assert client.failed == []
        promoted(rollout, client)
        # The step is tried again after it has ended: nothing is taken back.
        assert rollout.go().outcome == "promoted"
        promoted(rollout, client)
        assert client.failed == []


PODS = {
    "never_ready": "2",
    "image_cannot_be_pulled": "Back-off pulling image",
    "refuses_to_load": "the model was altered",
}


@pytest.mark.parametrize(("where", "fault"), each(PODS, 1))
def test_a_challenger_that_cannot_start_costs_no_request(made, simulation, tmp_path, where, fault):
    rollout = made(where, ready_seconds=4)
    getattr(simulation.faults, fault)(rollout.about("2"))
    with rollout.client(per_second=50) as client:
        with pytest.raises(NotReady) as error:
            rollout.stage_step(tmp_path)
        assert error.value.exit_code == 1
        assert PODS[fault] in str(error.value)
        assert client.failed == []
        rolled_back(rollout, client, PODS[fault])


@pytest.mark.parametrize("where", one(2))
def test_a_challenger_that_answers_wrongly_is_taken_back(made, simulation, where):
    rollout = made(where)
    simulation.faults.worse(rollout.about("2"), errors=0.5)
    with rollout.client(per_second=RATE) as client:
        rollout.stage()
        assert rollout.go().outcome == "rolled_back"
        assert 0 < len(client.failed) < 300
        rolled_back(rollout, client, "failed requests")


@pytest.mark.parametrize("where", one(0))
def test_a_challenger_in_a_crash_loop_is_taken_back(made, simulation, where):
    rollout = made(where)
    simulation.faults.crashes_after(rollout.about("2"), 15)
    with rollout.client(per_second=RATE) as client:
        rollout.stage()
        assert rollout.go().outcome == "rolled_back"
        rolled_back(rollout, client, "")


@pytest.mark.parametrize("where", one(1))
def test_a_challenger_that_runs_out_of_memory_is_taken_back(made, simulation, where):
    rollout = made(where)
    with rollout.client(per_second=RATE) as client:
        rollout.stage()
        with Beside(rollout, min_requests=100_000) as beside:
            rollout.until(lambda ledger: ledger.weight == 50)
            ends = time.monotonic() + 20
            while beside.is_alive() and time.monotonic() < ends:
                simulation.faults.out_of_memory(rollout.about("2"))
                time.sleep(0.2)
            assert beside.ended().outcome == "rolled_back"
        rolled_back(rollout, client, "")


@pytest.mark.parametrize("where", one(2))
def test_a_node_that_is_lost_in_a_step_does_not_end_it_badly(made, simulation, where):
    rollout = made(where, replicas=2)
    with rollout.client(per_second=RATE) as client:
        rollout.stage()
        with Beside(rollout, max_down_seconds=20) as beside:
            rollout.until(lambda ledger: ledger.weight == 50)
            simulation.faults.lose_node("node-a")
            result = beside.ended()
        simulation.faults.bring_node_back("node-a")
        assert result.outcome in ("promoted", "rolled_back")
        number = "2" if result.outcome == "promoted" else "1"
        assert serves_alone(rollout, client, number)
        assert client.failed == []
        assert champion() == number


API = {
    "conflicts": [{"how": "answer", "code": 409, "method": "PATCH", "path": "inferenceservices", "times": 2}],
    "too many requests": [{"how": "answer", "code": 429, "retry_after": 1, "path": "/namespaces/r-", "times": 3}],
    "internal errors": [{"how": "answer", "code": 500, "path": "/namespaces/r-", "times": 4}],
    "dropped": [{"how": "drop", "path": "/namespaces/r-", "times": 4}],
    "lost answers": [{"how": "lose", "method": "PATCH", "path": "inferenceservices", "times": 2}],
    "lost answers of the record": [{"how": "lose", "method": "PUT", "path": "configmaps", "times": 2}],
}


TROUBLES = [[fault] for fault in (*API, "forgotten watches", "cut watches", "away")]

AT_ONCE = TROUBLES if ALL else [[*API, "forgotten watches", "cut watches", "away"]]


def break_api(api_server, fault):
    for about in API.get(fault, []):
        api_server.faults.add(**about)
    if fault == "away":
        with api_server.away():
            time.sleep(2)
    elif fault.endswith("watches"):
        if fault.startswith("forgotten"):
            api_server.storage.forget()
        api_server.cut_watches()


@pytest.mark.parametrize(("where", "faults"), each(AT_ONCE, 1, ("knative", "standard")))
def test_an_api_server_in_trouble_costs_no_request(made, api_server, where, faults):
    if not hasattr(api_server, "faults"):
        pytest.skip("needs faults that a real API server cannot be told to have")
    rollout = made(where)
    with rollout.client(per_second=RATE) as client:
        rollout.stage()
        with Beside(rollout) as beside, contextlib.ExitStack() as stack:
            stack.callback(api_server.faults.clear)
            rollout.until(lambda ledger: ledger.weight == 50)
            for fault in faults:
                break_api(api_server, fault)
            assert beside.ended().outcome == "promoted"
        assert client.failed == []
        promoted(rollout, client)


@pytest.mark.parametrize("where", one(0, ("knative", "standard")))
def test_without_prometheus_nothing_advances_and_the_champion_stays(made, prometheus, where):
    rollout = made(where)
    with rollout.client(per_second=RATE) as client:
        rollout.stage()
        with Beside(rollout, max_seconds=4, min_requests=100_000) as beside:
            rollout.until(lambda ledger: ledger.weight == 50)
            prometheus.kill()
            try:
                assert beside.ended().outcome == "rolled_back"
            finally:
                started(prometheus)
        assert "signals lost" in rollout.events()
        assert client.failed == []
        rolled_back(rollout, client, "no clear verdict")


def test_a_prometheus_that_comes_back_is_gone_on_with(made, prometheus):
    rollout = made("standard")
    with rollout.client(per_second=RATE) as client:
        rollout.stage()
        with Beside(rollout) as beside:
            rollout.until(lambda ledger: ledger.weight == 50)
            prometheus.kill()
            time.sleep(1)
            started(prometheus)
            result = beside.ended()
            assert result.outcome == "promoted", result
        assert client.failed == []
        promoted(rollout, client)


MOMENTS = {
    "as it begins": lambda ledger: True,
    "in the first step": lambda ledger: ledger.weight == 50,
    "with all traffic": lambda ledger: ledger.weight == 100,
    "in the promotion": lambda ledger: ledger.phase is Phase.PROMOTING,
    "after the promotion": lambda ledger: ledger.outcome is not None,
}
QUICK_MOMENTS = ["in the promotion", "in the first step"]


@pytest.mark.parametrize(("where", "moment"), each(MOMENTS if ALL else QUICK_MOMENTS))
def test_a_rollout_that_is_killed_goes_on_when_it_is_tried_again(made, where, moment):
    rollout = made(where)
    with rollout.client(per_second=RATE) as client:
        rollout.stage()
        process = rollout.process()
        try:
            rollout.until(MOMENTS[moment], 60)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert rollout.go().outcome == "promoted"
        assert client.failed == []
        promoted(rollout, client)


def test_every_failure_has_an_exit_code_of_its_own_kind():
    assert NotReady.exit_code == SluicewayError.exit_code == 1
