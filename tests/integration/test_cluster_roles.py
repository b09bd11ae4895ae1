"""The accounts of the manifests may do what the code does, and nothing else.

The overlays are applied to an API server for real; then everything that calls the API runs as the account that it has
on a cluster, and what it did is held against the Roles, both ways.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from components.cluster.api import Cluster
from tests import manifests
from tests.cluster.deeds import MODELS, RUNS, STAGING, Driver
from tests.cluster.kserve.kubelet import Timing
from tests.cluster.kserve.simulation import kserve
from tests.cluster.rbac import Deed, allowed
from tests.cluster.server import ApiServer
from tests.cluster.suite import kinds

Plain = dict[str, Any]
DEPLOY, TRAIN = (f"system:serviceaccount:{RUNS}:sluiceway-{one}" for one in ("deploy", "train"))

NOT_OURS = {
    "sluiceway-runs": "KFP's launcher and Argo's executor use it, which are not here; the Role names their sources",
    "sluiceway-spark": "Spark's driver uses it, which is not here; the Role is that of the Spark Operator's own chart",
    "sluiceway-uploader": "KFP's own resources, which no Kubernetes API serves; tests/unit/test_manifests_uploader.py",
}


def applied(server: ApiServer, objects: tuple[Plain, ...]) -> None:
    """Apply them as `kubectl apply --server-side` does, strictly, namespaces first."""
    whole = Cluster(server.client(), "default", patience_seconds=5)
    for name in ("kubeflow", "kserve", "monitoring"):  # they come with KFP, KServe and Prometheus
        whole.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for one in sorted(objects, key=lambda one: one["kind"] != "Namespace"):
        whole.inside(one["metadata"].get("namespace", "default")).apply(one)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server that the dev overlay was applied to, and everything that calls it has run."""
    objects = manifests.overlay("dev")
    with ApiServer(kinds()) as one:
        applied(one, objects)
        Driver(one, "sluiceway-train").trainings()
        Driver(one, "sluiceway-deploy").trainings()
        Driver(one, "sluiceway-train").spark()
        Driver(one, "sluiceway-deploy").spark()
        with kserve(one, timing=Timing(back_off=0.1)):
            Driver(one, "sluiceway-deploy").rollouts(tmp_path_factory.mktemp("files"))
        yield one


@pytest.mark.parametrize("name", ["staging", "prod"])
def test_the_other_overlays_are_accepted_too(name: str) -> None:
    with ApiServer(kinds()) as one:
        applied(one, manifests.overlay(name))


def test_who_may_do_what_is_the_same_everywhere() -> None:
    first, *others = (_rights(manifests.overlay(name)) for name in manifests.OVERLAYS)
    assert all(one == first for one in others)


def test_everything_that_the_code_does_is_permitted(server: ApiServer) -> None:
    refused = sorted(
        f"{user.rpartition(':')[2]}: {deed}" for user, deed in server.deeds if not allowed(server.storage, user, deed)
    )
    assert not refused, "\n".join(refused)
    assert {user for user, _ in server.deeds} == {DEPLOY, TRAIN}


def test_everything_that_is_permitted_the_code_does(server: ApiServer) -> None:
    unused = []
    for binding, role, subjects in _bindings(manifests.overlay("dev")):
        if role["metadata"]["name"] in NOT_OURS:
            continue
        for user in subjects:
            done = {deed for who, deed in server.deeds if who == user}
            unused += [
                f"{user.rpartition(':')[2]} by {binding}: {verb} {resource}"
                for rule in role["rules"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
                if not any(_uses(deed, verb, group, resource, rule, role) for deed in done)
            ]
    assert not unused, "\n".join(unused)


def test_a_run_that_only_trains_cannot_touch_a_service(server: ApiServer) -> None:
    rollouts = {deed for user, deed in server.deeds if user == DEPLOY and deed.namespace in (MODELS, STAGING)}
    assert rollouts
    assert not any(allowed(server.storage, TRAIN, deed) for deed in rollouts)


def _uses(deed: Deed, verb: str, group: str, resource: str, rule: Plain, role: Plain) -> bool:
    """Whether a deed needs this right. The staging namespace has the same Role, and is used in fewer ways."""
    where = role["metadata"]["namespace"]
    names = rule.get("resourceNames") or [deed.name]
    return (deed.verb, deed.group, deed.resource) == (verb, group, resource) and (
        deed.namespace == (MODELS if where == STAGING else where) and deed.name in names
    )


def _bindings(objects: tuple[Plain, ...]) -> Iterator[tuple[str, Plain, list[str]]]:
    """Each binding of ours with its Role and its accounts."""
    roles = {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in manifests.of_kind(objects, "Role")}
    for one in manifests.of_kind(objects, "RoleBinding"):
        metadata = one["metadata"]
        role = roles[metadata["namespace"], one["roleRef"]["name"]]
        users = [
            f"system:serviceaccount:{subject.get('namespace', metadata['namespace'])}:{subject['name']}"
            for subject in one["subjects"]
        ]
        if all(user.rpartition(":")[2].startswith("sluiceway-") for user in users):
            yield manifests.named(one), role, users


def _rights(objects: tuple[Plain, ...]) -> list[tuple[str, Plain, list[str]]]:
    return sorted(((name, role["rules"], users) for name, role, users in _bindings(objects)), key=lambda one: one[0])
