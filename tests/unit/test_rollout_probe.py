"""What the probe finds on a cluster, and how it refuses: everything that is missing in one message."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from components.cluster.api import Cluster
from components.errors import BadInput, Unreachable
from components.rollout.deployment import Deployment
from components.rollout.targets import probe
from components.rollout.targets.choose import target_for
from components.rollout.targets.knative import Knative
from components.rollout.targets.standard import Standard
from components.rollout.targets.two_services import TwoServices
from tests.cluster.kinds import KINDS
from tests.cluster.server import ApiServer

Plain = dict[str, Any]
KSERVE, KNATIVE, ROUTES = "serving.kserve.io", "serving.knative.dev", "gateway.networking.k8s.io"
GATEWAY = "kserve/kserve-ingress-gateway"


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


@pytest.fixture
def cluster(server: ApiServer) -> Iterator[Cluster]:
    whole = Cluster(server.client(), "default", patience_seconds=3)
    whole.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kserve"}})
    yield whole
    server.discovery.hidden.clear()
    for kind, name in ((probe.CONFIG_MAP, "inferenceservice-config"), (probe.DEPLOYMENT, "kserve-controller-manager")):
        whole.inside("kserve").delete(kind, name)


@pytest.fixture
def install(server: ApiServer, cluster: Cluster) -> Callable[..., Cluster]:
    """A KServe of some kind, and what is beside it."""

    def made(
        version: str = "v0.21.0",
        mode: str = "Standard",
        gateway_api: bool | None = True,
        without: tuple[str, ...] = (),
        gateway: str = GATEWAY,
    ) -> Cluster:
        server.discovery.hidden.update(without)
        ingress: Plain = {"ingressDomain": "example.com"} | ({"kserveIngressGateway": gateway} if gateway else {})
        if gateway_api is not None:
            ingress["enableGatewayApi"] = gateway_api
        data = {"ingress": json.dumps(ingress), "deploy": json.dumps({"defaultDeploymentMode": mode})}
        meta = {"name": "inferenceservice-config"}
        theirs = cluster.inside("kserve")
        theirs.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
        theirs.apply(_manager(version))
        return cluster

    return made


def _manager(version: str) -> Plain:
    labels = {"control-plane": "kserve-controller-manager"}
    containers = [
        {"name": "proxy", "image": "registry.example.com:5000/kube-rbac-proxy:v0.99.1"},
        {"name": "manager", "image": f"registry.example.com:5000/kserve/kserve-controller:{version}"},
    ]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kserve-controller-manager"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def wanted(**more: Any) -> Deployment:
    return Deployment.model_validate({"namespace": "default"} | more)


def test_the_facts_are_read_from_discovery_configuration_image_and_schema(install: Callable[..., Cluster]) -> None:
    found = probe.facts(install())
    assert found == probe.Facts(
        kserve=True,
        version=(0, 21),
        default_mode="Standard",
        knative=True,
        gateway_api=True,
        uses_gateway_api=True,
        gateway=GATEWAY,
        canary_field=True,
        domain="example.com",
    )


def test_the_older_names_of_the_modes_are_understood_and_given_back(install: Callable[..., Cluster]) -> None:
    found = probe.facts(install("v0.15.2", "RawDeployment"))
    assert found.default_mode == "Standard"
    assert found.mode_name("Standard") == "RawDeployment"
    assert found.mode_name("Knative") == "Serverless"
    assert probe.facts(install("v0.21.0")).mode_name("Standard") == "Standard"


def test_a_version_that_cannot_be_read_is_not_trusted(install: Callable[..., Cluster]) -> None:
    for version in ("latest", "nightly-5000.1"):
        found = probe.facts(install(version))
        assert found.version is None
        assert not found.writes_weights
    with pytest.raises(BadInput, match=r"0\.21 or newer; it is unknown"):
        probe.require("standard", install("latest"), wanted(), None)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({}, Standard),
        ({"version": "v0.20.1"}, TwoServices),
        ({"gateway_api": False}, TwoServices),
        ({"gateway_api": None}, TwoServices),
        ({"mode": "Knative"}, Knative),
        ({"mode": "Serverless", "version": "v0.15.0"}, Knative),
        ({"without": (ROUTES,)}, Knative),
        ({"mode": "Knative", "without": (KNATIVE,)}, Standard),
    ],
)
def test_auto_takes_the_best_that_the_cluster_can_do(
    install: Callable[..., Cluster], kind: Plain, expected: type
) -> None:
    cluster = install(**kind)
    target = target_for(wanted(), "churn", lambda: None, cluster)
    assert type(target) is expected
    target.check()


def test_a_cluster_without_any_names_everything_that_each_would_need(install: Callable[..., Cluster]) -> None:
    cluster = install("v0.20.0", gateway_api=False, without=(KNATIVE, ROUTES), gateway="")
    with pytest.raises(BadInput) as error:
        target_for(wanted(), "churn", lambda: None, cluster)
    said = str(error.value)
    assert said.count("\n") == 0
    standard, two, knative = said.removeprefix("This cluster cannot do a canary: ").split(" | ")
    assert standard.startswith("standard lacks Gateway API (no HTTPRoutes are served here); enableGatewayApi: true")
    assert "(it is false)" in standard
    assert "0.21 or newer; it is 0.20" in standard
    assert two == "two-services lacks Gateway API (no HTTPRoutes are served here); the name of a Gateway " + (
        "(deployment.gateway)"
    )
    assert knative == "knative lacks Knative Serving."


def test_a_cluster_without_kserve_says_so(install: Callable[..., Cluster]) -> None:
    cluster = install(without=(KSERVE,))
    assert probe.facts(cluster) == probe.Facts()
    for where in ("auto", "knative", "standard", "two-services"):
        with pytest.raises(BadInput, match="KServe"):
            target_for(wanted(where=where), "churn", lambda: None, cluster).check()


def test_a_mechanism_that_is_asked_for_is_not_replaced_by_another(install: Callable[..., Cluster]) -> None:
    target = target_for(wanted(where="standard"), "churn", lambda: None, install("v0.20.0"))
    with pytest.raises(BadInput, match="cannot do a canary by standard: it lacks a KServe that writes the weights"):
        target.check()


def test_a_schema_without_the_canary_field_is_noticed() -> None:
    older = [kind for kind in KINDS if kind.kind != "InferenceService"]
    isvc = next(kind for kind in KINDS if kind.kind == "InferenceService")
    schema = json.loads(json.dumps(isvc.source()))
    del schema["properties"]["spec"]["properties"]["canary"]
    with ApiServer([*older, replace(isvc, source=lambda: schema)]) as old:
        cluster = Cluster(old.client(), "default", patience_seconds=3)
        assert not probe.facts(cluster).canary_field
        missing = list(probe.lacking("standard", cluster, wanted(), probe.facts(cluster)))
    assert "spec.canary in the schema of InferenceService" in missing


def test_scaling_to_zero_needs_knative(install: Callable[..., Cluster]) -> None:
    none = wanted(autoscaling={"min_replicas": 0})
    assert type(target_for(none, "churn", lambda: None, install())) is Knative
    with pytest.raises(BadInput, match="needs Knative mode"):
        target_for(none.model_copy(update={"where": "standard"}), "churn", lambda: None, install()).check()


@pytest.mark.parametrize("one", ["knative", "standard", "two-services"])
def test_every_permission_that_is_missing_is_named_at_once(
    server: ApiServer, install: Callable[..., Cluster], one: str
) -> None:
    cluster = install()
    name = f"reader-{one}"
    head: Plain = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
    groups = [KSERVE, ROUTES, KNATIVE, "apps", ""]
    rules = [{"apiGroups": groups, "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    cluster.apply(head | {"kind": "Role", "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
    cluster.apply(head | {"kind": "RoleBinding", "roleRef": reference, "subjects": [subject]})
    reader = Cluster(server.client(f"default/{name}"), "default", patience_seconds=3)
    with pytest.raises(BadInput) as error:
        probe.require(one, reader, wanted(), None)
    said = str(error.value)
    assert "permission to patch, create, delete InferenceServices in default" in said
    assert "permission to create Events in default" in said
    assert ("permission to patch, create, delete HTTPRoutes in default" in said) == (one == "two-services")
    if one == "standard":  # and what of KServe may not be read counts as missing, not as there
        assert "enableGatewayApi: true in KServe's configuration (it cannot be read)" in said
        assert "it is unknown" in said


def test_a_service_made_in_the_other_mode_or_that_kserve_does_not_update_is_refused(
    install: Callable[..., Cluster],
) -> None:
    live: Plain = {
        "metadata": {"name": "churn", "annotations": {"serving.kserve.io/disable-auto-update": "true"}},
        "spec": {"predictor": {}, "transformer": {"containers": [{"name": "t"}]}},
        "status": {"deploymentMode": "Serverless"},
    }
    with pytest.raises(BadInput) as error:
        probe.require("standard", install(), wanted(), live)
    said = str(error.value)
    assert "without transformer and explainer (churn has one" in said
    assert "disable-auto-update" in said
    assert "churn is in Knative mode, which cannot be changed" in said
    live["metadata"]["annotations"] = {}
    probe.require("knative", install(mode="Knative"), wanted(), live)


def test_an_api_server_that_is_away_is_not_a_cluster_that_cannot(server: ApiServer) -> None:
    hasty = Cluster(server.client(), "default", patience_seconds=0.5)
    with server.away(), pytest.raises(Unreachable):
        probe.facts(hasty)


def test_the_gateway_of_the_deployment_comes_before_the_cluster_s(install: Callable[..., Cluster]) -> None:
    found = probe.facts(install())
    assert probe.gateway_of(wanted(), found) == ("kserve", "kserve-ingress-gateway")
    assert probe.gateway_of(wanted(gateway="edge/public"), found) == ("edge", "public")
