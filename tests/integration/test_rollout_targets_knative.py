"""KServe in Knative mode: every trap of its canary, against the real client, a real Envoy and counted requests."""

import pytest

from components.cluster.api import EVENT
from components.errors import Changed, Lost, NotReady
from tests.cluster.kserve.kubelet import Timing
from tests.cluster.kserve.simulation import kserve
from tests.integration.rollout_targets import SERVICE, Bench, Killed, eventually

pytest_plugins = ["tests.cluster.fixtures"]

PERCENT = "canaryTrafficPercent"


@pytest.fixture(scope="module")
def simulation(api_server):
    with kserve(api_server, deadline=600, timing=Timing(back_off=0.1, most_back_off=0.3, evict=0.6)) as running:
        yield running


@pytest.fixture
def bench(simulation, api_server):
    made = []

    def make(**more):
        made.append(Bench(simulation, api_server, "knative", **more))
        return made[-1]

    yield make
    simulation.faults.clear()
    for one in made:
        one.guard = lambda: None
        one.new().remove()


@pytest.fixture
def two(bench):
    """A service with version 1 live, and version 2 to come."""
    one = bench()
    stable, candidate = one.release("1"), one.release("2")
    one.target.deploy(stable)
    return one, stable, candidate


def part(bench):
    return bench.live()["status"]["components"]["predictor"]


def revision(number):
    return f"{SERVICE}-predictor-{number:05d}"


def answered_by(bench, client):
    client.reset()
    client.wait(40)
    return set(client.counts())


def test_a_first_release_is_alone_and_what_is_said_of_it_never_fails_the_rollout(bench, fake):
    one = bench()
    first = one.release("1")
    assert not one.target.live()
    assert one.target.stage(first).revision == revision(1)
    assert one.target.live()
    assert PERCENT not in one.live()["spec"]["predictor"]  # at creation KServe would ignore it
    sight = one.target.look(None, first, 100)
    assert (sight.weight, sight.canary.ready, sight.changed) == (100, 1, "")
    before = one.live()["metadata"]
    for _ in range(3):
        one.target.tell("RolledBack", "error rate 5 % against 1 %", warning=True)
    (event,) = one.cluster.list(EVENT)
    assert (event["count"], event["type"], event["reason"]) == (3, "Warning", "RolledBack")
    assert event["involvedObject"]["name"] == SERVICE
    assert event["involvedObject"]["uid"] == before["uid"]
    fake.faults.add("answer", code=403, method="POST", path="events")
    one.target.tell("Other", "something else")
    assert one.live()["metadata"]["generation"] == before["generation"]


def test_a_release_goes_its_way_though_it_is_killed_after_every_write(two):
    one, stable, candidate = two
    metadata = one.live()["metadata"]
    one.person(lambda now: now["metadata"].setdefault("labels", {}).__setitem__("cost-centre", "7"))
    # A label of the service reaches the pods, and makes a revision.
    eventually(lambda: part(one)["latestRolledoutRevision"] == revision(2))
    with one.client(per_second=100) as client:
        one.killed_at_every_write("stage", candidate)
        staged = one.target.stage(candidate)
        assert staged.revision == revision(3)
        assert staged.url.startswith("http://latest-")
        assert answered_by(one, client) == {revision(2)}
        sight = one.target.look(stable, candidate, 0)
        assert (sight.weight, sight.stable.ready, sight.canary.ready, sight.changed) == (0, 1, 1, "")
        assert (sight.stable.revision, sight.canary.revision) == (revision(2), revision(3))
        assert sight.canary.url == staged.url
        one.killed_at_every_write("shift", candidate, 50)
        client.reset()
        client.wait(100)
        assert set(client.counts()) == {revision(2), revision(3)}
        one.killed_at_every_write("shift", candidate, 100)
        one.killed_at_every_write("promote", candidate)
        assert answered_by(one, client) == {revision(3)}
        assert client.failed == []
    assert PERCENT not in one.live()["spec"]["predictor"]
    assert part(one)["latestRolledoutRevision"] == revision(3)
    # Fields of others survive, and no state of the rollout is in the metadata.
    after = one.live()["metadata"]
    assert after["labels"] == metadata["labels"] | {"cost-centre": "7"}
    assert after["annotations"] == metadata["annotations"]


def test_a_step_that_is_tried_again_after_the_promotion_does_not_un_promote_but_a_rollback_is_instant(two):
    """The retry trap: with a percentage below 100 KServe would give the rest to the model before."""
    one, stable, candidate = two
    one.target.stage(candidate)
    one.target.promote(candidate)
    before = one.live()
    again = one.new()
    again.shift(candidate, 10)
    assert again.stage(candidate).revision == revision(2)
    again.promote(candidate)
    assert one.live()["metadata"]["generation"] == before["metadata"]["generation"]
    assert part(one)["latestRolledoutRevision"] == revision(2)
    with one.client(per_second=100) as client:
        one.target.roll_back(stable, candidate)
        assert revision(2) not in answered_by(one, client)
        assert client.failed == []
    predictor = one.live()["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == stable.uri  # else the bad spec would stay the desired one
    assert PERCENT not in predictor
    assert part(one)["latestRolledoutRevision"] == revision(3)


def test_the_bad_revision_gets_no_traffic_while_the_old_spec_comes_back_however_often_that_is_killed(two, simulation):
    """Without a percentage "the latest" is the newest revision that is ready: the bad one until the old has started."""
    one, stable, candidate = two
    one.target.stage(candidate)
    one.target.shift(candidate, 50)
    simulation.faults.slow_to_start(f"/models/{one.namespace}/1", 1.0)
    with one.client(per_second=100) as client:
        with pytest.raises(Killed):
            one.new(dies_after=1).roll_back(stable, candidate)
        eventually(lambda: one.target.look(stable, candidate, 0).weight == 0)
        client.reset()
        one.killed_at_every_write("roll_back", stable, candidate)
        client.wait(20)
        assert client.failed == []
        assert revision(2) not in client.counts()
    assert part(one)["latestRolledoutRevision"] == revision(3)
    generation = one.live()["metadata"]["generation"]
    one.target.roll_back(stable, candidate)
    assert one.live()["metadata"]["generation"] == generation


def test_a_release_that_cannot_start_leaves_the_traffic_where_it_is_and_says_why(two, simulation):
    one, stable, candidate = two
    other = one.release("3")
    simulation.faults.image_cannot_be_pulled(f"/models/{one.namespace}/2")
    simulation.faults.refuses_to_load(f"/models/{one.namespace}/3")
    with one.client() as client:
        with pytest.raises(NotReady, match="ImagePullBackOff"):
            one.target.stage(candidate)
        with pytest.raises(NotReady, match="it said: BadBundle: the model was altered"):
            one.target.stage(other)
        eventually(lambda: "BadBundle" in one.target.look(stable, other, 0).canary.trouble)
        assert one.target.look(stable, other, 0).canary.restarts
        one.target.roll_back(stable, other)
        assert client.failed == []
        assert not {revision(2), revision(3)} & set(client.counts())


def test_what_a_person_changes_is_named_and_respected(two):
    one, stable, candidate = two
    one.target.stage(candidate)
    one.target.shift(candidate, 10)
    one.person(lambda now: now["spec"]["predictor"].__setitem__(PERCENT, 30))
    changed = one.target.look(stable, candidate, 10).changed
    assert changed.startswith("spec.predictor.canaryTrafficPercent is 30 instead of 10 (set by kubectl-edit at 20")
    for verb in (lambda: one.target.shift(candidate, 50), lambda: one.target.promote(candidate)):
        with pytest.raises(Changed, match="kubectl-edit"):
            verb()
    assert one.live()["spec"]["predictor"][PERCENT] == 30
    one.person(lambda now: now["spec"]["predictor"].__setitem__(PERCENT, 10))
    one.person(lambda now: now["spec"]["predictor"]["model"].__setitem__("storageUri", "file:///models/other"))
    assert "storageUri is file:///models/other instead of" in one.target.look(stable, candidate, 10).changed
    with pytest.raises(Changed, match="kubectl-edit"):
        one.target.shift(candidate, 20)
    one.target.remove()
    assert "is gone" in one.target.look(stable, candidate, 10).changed


def test_nothing_is_written_once_the_service_has_another_owner(bench):
    def lost():
        raise Lost("another rollout owns the service")

    one = bench(guard=lost)
    for verb in (lambda: one.target.stage(one.release("1")), one.target.remove):
        with pytest.raises(Lost):
            verb()
    assert not one.target.live()


def test_large_models_get_the_time_that_they_are_given(bench):
    one = bench(more={"ready_seconds": 1800})
    manifest = one.target.manifest(one.release("1"))
    assert manifest["spec"]["predictor"]["annotations"]["serving.knative.dev/progress-deadline"] == "1800s"
    assert "startupProbe" not in manifest["spec"]["predictor"]["model"]  # Knative refuses one
