"""Two InferenceServices behind our own HTTPRoute, for a KServe that splits nothing itself."""

import pytest

from components.cluster.api import HTTP_ROUTE, INFERENCE_SERVICE
from components.errors import Changed, NotReady
from tests.cluster.kserve.kubelet import Timing
from tests.cluster.kserve.simulation import kserve
from tests.integration.rollout_targets import SERVICE, Bench, Capacity, Killed, eventually

pytest_plugins = ["tests.cluster.fixtures"]

ONE, TWO = f"{SERVICE}-predictor", f"{SERVICE}-canary-predictor"
ROUTE = f"{SERVICE}-split"


@pytest.fixture(scope="module")
def simulation(api_server):
    timing = Timing(back_off=0.1, most_back_off=0.3, evict=0.6)
    with kserve(api_server, default_mode="Standard", splits=False, version="v0.20.0", timing=timing) as running:
        yield running


@pytest.fixture
def bench(simulation, api_server):
    made = []

    def make(servers=1):
        more = {"autoscaling": {"min_replicas": servers}, "hostname": "churn.models.example.com"}
        made.append(Bench(simulation, api_server, "two-services", more))
        one = made[-1]
        stable, candidate = one.release("1"), one.release("2")
        one.target.deploy(stable)
        eventually(lambda: Capacity(one).now() >= servers)  # KServe calls a service ready with its first server
        return one, stable, candidate

    yield make
    simulation.faults.clear()
    for one in made:
        one.target.remove()


def answered_by(client, number=60):
    client.reset()
    client.wait(number)
    return set(client.counts())


def weights(one):
    return {ref["name"]: ref["weight"] for ref in one.cluster.get(HTTP_ROUTE, ROUTE)["spec"]["rules"][0]["backendRefs"]}


def test_a_release_goes_its_way_though_it_is_killed_after_every_write_and_the_address_stays(bench):
    one, stable, candidate = bench(servers=2)
    url = one.target.url()
    with one.client(per_second=100) as client, Capacity(one) as capacity:
        one.killed_at_every_write("stage", candidate)
        assert weights(one) == {ONE: 100, TWO: 0}
        assert answered_by(client) == {ONE}
        sight = one.target.look(stable, candidate, 0)
        assert (sight.weight, sight.stable.ready, sight.canary.ready, sight.changed) == (0, 2, 1, "")
        one.killed_at_every_write("shift", candidate, 50)
        assert answered_by(client) == {ONE, TWO}
        one.killed_at_every_write("shift", candidate, 100)
        sight = one.target.look(stable, candidate, 100)
        assert (sight.weight, sight.stable.ready, sight.canary.ready) == (100, 2, 2)
        one.killed_at_every_write("promote", candidate)
        assert answered_by(client) == {TWO}
        assert client.failed == []
        assert capacity.least >= 2
        assert one.cluster.get(INFERENCE_SERVICE, SERVICE) is None
        # A step that is tried again after the promotion changes nothing; the next release takes the free slot.
        one.target.shift(candidate, 10)
        one.target.promote(candidate)
        assert weights(one) == {TWO: 100}
        assert one.target.stage(one.release("3")).revision == ONE
        assert one.target.url() == url
        assert client.failed == []


def test_a_rollback_goes_on_though_it_is_killed_after_every_write(bench):
    one, stable, candidate = bench()
    one.target.stage(candidate)
    one.target.shift(candidate, 50)
    with one.client(per_second=100) as client:
        one.killed_at_every_write("roll_back", stable, candidate)
        assert answered_by(client) == {ONE}
        assert client.failed == []
    assert one.cluster.get(INFERENCE_SERVICE, f"{SERVICE}-canary") is None


def test_a_rollback_after_half_a_promotion_starts_the_champion_before_it_sends_traffic(bench):
    one, stable, candidate = bench()
    one.target.stage(candidate)
    one.target.shift(candidate, 100)
    with pytest.raises(Killed):  # the champion is gone, the rest is not done
        one.new(dies_after=4).promote(candidate)
    assert eventually(lambda: one.cluster.get(INFERENCE_SERVICE, SERVICE) is None)
    with one.client(per_second=100) as client:
        one.killed_at_every_write("roll_back", stable, candidate)
        assert answered_by(client) == {ONE}
        assert client.failed == []


def test_a_challenger_that_cannot_start_leaves_the_traffic_where_it_is(bench, simulation):
    one, stable, candidate = bench()
    simulation.faults.refuses_to_load(f"/models/{one.namespace}/2")
    with one.client() as client:
        with pytest.raises(NotReady, match="the model was altered"):
            one.target.stage(candidate)
        one.target.roll_back(stable, candidate)
        assert answered_by(client) == {ONE}
        assert client.failed == []


def test_weights_changed_by_hand_are_named_and_respected(bench):
    one, stable, candidate = bench()
    one.target.stage(candidate)
    one.target.shift(candidate, 20)

    def half(now):
        for ref in now["spec"]["rules"][0]["backendRefs"]:
            ref["weight"] = 50

    one.person(half, ROUTE, kind="HTTPRoute")
    changed = one.target.look(stable, candidate, 20).changed
    assert changed.startswith(
        f"the share of {SERVICE}-canary in the HTTPRoute {ROUTE} is 50 instead of 20 (set by kubectl"
    )
    with pytest.raises(Changed, match="kubectl-edit"):
        one.target.shift(candidate, 60)
    assert weights(one) == {ONE: 50, TWO: 50}


def test_a_staged_challenger_may_get_copies_of_requests(bench):
    one, _stable, candidate = bench()
    one.target._mirror = 100
    staged = one.target.stage(candidate)
    with one.client(per_second=100) as client:
        assert answered_by(client) == {ONE}  # the answers of copies are thrown away
    rule = one.cluster.get(HTTP_ROUTE, ROUTE)["spec"]["rules"][0]
    assert rule["filters"][0]["requestMirror"]["backendRef"]["name"] == TWO == staged.revision
    one.target.shift(candidate, 20)
    assert "filters" not in one.cluster.get(HTTP_ROUTE, ROUTE)["spec"]["rules"][0]


def test_both_slots_call_the_model_by_the_services_name(bench):
    one, _stable, candidate = bench()
    for slot in one.target.slots:
        model = one.target.manifest(candidate, slot)["spec"]["predictor"]["model"]
        assert f"--name={SERVICE}" in model["args"]
        assert model["readinessProbe"]["httpGet"]["path"] == f"/v2/models/{SERVICE}/ready"
    one.deployment = one.deployment.model_copy(update={"runtime": "mlflow"})
    one.target.deployment = one.deployment
    model = one.target.manifest(one.release("2"), f"{SERVICE}-canary")["spec"]["predictor"]["model"]
    assert model["env"] == [{"name": "MLSERVER_MODEL_NAME", "value": SERVICE}]
