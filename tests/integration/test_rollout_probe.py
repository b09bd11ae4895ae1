"""The probe against an API server: what discovery, schema, configuration and reviews of permissions tell it."""

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


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({}, Standard),
        ({"version": "v0.20.1"}, TwoServices),
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


def test_a_cluster_without_kserve_says_so(install: Callable[..., Cluster]) -> None:
    cluster = install(without=(KSERVE,))
    assert probe.facts(cluster) == probe.Facts()
    for where in ("auto", "knative", "standard", "two-services"):
        with pytest.raises(BadInput, match="KServe"):
            target_for(wanted(where=where), "churn", lambda: None, cluster).check()


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


def test_an_api_server_that_is_away_is_not_a_cluster_that_cannot(server: ApiServer) -> None:
    hasty = Cluster(server.client(), "default", patience_seconds=0.5)
    with server.away(), pytest.raises(Unreachable):
        probe.facts(hasty)
