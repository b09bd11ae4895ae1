"""What a cluster can do is found out before anything is written, and everything that is missing is said at once."""

import copy
import json

import pytest

from components.cluster import api
from components.errors import BadInput
from components.rollout import validation
from components.rollout.deployment import parse_deployment
from components.rollout.targets import probe
from components.rollout.targets.choose import target_for
from components.rollout.targets.probe import Facts, facts, mechanism, require


class Cluster:
    """What the probe asks of a cluster."""

    namespace = "models"

    def __init__(self, version="v0.21.0", mode="Serverless", gateway_api=True, **more):
        self.hidden = more.get("hidden", set())
        self.forbidden = more.get("forbidden", set())
        self.denied = more.get("denied", set())
        self.canary = more.get("canary", True)
        ingress = {
            "enableGatewayApi": gateway_api,
            "kserveIngressGateway": "kserve/gate",
            "ingressDomain": "example.com",
        }
        data = {"ingress": json.dumps(ingress), "deploy": json.dumps({"defaultDeploymentMode": mode})}
        container = {"name": "manager", "image": f"docker.io/kserve/kserve-controller:{version}"}
        self._objects = {
            "ConfigMap": {"data": data},
            "Deployment": {"spec": {"template": {"spec": {"containers": [container]}}}},
        }

    def inside(self, _namespace):
        return self

    def serves(self, kind):
        return kind.kind not in self.hidden and kind.api_version not in self.hidden

    def get(self, kind, _name):
        if kind.kind in self.forbidden:
            raise BadInput("forbidden")
        return self._objects.get(kind.kind)

    def fields(self, _kind):
        schema = copy.deepcopy(validation._shipped())
        if not self.canary:
            del schema["properties"]["spec"]["properties"]["canary"]
        return schema

    def may(self, verb, kind):
        return (verb, kind.kind) not in self.denied


ANY = parse_deployment({"namespace": "models"})


def chosen(cluster, deployment=ANY):
    return mechanism(cluster, deployment, facts(cluster))


def missing(cluster, one, deployment=ANY, live=None):
    with pytest.raises(BadInput) as refusal:
        require(one, cluster, deployment, live)
    return str(refusal.value)


def test_the_facts_are_read_from_kserves_own_configuration():
    assert facts(Cluster(version="v0.21.3-rc1", mode="RawDeployment")) == Facts(
        kserve=True,
        version=(0, 21),
        default_mode="Standard",
        knative=True,
        gateway_api=True,
        uses_gateway_api=True,
        gateway="kserve/gate",
        canary_field=True,
        domain="example.com",
    )


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (Cluster(), "knative"),
        (Cluster(mode="Standard"), "standard"),
        (Cluster(mode="RawDeployment", version="v0.20.0"), "two-services"),
        (Cluster(mode="Standard", gateway_api=False), "two-services"),
        (Cluster(mode="Standard", gateway_api=False, hidden={"HTTPRoute"}), "knative"),
        (Cluster(hidden={"serving.knative.dev/v1"}), "standard"),
    ],
)
def test_the_best_mechanism_that_the_cluster_can_do_is_taken(cluster, expected):
    assert chosen(cluster) == expected


def test_a_mechanism_that_is_asked_for_is_not_second_guessed():
    assert chosen(Cluster(), parse_deployment({"where": "two-services"})) == "two-services"


@pytest.mark.parametrize("version", ["v0.20.0", "v0.20.1", "latest", "sha-1234"])
def test_a_version_that_is_not_known_to_write_weights_is_not_trusted(version):
    """v0.20.0 and the head of release-0.20 take spec.canary, start pods and split nothing."""
    assert "a KServe that writes the weights" in missing(Cluster(version=version, mode="Standard"), "standard")


def test_everything_that_is_missing_is_said_in_one_message():
    cluster = Cluster(
        version="v0.19.0",
        gateway_api=False,
        hidden={"HTTPRoute", "serving.knative.dev/v1"},
        canary=False,
        denied={("patch", "InferenceService"), ("list", "Pod")},
    )
    said = missing(cluster, "standard")
    for part in ("Gateway API", "spec.canary", "enableGatewayApi: true", "(0.21 or newer; it is 0.19)"):
        assert part in said
    assert "permission to patch InferenceServices in models" in said
    assert "permission to list Pods in models" in said
    with pytest.raises(BadInput) as refusal:
        chosen(cluster)
    for part in ("knative lacks Knative Serving", "standard lacks", "two-services lacks Gateway API"):
        assert part in str(refusal.value)


def test_a_cluster_without_kserve_fails_closed():
    with pytest.raises(BadInput, match="KServe"):
        chosen(Cluster(hidden={"InferenceService"}))


def test_a_configuration_that_may_not_be_read_is_unknown_and_not_guessed():
    cluster = Cluster(forbidden={"ConfigMap", "Deployment"})
    assert (facts(cluster).version, facts(cluster).uses_gateway_api) == (None, None)
    assert chosen(cluster) == "knative"
    said = missing(cluster, "standard")
    assert "it cannot be read" in said
    assert "it is unknown" in said


def test_scale_to_zero_needs_knative():
    deployment = parse_deployment({"autoscaling": {"min_replicas": 0}})
    assert chosen(Cluster(mode="Standard"), deployment) == "knative"
    assert "alone scales to zero" in missing(Cluster(mode="Standard"), "standard", deployment)


def live(annotations=None, mode="", **spec):
    document = {"metadata": {"name": "churn", "annotations": annotations or {}}, "spec": {"predictor": {}, **spec}}
    return document | {"status": {"deploymentMode": mode}}


@pytest.mark.parametrize("part", ["transformer", "explainer"])
def test_a_canary_of_a_service_with_a_transformer_or_explainer_is_refused(part):
    """Weights for their rules were wrong until a recent fix, and no release is known to have it."""
    for one in ("standard", "two-services"):
        assert "without transformer" in missing(Cluster(mode="Standard"), one, live=live(**{part: {}}))
    require("knative", Cluster(), ANY, live(**{part: {}}))


def test_a_service_that_kserve_was_told_to_leave_alone_is_refused():
    """With disable-auto-update KServe ignores every change while the service is ready: ours too."""
    service = live({"serving.kserve.io/disable-auto-update": "true"})
    assert "disable-auto-update" in missing(Cluster(), "knative", live=service)


def test_a_service_made_in_the_other_mode_is_refused_since_the_mode_cannot_be_changed():
    assert "in Standard mode" in missing(Cluster(), "knative", live=live(mode="RawDeployment"))
    assert "in Knative mode" in missing(Cluster(mode="Standard"), "standard", live=live(mode="Serverless"))


def test_older_versions_have_other_names_for_the_modes():
    assert facts(Cluster(version="v0.15.2")).mode_name("Standard") == "RawDeployment"
    assert facts(Cluster(version="v0.21.0")).mode_name("Standard") == "Standard"


def test_each_mechanism_has_its_target():
    for where in ("knative", "standard", "two-services"):
        target = target_for(parse_deployment({"where": where}), "churn", lambda: None, Cluster())
        assert target.mechanism == where
    assert target.hostname == "churn.models.example.com"


def test_permissions_are_those_that_the_mechanism_uses():
    kinds = {one: {kind.kind for kind, _ in probe._permissions(one)} for one in ("knative", "standard", "two-services")}
    assert "Revision" in kinds["knative"]
    assert "HTTPRoute" in kinds["standard"] & kinds["two-services"]
    verbs = dict(probe._permissions("two-services"))[api.HTTP_ROUTE]
    assert {"patch", "create", "delete"} <= set(verbs)
