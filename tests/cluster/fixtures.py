"""Fixtures for tests against the Kubernetes API: the server of :mod:`tests.cluster.server`, or a real one.

A test module says ``pytest_plugins = ["tests.cluster.fixtures"]`` or imports what it needs:

- ``api_server`` (per module): an :class:`~tests.cluster.server.ApiServer`; with the environment variable
  ``SLUICEWAY_TEST_KUBECONFIG`` the real cluster that this kubeconfig names, as a :class:`RealServer`, with custom
  resource definitions added where they are missing. Both have ``client(account="")``: an official client.
- ``cluster`` (per test): a :class:`~components.cluster.api.Cluster` in a namespace of its own, with little
  patience.
- ``fake`` (per test): the ``api_server`` for tests that need faults or logs; they are skipped on a real cluster.
  Faults are cleared afterwards.
- ``account`` (per test): makes a service account with a Role in the test's namespace, and a Cluster that acts as it.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from components.cluster.api import Cluster, Kind
from components.errors import BadInput
from tests.cluster.kinds import KINDS, Served
from tests.cluster.server import ApiServer, impersonate

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Plain = dict[str, Any]

PATIENCE = 3.0
_NAMESPACE = Kind("v1", "Namespace")
_DEFINITION = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition")
_RBAC = "rbac.authorization.k8s.io/v1"


class RealServer:
    """A real cluster."""

    def __init__(self, kubeconfig: str) -> None:
        """Add the kinds that it does not have."""
        self.kubeconfig = kubeconfig
        cluster = Cluster(self.client(), "default", patience_seconds=30)
        for kind in KINDS:
            if not kind.own and not cluster.serves(Kind(kind.api_version, kind.kind)):
                cluster.apply(definition(kind))
                _await_served(cluster, kind)

    def client(self, account: str = "") -> "ApiClient":
        """A client of it, see :meth:`tests.cluster.server.ApiServer.client`."""
        from components.cluster.credentials import client

        found, _ = client(self.kubeconfig)
        if account:
            impersonate(found, account)
        return found


def definition(kind: Served) -> Plain:
    """The custom resource definition of a kind."""
    version = {"name": kind.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": kind.source()}}
    version |= {"subresources": {"status": {}}} if kind.has_status else {}
    return {
        "apiVersion": _DEFINITION.api_version,
        "kind": _DEFINITION.kind,
        "metadata": {
            "name": f"{kind.plural}.{kind.group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": kind.group,
            "names": {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower()},
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _await_served(cluster: Cluster, kind: Served) -> None:
    def established(found: Plain | None) -> bool | None:
        conditions = (found or {}).get("status", {}).get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions) or None

    cluster.wait(_DEFINITION, f"{kind.plural}.{kind.group}", established, 30)
    while not cluster.serves(Kind(kind.api_version, kind.kind)):
        time.sleep(0.1)


@pytest.fixture(scope="module")
def api_server() -> Iterator[ApiServer | RealServer]:
    """The API server."""
    if kubeconfig := os.environ.get("SLUICEWAY_TEST_KUBECONFIG", ""):
        yield RealServer(kubeconfig)
        return
    with ApiServer() as server:
        yield server


@pytest.fixture
def cluster(api_server: ApiServer | RealServer) -> Iterator[Cluster]:
    """A namespace of its own."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    whole = Cluster(api_server.client(), name, patience_seconds=PATIENCE)
    whole.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield whole
    if isinstance(api_server, ApiServer):
        api_server.faults.clear()
    whole.delete(_NAMESPACE, name)


@pytest.fixture
def fake(api_server: ApiServer | RealServer) -> Iterator[ApiServer]:
    """The server of ours, for tests that a real one cannot be used for."""
    if not isinstance(api_server, ApiServer):
        pytest.skip("needs faults that a real API server cannot be told to have")
    yield api_server
    api_server.faults.clear()


@pytest.fixture
def account(api_server: ApiServer | RealServer, cluster: Cluster) -> Callable[[list[Plain]], Cluster]:
    """Makes an account that may do what some rules of a Role say, in the test's namespace, and nothing else."""

    def make(rules: list[Plain]) -> Cluster:
        name = f"account-{uuid.uuid4().hex[:8]}"
        subject = {"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        head: Plain = {"apiVersion": _RBAC, "metadata": {"name": name}}
        cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
        cluster.create(head | {"kind": "Role", "rules": rules})
        cluster.create(head | {"kind": "RoleBinding", "roleRef": reference, "subjects": [subject]})
        client = api_server.client(f"{cluster.namespace}/{name}")
        _await_permitted(client, cluster.namespace, rules[0])
        return Cluster(client, cluster.namespace, patience_seconds=PATIENCE)

    return make


def _await_permitted(client: "ApiClient", namespace: str, rule: Plain) -> None:
    """A real server takes note of a new Role a moment later."""
    from kubernetes.client import AuthorizationV1Api

    asked = {"namespace": namespace, "verb": rule["verbs"][0], "group": rule["apiGroups"][0]}
    asked |= {"resource": rule["resources"][0], "name": rule.get("resourceNames", [""])[0]}
    review = {"spec": {"resourceAttributes": asked}}
    deadline = time.monotonic() + 5
    while not AuthorizationV1Api(client).create_self_subject_access_review(review).status.allowed:
        assert time.monotonic() < deadline, "the Role has no effect"
        time.sleep(0.05)


def refused(call: Callable[[], object]) -> bool:
    """Whether a call is refused as forbidden."""
    try:
        call()
    except BadInput as error:
        return "forbidden" in str(error)
    return False
