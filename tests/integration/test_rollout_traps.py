"""Traps of KServe's canaries that can be seen in how a rollout leaves the cluster, step by step.

Those that need servers in trouble, writes that are killed or a person at work are in test_rollout_targets_*.py.
"""

import copy
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from components.cluster.api import DEPLOYMENT, HTTP_ROUTE, INFERENCE_SERVICE, REVISION, Cluster
from components.errors import BadInput, Changed, Lost, NotReady
from components.rollout.deployment import Deployment
from components.rollout.release import Release
from components.rollout.releases import release
from components.rollout.targets import probe
from components.rollout.targets.choose import target_for
from components.rollout.targets.kserve import KServe
from components.rollout.targets.kserve_fields import at
from components.rollout.targets.kserve_routes import shares
from tests.cluster.kserve.api import RESOURCES, Api
from tests.cluster.kserve.kubelet import Timing
from tests.cluster.kserve.simulation import kserve
from tests.cluster.kserve.things import is_true

pytest_plugins = ["tests.cluster.fixtures"]

Plain = dict[str, Any]

SERVICE = "churn"
PERSON = "kubectl-edit"
PERCENT = "spec.predictor.canaryTrafficPercent"
QUICK = Timing(back_off=0.1, most_back_off=0.3, evict=0.6, route=0.05)


@pytest.fixture(scope="module")
def simulation(api_server):
    with kserve(api_server, timing=QUICK) as running:
        yield running


@dataclass
class Service:
    """One service in a namespace of its own, and what was seen of it at each moment."""

    server: Any
    where: str
    replicas: int = 1
    more: Plain = field(default_factory=dict)
    ready_seconds: float = 15.0
    namespace: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:8]}")
    guard: Any = lambda: None

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.server.client(), self.namespace, patience_seconds=5)
        self.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        given = {"where": self.where, "namespace": self.namespace, "ready_seconds": self.ready_seconds, **self.more}
        self.deployment = Deployment.model_validate({"autoscaling": {"min_replicas": self.replicas}} | given)
        self.one, self.two = self.version("1"), self.version("2")
        self.seen: dict[str, Moment] = {}
        target = target_for(self.deployment, SERVICE, lambda: self.guard(), self.cluster)
        assert isinstance(target, KServe)
        target.tick, target.hopeless_seconds = 0.05, 0.5
        self.target: Any = target

    def version(self, number: str, uri: str = "") -> Release:
        return release(SERVICE, number, uri or f"file:///m/{self.namespace}/{number}", self.deployment, {})

    def live(self, name: str = SERVICE) -> Plain:
        found = self.cluster.get(INFERENCE_SERVICE, name)
        assert found is not None
        return found

    def see(self, name: str) -> None:
        self.seen[name] = Moment(
            self.live(),
            sorted(one["metadata"]["name"] for one in self.cluster.list(REVISION)),
            {one["metadata"]["name"]: one for one in self.cluster.list(DEPLOYMENT)},
            shares(self.cluster.get(HTTP_ROUTE, SERVICE)),
        )

    def edit(self, change: Any) -> Plain:
        """A person's change, by another manager, whoever writes meanwhile."""
        api = Api(self.server.client(), PERSON)
        for _ in range(50):
            now = api.get(RESOURCES["InferenceService"], self.namespace, SERVICE)
            change(now)
            try:
                return api.update(RESOURCES["InferenceService"], now)
            except ApiException as error:
                if error.status != 409:
                    raise
        raise AssertionError("always in conflict")

    def until(self, check: Any, seconds: float = 10) -> Plain:
        ends = time.monotonic() + seconds
        while not check(found := self.live()):
            assert time.monotonic() < ends, found
            time.sleep(0.03)
        return found


@dataclass(frozen=True)
class Moment:
    """What could be seen."""

    isvc: Plain
    revisions: list[str]
    deployments: dict[str, Plain]
    shares: dict[str, int]

    @property
    def traffic(self) -> dict[str, int]:
        return traffic(self.isvc)

    @property
    def rolled_out(self) -> str:
        return str(at(self.isvc, "status.components.predictor.latestRolledoutRevision"))


def traffic(isvc: Plain) -> dict[str, int]:
    told: dict[str, int] = {}
    for one in at(isvc, "status.components.predictor.traffic") or []:
        told[one["revisionName"]] = told.get(one["revisionName"], 0) + one["percent"]
    return told


def settled(isvc: Plain) -> bool:
    part = at(isvc, "status.components.predictor") or {}
    return bool(traffic(isvc)) and part["latestCreatedRevision"] == part["latestReadyRevision"]


def add_notes(isvc: Plain) -> None:
    """What a person adds before a rollout begins."""
    isvc["metadata"]["labels"]["team"] = "retention"
    isvc["metadata"]["annotations"]["example.com/on-call"] = "ana"
    isvc["spec"]["predictor"]["timeout"] = 77


def keeps_notes(isvc: Plain) -> bool:
    meta = isvc["metadata"]
    notes = (meta["labels"].get("team"), meta["annotations"].get("example.com/on-call"))
    return notes == ("retention", "ana") and isvc["spec"]["predictor"]["timeout"] == 77


def own_annotations(isvc: Plain) -> dict[str, str]:
    return dict(isvc["metadata"].get("annotations", {}))


@pytest.fixture(scope="module")
def knative(simulation, api_server):
    """A rollout in Knative mode with a step that is tried again after its promotion."""
    service = Service(api_server, "knative")
    service.target.deploy(service.one)
    service.edit(add_notes)
    service.until(lambda now: settled(now) and traffic(now) == {f"{SERVICE}-predictor-00002": 100})
    service.see("before")
    service.target.stage(service.two)
    service.see("staged")
    service.target.shift(service.two, 10)
    service.see("shifted")
    service.target.promote(service.two)
    service.see("promoted")
    service.target.stage(service.two)
    service.target.shift(service.two, 10)
    service.target.promote(service.two)
    time.sleep(0.3)
    service.see("again")
    return service


@pytest.fixture(scope="module")
def standard(simulation, api_server):
    """The same in Standard mode, with two servers."""
    service = Service(api_server, "standard", replicas=2)
    service.target.deploy(service.one)
    service.edit(add_notes)
    service.until(lambda now: is_true(now, "Ready"))
    service.see("before")
    service.target.stage(service.two)
    service.see("staged")
    service.target.shift(service.two, 10)
    service.see("shifted")
    service.writes = writes_of(service)
    service.target.promote(service.two)
    service.see("promoted")
    service.target.stage(service.two)
    service.target.shift(service.two, 10)
    service.target.promote(service.two)
    time.sleep(0.3)
    service.see("again")
    return service


def writes_of(service: Service) -> list[tuple[Plain, Moment]]:
    """Fills with every manifest that the target writes from now on, and how the cluster is just before."""
    written: list[tuple[Plain, Moment]] = []
    apply = service.target.applier.apply

    def noted(manifest: Plain) -> None:
        service.see("write")
        written.append((copy.deepcopy(manifest), service.seen["write"]))
        apply(manifest)

    service.target.applier.apply = noted
    return written


# --- the two mechanisms


def test_the_knative_field_is_ignored_in_standard_mode_so_each_mode_has_its_own(knative, standard):
    for moment in standard.seen.values():
        assert at(moment.isvc, PERCENT) is None
    assert standard.seen["shifted"].shares == {"churn-v1-predictor": 90, "churn-v2-predictor": 10}
    assert at(standard.seen["shifted"].isvc, "metadata.annotations")["serving.kserve.io/deploymentMode"] == "Standard"
    for moment in knative.seen.values():
        assert at(moment.isvc, "spec.canary") is None
    with pytest.raises(BadInput, match="in Standard mode, which cannot be changed"):
        probe.require("knative", standard.cluster, standard.deployment, standard.live())
    with pytest.raises(BadInput, match="in Knative mode, which cannot be changed"):
        probe.require("standard", knative.cluster, knative.deployment, knative.live())


# --- Knative mode


def test_a_challenger_is_staged_at_zero_percent_with_an_address_of_its_own(knative):
    staged = knative.seen["staged"]
    assert at(staged.isvc, PERCENT) == 0
    assert staged.traffic == {"churn-predictor-00002": 100, "churn-predictor-00003": 0}
    tags = {one["tag"] for one in at(staged.isvc, "status.components.predictor.traffic")}
    assert "latest" in tags
    assert knative.seen["shifted"].traffic == {"churn-predictor-00002": 90, "churn-predictor-00003": 10}


def test_promotion_clears_the_field(knative):
    """A merge patch through KServe's own client cannot: server-side apply without it does."""
    promoted = knative.seen["promoted"]
    assert "canaryTrafficPercent" not in promoted.isvc["spec"]["predictor"]
    assert promoted.rolled_out == "churn-predictor-00003"
    assert promoted.traffic == {"churn-predictor-00003": 100}


def test_a_retried_ten_percent_step_after_promotion_does_not_un_promote(knative):
    promoted, again = knative.seen["promoted"], knative.seen["again"]
    assert again.traffic == {"churn-predictor-00003": 100}
    assert again.rolled_out == "churn-predictor-00003"
    assert again.isvc["metadata"]["generation"] == promoted.isvc["metadata"]["generation"]
    assert again.revisions == promoted.revisions


def test_no_state_is_kept_in_the_metadata_so_only_one_revision_is_made(knative):
    """Annotations and labels go on to the pod template: a change would start the champion anew."""
    before, after = knative.seen["before"], knative.seen["again"]
    assert set(after.revisions) - set(before.revisions) == {"churn-predictor-00003"}
    for moment in knative.seen.values():
        assert own_annotations(moment.isvc) == own_annotations(before.isvc)
        assert moment.isvc["metadata"]["labels"] == before.isvc["metadata"]["labels"]


def test_ready_is_told_by_revisions_and_not_by_the_condition_or_its_generation(simulation, api_server):
    """``observedGeneration`` is a child's, and Ready may be True while the new spec has not been looked at."""
    service = Service(api_server, "knative")
    service.target.deploy(service.one)
    service.target.applier.seconds = 1 - service.ready_seconds  # the wait, and not the deadline in the manifest
    with simulation.paused():
        stale = service.live()
        assert is_true(stale, "Ready")
        with pytest.raises(NotReady, match="did not become ready with 0 % of the traffic within 1 s"):
            service.target.stage(service.two)
        assert is_true(service.live(), "Ready")
    service.target.applier.seconds = 0
    assert service.target.stage(service.two).revision == "churn-predictor-00002"


# --- Standard mode


def test_a_challenger_at_zero_percent_still_gets_a_server(standard):
    """By KServe's own rule it would have none, and never become ready."""
    staged = standard.seen["staged"]
    (canary,) = staged.isvc["spec"]["canary"]
    assert (canary["trafficPercent"], canary["predictor"]["minReplicas"]) == (0, 1)
    assert at(staged.deployments["churn-v2-predictor"], "status.availableReplicas") == 1
    assert staged.shares == {"churn-v1-predictor": 100} or staged.shares == {
        "churn-v1-predictor": 100,
        "churn-v2-predictor": 0,
    }


def test_a_challenger_has_no_field_that_kserve_refuses_on_a_canary(simulation, api_server):
    more = {"autoscaling": {"min_replicas": 1, "max_replicas": 3, "metric": "cpu", "target": 80}}
    service = Service(api_server, "standard", more=more)
    service.target.deploy(service.one)
    service.target.stage(service.two)
    (canary,) = service.live()["spec"]["canary"]
    assert not {"maxReplicas", "scaleTarget", "scaleMetric", "autoScaling", "workerSpec"} & set(canary["predictor"])
    service.target.promote(service.two)
    assert at(service.live(), "spec.predictor.maxReplicas") == 3


def test_a_container_has_its_name_on_a_canary_where_the_crd_asks_for_it(standard):
    (canary,) = standard.seen["staged"].isvc["spec"]["canary"]
    assert canary["predictor"]["model"]["name"] == "kserve-container"
    for moment in standard.seen.values():
        pods = [at(one, "spec.template.spec.containers[0].name") for one in moment.deployments.values()]
        assert set(pods) == {"kserve-container"}


def test_promotion_takes_the_canarys_name_and_starts_no_pod(standard):
    shifted, promoted = standard.seen["shifted"], standard.seen["promoted"]
    assert at(promoted.isvc, "spec.predictor.name") == "v2"
    assert "canary" not in promoted.isvc["spec"]
    assert set(promoted.deployments) == {"churn-v2-predictor"}
    uid = "metadata.uid"
    before, after = (one.deployments["churn-v2-predictor"] for one in (shifted, promoted))
    assert at(before, uid) == at(after, uid)
    assert at(before, "spec.template") == at(after, "spec.template")


def test_the_champion_goes_only_when_the_challenger_has_all_traffic_and_as_many_servers(standard):
    """KServe deletes the old Deployment before it changes the route: a cliff."""
    (first,) = [moment for manifest, moment in standard.writes if promotes(manifest, moment.isvc)]
    assert first.shares.get("churn-v1-predictor", 0) == 0
    assert first.shares["churn-v2-predictor"] == 100
    assert at(first.deployments["churn-v2-predictor"], "status.availableReplicas") >= 2
    assert at(first.deployments["churn-v1-predictor"], "status.availableReplicas") >= 2


def promotes(manifest: Plain, live: Plain) -> bool:
    return at(manifest, "spec.predictor.name") == "v2" != at(live, "spec.predictor.name")


def test_the_champion_keeps_its_servers_while_a_canary_is_there(standard):
    """KServe takes a canary's ready servers off the champion's least number, so that is raised."""
    for name in ("staged", "shifted"):
        assert at(standard.seen[name].deployments["churn-v1-predictor"], "status.availableReplicas") >= 2, name


def test_a_retried_step_in_standard_mode_changes_nothing_after_promotion(standard):
    promoted, again = standard.seen["promoted"], standard.seen["again"]
    assert again.isvc["metadata"]["generation"] == promoted.isvc["metadata"]["generation"]
    assert again.shares == {"churn-v2-predictor": 100}


def test_the_annotations_of_the_service_do_not_change_in_standard_mode_either(standard):
    before = standard.seen["before"].isvc
    for moment in standard.seen.values():
        assert own_annotations(moment.isvc) == own_annotations(before)


def test_what_a_person_has_added_stays(knative, standard):
    for service in (knative, standard):
        for name, moment in service.seen.items():
            assert keeps_notes(moment.isvc), name


# --- both modes


@pytest.mark.parametrize("where", ["knative", "standard", "two-services"])
def test_a_percentage_out_of_range_is_refused_because_the_api_would_take_it(simulation, api_server, where):
    service = Service(api_server, where)
    for percent in (-1, 101):
        with pytest.raises(BadInput, match=f"from 0 to 100; got {percent}"):
            service.target.shift(service.two, percent)
    # And a service that a person has removed meanwhile is not made anew, where the challenger would have everything.
    with pytest.raises(Changed, match="gone"):
        service.target.shift(service.two, 10)
    assert service.cluster.list(INFERENCE_SERVICE) == []


@pytest.mark.parametrize("where", ["standard", "two-services"])
def test_who_has_lost_the_service_writes_nothing_any_more(simulation, api_server, where):
    def lost() -> None:
        raise Lost("another rollout owns it now")

    service = Service(api_server, where)
    service.target.deploy(service.one)
    service.guard = lost

    def state() -> list[Plain]:
        objects = service.cluster.list(INFERENCE_SERVICE) + service.cluster.list(HTTP_ROUTE)
        return [(one["metadata"]["name"], one["metadata"]["generation"], one["spec"]) for one in objects]

    before = state()
    verbs = (
        lambda: service.target.deploy(service.two),
        lambda: service.target.stage(service.two),
        lambda: service.target.roll_back(service.two, service.one),
        service.target.remove,
    )
    for verb in verbs:
        with pytest.raises(Lost):
            verb()
    assert state() == before


def test_a_slot_that_a_finalizer_still_holds_is_waited_for_and_made_anew(simulation, api_server):
    """What is being deleted answers for a while yet: traffic that is given back to it is lost."""
    service = Service(api_server, "two-services")
    service.target.deploy(service.one)
    service.edit(lambda now: now["metadata"].__setitem__("finalizers", ["inferenceservice.finalizers"]))
    service.target.stage(service.two)
    service.target.promote(service.two)
    leaving = service.live()["metadata"]
    assert leaving["deletionTimestamp"]

    let_go = threading.Timer(0.5, service.edit, [lambda now: now["metadata"].pop("finalizers")])
    let_go.start()
    service.target.roll_back(service.one, service.two)
    let_go.join()
    now = service.live()["metadata"]
    assert now["uid"] != leaving["uid"]
    assert "deletionTimestamp" not in now
    assert shares(service.cluster.get(HTTP_ROUTE, f"{SERVICE}-split")) == {f"{SERVICE}-predictor": 100}
    assert at(service.cluster.get(DEPLOYMENT, f"{SERVICE}-predictor"), "status.availableReplicas") == 1
