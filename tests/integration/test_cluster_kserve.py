"""The simulated KServe behaves as KServe does, traps included: real servers behind a real Envoy, counted requests."""

import copy
import json
import math
import urllib.request

import pytest

from serving.local import loopback
from tests.cluster.kserve.admission import Refused, admit
from tests.cluster.kserve.api import RESOURCES
from tests.cluster.kserve.documents import isvc, promoted, with_canary
from tests.cluster.kserve.knative import isvc_status, next_revision, traffic_targets
from tests.cluster.kserve.kubelet import Timing
from tests.cluster.kserve.simulation import kserve
from tests.cluster.kserve.things import condition, is_true

pytest_plugins = ["tests.cluster.fixtures"]

NAMESPACE = "default"


@pytest.fixture(scope="module")
def knative(api_server):
    with kserve(api_server, deadline=2, timing=Timing(back_off=0.1, most_back_off=0.3, evict=0.6)) as simulation:
        yield simulation
        assert not simulation.troubles


class Steps:
    """What a person does with kubectl, and what can be seen afterwards."""

    def __init__(self, simulation):
        self.simulation = simulation

    def create(self, document):
        self.simulation.api.create(RESOURCES["InferenceService"], document)

    def change(self, document):
        """Replace the spec and metadata of a service, whoever writes meanwhile."""
        for _ in range(20):
            try:
                now = self.simulation.api.get(RESOURCES["InferenceService"], NAMESPACE, document["metadata"]["name"])
                metadata = {**now["metadata"], **document["metadata"]}
                return self.simulation.api.update(
                    RESOURCES["InferenceService"], {**now, "metadata": metadata, "spec": document["spec"]}
                )
            except Exception as error:
                if getattr(error, "status", 0) != 409:
                    raise
        raise AssertionError("always in conflict")

    def wait(self, name, done, seconds=20):
        return self.simulation.wait("InferenceService", name, done, seconds=seconds)

    def ready(self, name):
        return self.wait(name, lambda one: is_true(one, "Ready"))

    def split(self, name, **shares):
        """Wait until the status says so; ``r1=90`` is the first revision."""
        wanted = {f"{name}-predictor-{int(key[1:]):05d}": share for key, share in shares.items()}
        return self.wait(name, lambda one: traffic(one) == wanted)


def part(service):
    return service.get("status", {}).get("components", {}).get("predictor", {})


def said_of(kind, service):
    return condition(service["status"]["conditions"], kind)["status"]


def traffic(service):
    shares = {}
    for target in part(service).get("traffic", []):
        shares[target["revisionName"]] = shares.get(target["revisionName"], 0) + target["percent"]
    return shares


def near(count, total, share):
    """Whether a count is within the middle 99.9 % of what a share gives."""
    return abs(count - total * share) <= 3.3 * math.sqrt(total * share * (1 - share)) + 1


@pytest.fixture
def steps(knative):
    return Steps(knative)


def test_the_first_revision_has_all_traffic_whatever_percent_is_asked(steps, knative):
    steps.create(isvc("first", "file:///m/a", canaryTrafficPercent=10))
    status = part(steps.split("first", r1=100))
    assert status["latestRolledoutRevision"] == "first-predictor-00001"
    steps.ready("first")
    with knative.client("first") as client:
        client.wait(20)
    assert client.counts() == {"first-predictor-00001": client.sent}


def test_a_change_splits_the_traffic_and_each_version_can_be_reached_alone(steps, knative):
    tags = {"serving.kserve.io/enable-tag-routing": "true"}
    steps.create(isvc("split", "file:///m/a", annotations=tags))
    steps.ready("split")
    with knative.client("split", per_second=300) as client:
        steps.change(isvc("split", "file:///m/b", annotations=tags, canaryTrafficPercent=10))
        service = steps.split("split", r1=90, r2=10)
        client.reset()
        client.wait(600)
    counts = client.counts()
    assert near(counts["split-predictor-00002"], sum(counts.values()), 0.1), counts
    assert client.failed == []
    urls = {target["tag"]: target["url"] for target in part(service)["traffic"]}
    assert set(urls) == {"latest", "prev"}
    for tag, revision in (("latest", "split-predictor-00002"), ("prev", "split-predictor-00001")):
        with urllib.request.urlopen(f"{urls[tag]}/v2/models/split", timeout=5) as answer:
            assert json.load(answer)["versions"] == [revision]


def test_zero_percent_is_a_dark_launch_and_promotion_moves_everything(steps, knative):
    steps.create(isvc("dark", "file:///m/a"))
    steps.ready("dark")
    with knative.client("dark", per_second=100) as client:
        steps.change(isvc("dark", "file:///m/b", canaryTrafficPercent=0))
        steps.split("dark", r1=100, r2=0)
        client.reset()
        client.wait(60)
        assert set(client.counts()) == {"dark-predictor-00001"}
        steps.change(isvc("dark", "file:///m/b"))
        status = part(steps.split("dark", r2=100))
        client.wait(60)
    assert client.failed == []
    assert (status["latestRolledoutRevision"], status["previousRolledoutRevision"]) == (
        "dark-predictor-00002",
        "dark-predictor-00001",
    )
    # Nobody routes to the old revision any more: its pods end.
    knative.wait("Deployment", "dark-predictor-00001-deployment", lambda one: one["spec"]["replicas"] == 0)


def test_a_step_that_is_repeated_after_promotion_gives_the_traffic_to_the_old_model(steps):
    """The retry trap: the same document with a percent below 100 is taken for a rollback."""
    steps.create(isvc("again", "file:///m/a"))
    steps.ready("again")
    ten = isvc("again", "file:///m/b", canaryTrafficPercent=10)
    steps.change(ten)
    steps.split("again", r1=90, r2=10)
    steps.change(isvc("again", "file:///m/b", canaryTrafficPercent=100))
    steps.split("again", r2=100)
    steps.change(ten)
    status = part(steps.split("again", r1=90, r2=10))
    assert status["latestRolledoutRevision"] == "again-predictor-00001"


def test_a_canary_that_never_becomes_ready_leaves_the_traffic_and_says_not_ready(steps, knative):
    knative.faults.never_ready("/m/never")
    steps.create(isvc("never", "file:///m/a"))
    steps.ready("never")
    with knative.client("never", per_second=50) as client:
        steps.change(isvc("never", "file:///m/never", canaryTrafficPercent=10))
        service = steps.wait("never", lambda one: not is_true(one, "Ready") and traffic(one))
        assert traffic(service) == {"never-predictor-00001": 100}
        service = steps.wait("never", lambda one: said_of("Ready", one) == "False")
        assert part(service)["latestCreatedRevision"] == "never-predictor-00002"
        assert part(service)["latestReadyRevision"] == "never-predictor-00001"
        steps.change(isvc("never", "file:///m/a", canaryTrafficPercent=0))  # a good spec ends it: a revision of its own
        steps.split("never", r1=100, r3=0)
        steps.ready("never")
    assert client.failed == []


def test_annotations_of_the_service_make_a_new_revision(steps):
    steps.create(isvc("noted", "file:///m/a"))
    steps.ready("noted")
    steps.change(isvc("noted", "file:///m/a", annotations={"rollout/state": "step-1"}))
    steps.wait("noted", lambda one: part(one).get("latestReadyRevision") == "noted-predictor-00002")


@pytest.mark.parametrize(
    ("fault", "reason", "said"),
    [
        ("image_cannot_be_pulled", "ImagePullBackOff", "Back-off pulling image"),
        ("refuses_to_load", "CrashLoopBackOff", "BadBundle: the model was altered"),
    ],
)
def test_what_is_wrong_with_a_pod_can_be_read_from_it(steps, knative, fault, reason, said):
    name = fault.replace("_", "-")
    getattr(knative.faults, fault)(f"/m/{name}")
    steps.create(isvc(name, f"file:///m/{name}"))

    def shows(_):
        pods = knative.pods(name)
        status = (pods[0].get("status", {}).get("containerStatuses") or [{}])[0] if pods else {}
        return reason in json.dumps(status.get("state", {})) and said in json.dumps(status)

    steps.wait(name, shows)
    service = steps.wait(name, lambda one: said_of("PredictorReady", one) == "False")
    assert "00001" in condition(service["status"]["conditions"], "PredictorReady")["message"]


def test_a_server_out_of_memory_is_started_again_and_says_so(steps, knative):
    steps.create(isvc("memory", "file:///m/a"))
    steps.ready("memory")
    assert knative.faults.out_of_memory("memory-predictor") == 1
    pod = knative.pods("memory")[0]["metadata"]["name"]

    def started_again(one):
        (status,) = one["status"]["containerStatuses"]
        return status["restartCount"] == 1 and status["ready"] and status["lastState"]["terminated"]

    ended = knative.wait("Pod", pod, started_again)["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_lost_node_costs_its_pods_which_come_back_elsewhere(steps, knative):
    steps.create(isvc("node", "file:///m/a", minReplicas=2))
    steps.ready("node")
    knative.wait("Deployment", "node-predictor-00001-deployment", lambda one: one["status"].get("readyReplicas") == 2)
    on = {pod["spec"]["nodeName"] for pod in knative.pods("node-predictor")}
    assert on == {"node-a", "node-b"}
    with knative.client("node", per_second=100) as client:
        knative.faults.lose_node("node-a")

        def elsewhere(_):
            pods = knative.pods("node-predictor")
            return len(pods) == 2 and all(one["spec"]["nodeName"] == "node-b" and is_true(one, "Ready") for one in pods)

        knative.wait("Deployment", "node-predictor-00001-deployment", elsewhere)
        client.reset()
        client.wait(50)
        assert client.failed == []
    knative.faults.bring_node_back("node-a")


def test_prometheus_finds_the_pods_and_what_they_count(steps, knative):
    steps.create(isvc("counted", "file:///m/a"))
    steps.ready("counted")
    with knative.client("counted") as client:
        client.wait(20)
    (target,) = [one for one in knative.prometheus_targets() if "counted" in one["labels"]["pod"]]
    assert target["labels"]["revision"] == "counted-predictor-00001"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://{target['targets'][0]}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    who = 'model_name="counted",revision="counted-predictor-00001"'
    assert f'sluiceway_requests_total{{{who},code="200"}} {client.sent}.0' in text
    assert f"sluiceway_prediction_count{{{who}}} {client.sent}.0" in text


@pytest.fixture(scope="module")
def standard(knative):
    """Standard mode beside Knative mode, in one controller: the annotation says which a service has."""
    return knative


def apart(service, uri, **more):
    """A service in Standard mode without an autoscaler."""
    notes = {"serving.kserve.io/deploymentMode": "Standard", "serving.kserve.io/autoscalerClass": "none"}
    return isvc(service, uri, annotations=notes | more.pop("annotations", {}), **more)


def backends(simulation, name):
    found = simulation.get("HTTPRoute", name)
    return {one["name"]: one.get("weight", 1) for one in found["spec"]["rules"][0]["backendRefs"]} if found else {}


def test_standard_mode_splits_by_the_weights_of_a_route(steps, standard):
    steps.create(apart("churn", "file:///m/a", name="v1", minReplicas=2))
    steps.ready("churn")
    with standard.client("churn", per_second=300) as client:
        steps.change(with_canary(apart("churn", "file:///m/a", name="v1", minReplicas=2), "v2", "file:///m/b", 10))
        service = steps.wait("churn", lambda one: is_true(one, "CanaryPredictorReady"))
        assert (
            service["status"]["canaryStatuses"][0] | {"name": "v2", "ready": True, "trafficPercent": 10}
            == (service["status"]["canaryStatuses"][0])
        )
        wanted = {"churn-v1-predictor": 90, "churn-v2-predictor": 10}
        standard.wait("HTTPRoute", "churn", lambda _: backends(standard, "churn") == wanted)
        standard.wait("HTTPRoute", "churn", accepted)
        client.reset()
        client.wait(600)
    counts = client.counts()
    assert near(counts["churn-v2-predictor"], sum(counts.values()), 0.1), counts
    assert client.failed == []
    # A canary's pods are taken off the stable one's, and come back only once it is gone.
    standard.wait("Deployment", "churn-v1-predictor", lambda one: one["spec"]["replicas"] == 1)
    # Inside the cluster the plain Service passes the split by.
    address = steps.wait("churn", lambda one: one["status"].get("address"))["status"]["address"]["url"]
    for _ in range(10):
        with urllib.request.urlopen(f"{address}/v2/models/churn", timeout=5) as answer:
            assert json.load(answer)["versions"] == ["churn-v1-predictor"]


def canaries(service):
    return {one["name"]: one["ready"] for one in service["status"].get("canaryStatuses", [])}


def accepted(route):
    conditions = [one for parent in route.get("status", {}).get("parents", []) for one in parent["conditions"]]
    current = [one for one in conditions if one["observedGeneration"] == route["metadata"]["generation"]]
    return {one["type"] for one in current if one["status"] == "True"} == {"Accepted", "ResolvedRefs"}


def test_a_careless_promotion_falls_off_the_cliff_and_a_careful_one_does_not(steps, standard):
    """The old Deployment goes before the route changes: only a canary with all traffic and capacity may take over."""
    lost = {}
    for name, percent, copies in (("careless", 10, 1), ("careful", 100, 3)):
        standard.faults.busy(name, 0.008, start=0.4)
        base = apart(name, "file:///m/a", name="v1", minReplicas=3)
        steps.create(base)
        steps.ready(name)
        with standard.client(name, per_second=200, connections=16) as client:
            canary = with_canary(base, "v2", "file:///m/b", percent, minReplicas=copies)
            steps.change(canary)
            wanted = {f"{name}-v1-predictor": 100 - percent, f"{name}-v2-predictor": percent}
            standard.wait("HTTPRoute", name, lambda _, w=wanted, n=name: backends(standard, n) == w)
            ready = f"{name}-v2-predictor"
            standard.wait("Deployment", ready, lambda one, c=copies: one["status"].get("availableReplicas") == c)
            if name == "careful":
                standard.wait("HTTPRoute", name, accepted)  # before, the gateway still splits as it did
            client.reset()
            steps.change(promoted(canary))
            standard.wait("HTTPRoute", name, lambda _, n=name: set(backends(standard, n)) == {f"{n}-v2-predictor"})
            standard.wait("HTTPRoute", name, accepted)
            standard.wait("Deployment", ready, lambda one: one["status"].get("availableReplicas") == 3)
            client.wait(20)
        assert standard.get("Deployment", f"{name}-v1-predictor") is None
        lost[name] = len(client.failed)
    assert lost["careful"] == 0
    assert lost["careless"] > 10, lost


def test_a_canary_without_traffic_has_no_pods_unless_it_asks_for_one(steps, standard):
    base = apart("zero", "file:///m/a", name="v1")
    steps.create(base)
    steps.ready("zero")
    steps.change(with_canary(base, "v2", "file:///m/b", 0))
    standard.wait("Deployment", "zero-v2-predictor", lambda one: one["spec"]["replicas"] == 0)
    steps.wait("zero", lambda one: canaries(one) == {"v2": False})
    steps.change(with_canary(base, "v2", "file:///m/b", 0, minReplicas=1))
    steps.wait("zero", lambda one: canaries(one) == {"v2": True})


def test_the_knative_field_does_nothing_in_standard_mode(steps, standard):
    steps.create(apart("ignored", "file:///m/a", minReplicas=1))
    steps.ready("ignored")
    with standard.client("ignored", per_second=50) as client:
        steps.change(apart("ignored", "file:///m/b", minReplicas=1, canaryTrafficPercent=10))
        uri = "internal.serving.kserve.io/storage-initializer-sourceuri"

        def only_new(_):
            pods = standard.pods("ignored")
            return len(pods) == 1 and pods[0]["metadata"]["annotations"][uri] == "file:///m/b"

        standard.wait("Deployment", "ignored-predictor", only_new)  # a rolling update: all traffic, at once
    assert client.failed == []


def test_two_services_behind_our_own_route_split_and_mirror(steps, standard):
    for name in ("pair-a", "pair-b"):
        steps.create(apart(name, f"file:///m/{name}"))
        steps.ready(name)
    mirror = {"backendRef": {"name": "pair-b-predictor", "port": 80}, "percent": 50}
    rule = {
        "backendRefs": [
            {"name": "pair-a-predictor", "port": 80, "weight": 100},
            {"name": "pair-b-predictor", "port": 80, "weight": 0},
        ],
        "filters": [{"type": "RequestMirror", "requestMirror": mirror}],
    }
    where, name = standard.options.gateway.split("/")
    spec = {"parentRefs": [{"name": name, "namespace": where}], "hostnames": ["pair.example.com"], "rules": [rule]}
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": spec}
    route["metadata"] = {"name": "pair", "namespace": NAMESPACE}
    standard.api.create(RESOURCES["HTTPRoute"], route)
    standard.wait("HTTPRoute", "pair", accepted)
    # Each server answers for its own model's name; the one mirrored to counts nothing for a name that it does not know.
    with standard.client("pair-a", host="pair.example.com", per_second=200) as client:
        client.wait(100)
    assert client.counts() == {"pair-a-predictor": client.sent}
    assert client.failed == []
    count = "cluster.default/pair-b-predictor.upstream_rq_total"
    stats = json.loads(loopback.get(standard.gateway.admin_port, f"/stats?format=json&filter={count}")[1])["stats"]
    mirrored = stats[0]["value"]
    assert near(mirrored, client.sent, 0.5), (mirrored, client.sent)


# --- rules, without a cluster


def test_the_webhook_refuses_what_kserve_refuses():
    base = apart("w", "file:///m/a", name="v1", minReplicas=2)
    good = with_canary(base, "v2", "file:///m/b", 10)
    assert admit(good, base)["spec"] == good["spec"]

    def refused(change, old=None):
        document = copy.deepcopy(good)
        change(document)
        with pytest.raises(Refused) as error:
            admit(document, old)
        return str(error.value)

    def canary(**fields):
        return lambda one: one["spec"]["canary"][0]["predictor"].update(fields)

    assert "maxReplicas" in refused(canary(maxReplicas=3))
    assert "scaleTarget" in refused(canary(scaleTarget=3))
    assert "workerSpec" in refused(canary(workerSpec={}))
    assert "must not exceed" in refused(canary(minReplicas=3))
    assert "conflicts" in refused(canary(name="v1"))
    assert "between 0 and 100" in refused(lambda one: one["spec"]["canary"][0].update(trafficPercent=101))
    more = {"trafficPercent": 95, "predictor": {**good["spec"]["canary"][0]["predictor"], "name": "v3"}}
    assert "must be <= 100" in refused(lambda one: one["spec"]["canary"].append(more))
    mode = "serving.kserve.io/deploymentMode"
    assert "only supported in Standard" in refused(lambda one: one["metadata"]["annotations"].update({mode: "Knative"}))
    assert "requires a model change" in refused(lambda one: one["spec"]["predictor"].update(name="v9"), old=base)
    # The CRD asks a canary's container for a name, and the webhook forbids one on the stable predictor's.
    assert "'name' field" in refused(lambda one: one["spec"]["predictor"]["model"].update(name="kserve-container"))


def test_a_version_that_does_not_split_leaves_the_route_without_weights():
    from tests.cluster.kserve.standard import desired_routes

    service = with_canary(apart("old", "file:///m/a", name="v1"), "v2", "file:///m/b", 10)
    service["metadata"]["uid"] = "u"
    service["status"] = {"canaryStatuses": [{"name": "v2", "ready": True, "trafficPercent": 10}]}
    for splits, names in ((True, ["old-v1-predictor", "old-v2-predictor"]), (False, ["old-v1-predictor"])):
        for route in desired_routes(service, "kserve/gateway", splits=splits):
            assert [one["name"] for one in route["spec"]["rules"][0]["backendRefs"]] == names


def test_history_is_one_deep():
    """After a rollback and another change, the revision before the last is not known any more."""
    below = {"latestReadyRevisionName": "r3", "latestCreatedRevisionName": "r3"}
    below["traffic"] = [{"revisionName": "r3", "latestRevision": True, "percent": 100}]
    before = {"latestRolledoutRevision": "r2", "previousRolledoutRevision": "r1"}
    service = isvc("one", "file:///m/a") | {"status": {"components": {"predictor": before}}}
    status = isvc_status(service, {"metadata": {"generation": 1}, "status": below})["components"]["predictor"]
    assert (status["latestRolledoutRevision"], status["previousRolledoutRevision"]) == ("r3", "r2")
    assert traffic_targets({"canaryTrafficPercent": 100}, {}, "r3") == [{"latestRevision": True, "percent": 100}]


def test_a_template_that_comes_back_gets_a_new_revision():
    meta = {"name": "p", "namespace": "default", "uid": "u"}
    service = {"apiVersion": "v", "kind": "Service", "metadata": meta, "spec": {}}
    made = []
    for uri in ("a", "b", "a", "a"):
        service["spec"]["template"] = {"metadata": {"annotations": {"uri": uri}}, "spec": {"containers": []}}
        revision = next_revision(service, made)
        made += [revision] if revision else []
    assert [one["metadata"]["name"] for one in made] == ["p-00001", "p-00002", "p-00003"]
