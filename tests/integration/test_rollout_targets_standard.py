"""KServe in Standard mode: every trap of its canary, against the real client, a real Envoy and counted requests."""

import pytest

from components.cluster.api import HTTP_ROUTE
from components.errors import BadInput, Changed, NotReady
from tests.cluster.kserve.kubelet import Timing
from tests.cluster.kserve.simulation import kserve
from tests.integration.rollout_targets import SERVICE, Bench, Capacity, Killed, eventually

pytest_plugins = ["tests.cluster.fixtures"]

ONE, TWO = f"{SERVICE}-v1-predictor", f"{SERVICE}-v2-predictor"


@pytest.fixture(scope="module")
def simulation(api_server):
    timing = Timing(back_off=0.1, most_back_off=0.3, evict=0.6)
    with kserve(api_server, default_mode="Standard", timing=timing) as running:
        yield running


@pytest.fixture
def bench(simulation, api_server):
    made = []

    def make(**more):
        made.append(Bench(simulation, api_server, "standard", more))
        return made[-1]

    yield make
    simulation.faults.clear()
    for one in made:
        one.target.remove()


def two(bench, servers=1, autoscaler=""):
    """A service with version 1 live, and version 2 to come."""
    annotations = {"serving.kserve.io/autoscalerClass": autoscaler} if autoscaler else {}
    one = bench(autoscaling={"min_replicas": servers}, annotations=annotations)
    stable, candidate = one.release("1"), one.release("2")
    one.target.deploy(stable)
    return one, stable, candidate


def answered_by(client, number=60):
    client.reset()
    client.wait(number)
    return set(client.counts())


def names(pods):
    return {pod["metadata"]["name"] for pod in pods}


def weights(one, route=SERVICE):
    return {
        ref["name"]: ref.get("weight") for ref in one.cluster.get(HTTP_ROUTE, route)["spec"]["rules"][0]["backendRefs"]
    }


def test_a_promotion_never_has_fewer_servers_than_the_traffic_needs_and_restarts_none(bench):
    """The capacity cliffs: the champion's Deployment goes before the route is written, and before that KServe takes as
    many servers from it as the canary has."""
    one, stable, candidate = two(bench, servers=3, autoscaler="none")
    with one.client(per_second=100) as client, Capacity(one) as capacity:
        one.killed_at_every_write("stage", candidate)
        # At 0 % KServe would give a canary no server, and it would never be ready.
        assert one.live()["spec"]["canary"][0]["predictor"]["minReplicas"] == 1
        # The CRD asks for a container's name on the canary, and the webhook refuses one on the champion.
        assert one.live()["spec"]["canary"][0]["predictor"]["model"]["name"] == "kserve-container"
        assert "name" not in one.live()["spec"]["predictor"]["model"]
        assert answered_by(client) == {ONE}
        sight = one.target.look(stable, candidate, 0)
        assert (sight.weight, sight.stable.ready, sight.canary.ready, sight.changed) == (0, 3, 1, "")
        assert (sight.stable.revision, sight.canary.revision) == (ONE, TWO)
        one.killed_at_every_write("shift", candidate, 50)
        assert weights(one) == weights(one, f"{SERVICE}-predictor") == {ONE: 50, TWO: 50}
        assert one.target.look(stable, candidate, 50).canary.ready == 2
        assert answered_by(client) == {ONE, TWO}
        one.killed_at_every_write("shift", candidate, 100)
        sight = one.target.look(stable, candidate, 100)
        assert (sight.weight, sight.stable.ready, sight.canary.ready) == (100, 3, 3)  # the champion's stay up
        judged = names(one.pods("2"))
        one.killed_at_every_write("promote", candidate)
        assert answered_by(client) == {TWO}
        assert client.failed == []
    assert capacity.least >= 3
    assert names(one.pods("2")) == judged
    spec = one.live()["spec"]
    assert (spec["predictor"]["name"], spec["predictor"]["minReplicas"], spec.get("canary", [])) == ("v2", 3, [])
    # A step that is tried again after the promotion changes nothing.
    generation = one.live()["metadata"]["generation"]
    again = one.new()
    assert again.stage(candidate).revision == TWO
    again.shift(candidate, 10)
    again.promote(candidate)
    assert one.live()["metadata"]["generation"] == generation


def test_a_rollback_takes_the_traffic_first_and_the_canary_last(bench):
    """The autoscaler has given the champion three servers for its load: as many are there at every moment."""
    one = bench(autoscaling={"min_replicas": 1, "max_replicas": 4})
    stable, candidate = one.release("1"), one.release("2")
    one.target.deploy(stable)
    one.person(lambda now: now["spec"].__setitem__("replicas", 3), ONE, "autoscaler", "Deployment")
    eventually(lambda: one.target.look(None, stable, 100).canary.ready == 3)
    with one.client(per_second=100) as client, Capacity(one) as capacity:
        one.target.stage(candidate)
        one.target.shift(candidate, 50)
        assert one.live()["spec"]["predictor"]["minReplicas"] == 3 + 2
        assert one.live()["spec"]["canary"][0]["predictor"]["minReplicas"] == 2
        one.killed_at_every_write("roll_back", stable, candidate)
        assert answered_by(client) == {ONE}
        assert client.failed == []
    assert capacity.least >= 3
    spec = one.live()["spec"]
    assert (spec["predictor"]["minReplicas"], spec["predictor"]["maxReplicas"], "canary" in spec) == (1, 4, False)
    generation = one.live()["metadata"]["generation"]
    one.target.roll_back(stable, candidate)
    assert one.live()["metadata"]["generation"] == generation


def test_a_rollback_after_half_a_promotion_brings_the_champion_back_before_it_sends_traffic(bench, simulation):
    one, stable, candidate = two(bench, servers=2, autoscaler="none")
    one.target.stage(candidate)
    one.target.shift(candidate, 100)
    with pytest.raises(Killed):  # right after the champion's place was taken
        one.new(dies_after=2).promote(candidate)
    with one.client(per_second=100) as client, Capacity(one) as capacity:
        one.killed_at_every_write("roll_back", stable, candidate)
        assert answered_by(client) == {ONE}
        assert client.failed == []
    assert capacity.least >= 2
    assert one.live()["spec"]["predictor"]["name"] == "v1"


def test_a_candidate_that_is_dead_after_its_promotion_gives_its_place_at_once(bench, simulation):
    """KServe leaves the routes of a predictor that is not ready as they are: a canary beside it would never get any."""
    one = bench()
    stable, candidate = one.release("1"), one.release("2")
    one.target.deploy(candidate)
    simulation.faults.never_ready(f"/models/{one.namespace}/2")
    assert simulation.faults.kill(f"/models/{one.namespace}/2")
    eventually(lambda: one.target.look(None, candidate, 100).canary.ready == 0)
    one.target.roll_back(stable, candidate)
    with one.client() as client:
        assert answered_by(client) == {ONE}
        assert client.failed == []


def test_a_canary_that_cannot_start_leaves_the_traffic_where_it_is_and_the_next_one_can(bench, simulation):
    one, stable, candidate = two(bench)
    simulation.faults.image_cannot_be_pulled(f"/models/{one.namespace}/2")
    with one.client() as client:
        with pytest.raises(NotReady, match="ImagePullBackOff"):
            one.target.stage(candidate)
        other = one.release("3")
        assert one.target.stage(other).revision == f"{SERVICE}-v3-predictor"  # though nobody rolled back
        one.target.roll_back(stable, other)
        assert answered_by(client) == {ONE}
        assert client.failed == []


def test_what_a_person_changes_is_named_and_respected(bench):
    one, stable, candidate = two(bench)
    one.target.stage(candidate)
    one.target.shift(candidate, 10)
    one.person(lambda now: now["spec"]["predictor"].__setitem__("minReplicas", 2))
    assert "spec.predictor.minReplicas is 2 (set by kubectl-edit" in one.target.look(stable, candidate, 10).changed
    one.person(lambda now: now["spec"]["canary"][0].__setitem__("trafficPercent", 30), manager="argocd-controller")
    changed = one.target.look(stable, candidate, 10).changed
    assert changed.startswith("spec.canary[0].trafficPercent is 30 instead of 10 (set by argocd-controller at 20")
    for verb in (lambda: one.target.shift(candidate, 50), lambda: one.target.promote(candidate)):
        with pytest.raises(Changed, match="argocd-controller"):
            verb()
    assert one.live()["spec"]["canary"][0]["trafficPercent"] == 30


def test_what_kserve_would_refuse_at_the_promotion_is_refused_at_the_start(bench):
    one = bench()
    one.target.deploy(one.release("1", env={"A": "1"}))
    same = one.release("2", uri=one.release("1").uri)
    with pytest.raises(BadInput, match="storageUri as it is"):
        one.target.stage(same)
    with pytest.raises(BadInput, match=r"takes over from the champion .* model\.env"):
        one.target.stage(one.release("2"))
    assert "canary" not in one.live()["spec"]


def test_a_service_of_somebody_else_is_not_taken_over(bench):
    one = bench()
    one.cluster.create(one.target.manifest(one.release("1")))
    with pytest.raises(Changed, match="made by somebody else"):
        one.target.stage(one.release("2"))


def test_a_version_of_kserve_that_accepts_a_canary_but_writes_no_weights_is_not_believed(simulation, bench):
    """v0.20: the spec says 50 %, the pods are there, and the route still sends everything to the champion."""
    one, stable, candidate = two(bench)
    one.target.stage(candidate)
    simulation.options.splits = False
    try:
        one.target.deployment = one.deployment.model_copy(update={"ready_seconds": 1.0})
        with pytest.raises(NotReady, match="50 %"):
            one.target.shift(candidate, 50)
        assert one.target.look(stable, candidate, 50).weight == 0
    finally:
        simulation.options.splits = True
