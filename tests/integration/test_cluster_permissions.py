"""The rollout's permissions, against a real cluster too.

That the Roles are all that everything needs, and no more, tests/integration/test_cluster_roles.py shows.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.cluster.api import (
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    LEASE,
    POD,
    REVISION,
    SERVICE,
    Cluster,
    Kind,
)
from components.rollout.store import Command
from components.rollout.stores.kubernetes import KubernetesStore
from tests.cluster.fixtures import refused

pytest_plugins = ["tests.cluster.fixtures"]
pytestmark = pytest.mark.cluster

Plain = dict[str, Any]
Account = Callable[[list[Plain]], Cluster]

MANIFESTS = Path(__file__).parents[2] / "manifests"
SECRET = Kind("v1", "Secret")


def rules(path: str) -> list[Plain]:
    documents = yaml.safe_load_all((MANIFESTS / path).read_text(encoding="utf-8"))
    return next(document["rules"] for document in documents if document["kind"] == "Role")


@pytest.fixture
def rollout(account: Account) -> Cluster:
    """Acts as the account that the steps run under."""
    return account(rules("base/models/rollout.yaml"))


def thing(kind: Kind, name: str, **content: Any) -> Plain:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}} | content


def service(image: str) -> Plain:
    model = {"name": "kserve-container", "modelFormat": {"name": "mlflow"}, "image": image}
    return thing(INFERENCE_SERVICE, "iris", spec={"predictor": {"model": model}})


def test_it_keeps_a_record_under_a_lock_and_takes_commands(rollout: Cluster) -> None:
    store = KubernetesStore(rollout, "iris", lease_seconds=5)
    with store.owned("first") as held:
        ledger = store.load()
        store.save(ledger)
        ledger.weight = 10
        store.save(ledger)
        store.send(Command(what="pause", by="ada", time=1))
        assert store.command() is not None
        store.clear()
        held.hand_over(60)
    with store.owned("first") as held:
        held.check()
        assert store.load().weight == 10


def test_it_moves_the_service_and_its_route(rollout: Cluster) -> None:
    rollout.apply(service("server:1"), dry_run=True)
    rollout.apply(service("server:1"))
    rollout.apply(service("server:2"), force=True)
    assert rollout.wait(INFERENCE_SERVICE, "iris", lambda found: found, 1)
    backend = {"name": "iris", "port": 80, "weight": 10}
    route = thing(HTTP_ROUTE, "iris", spec={"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [backend]}]})
    rollout.apply(route)
    assert rollout.wait(HTTP_ROUTE, "iris", lambda found: found, 1)
    assert rollout.list(HTTP_ROUTE)
    rollout.delete(HTTP_ROUTE, "iris")
    rollout.delete(INFERENCE_SERVICE, "iris")


def test_it_leaves_notes_on_the_service(rollout: Cluster) -> None:
    about = {"kind": "InferenceService", "name": "iris", "namespace": rollout.namespace}
    note = rollout.create(thing(EVENT, "iris.1", involvedObject=about, reason="Promoted", message="all good", count=1))
    rollout.replace(note | {"count": 2})
    assert rollout.get(EVENT, "iris.1")["count"] == 2  # type: ignore[index]


def test_it_sees_how_the_service_fares_and_what_it_may_do(rollout: Cluster) -> None:
    assert rollout.get(DEPLOYMENT, "iris") is None
    assert rollout.get(REVISION, "iris") is None
    assert rollout.list(POD, "app=iris") == []
    assert rollout.may("patch", INFERENCE_SERVICE)
    assert not rollout.may("delete", POD)
    assert rollout.fields(INFERENCE_SERVICE) is not None


def test_it_may_do_nothing_else(rollout: Cluster, cluster: Cluster) -> None:
    cluster.create(thing(SECRET, "password"))
    assert refused(lambda: rollout.get(SECRET, "password"))
    assert refused(lambda: rollout.list(SECRET))
    assert refused(lambda: rollout.delete(POD, "iris"))
    assert refused(lambda: rollout.list(SERVICE))
    assert refused(lambda: rollout.delete(DEPLOYMENT, "iris"))
    assert refused(lambda: rollout.apply(thing(POD, "p", spec={"containers": [{"name": "a", "image": "b"}]})))
    assert refused(lambda: rollout.delete(LEASE, "sluiceway-rollout-iris"))
    assert refused(lambda: rollout.list(CONFIG_MAP))
    assert refused(lambda: rollout.inside("default").get(CONFIG_MAP, "iris"))
    assert refused(lambda: rollout.get(Kind("rbac.authorization.k8s.io/v1", "Role"), "sluiceway-rollout"))


def test_in_kserve_s_namespace_it_sees_the_version_and_the_settings_and_no_more(
    account: Account, cluster: Cluster
) -> None:
    cluster.create(thing(CONFIG_MAP, "inferenceservice-config", data={"deploy": "{}"}))
    reader = account(rules("base/kserve/rollout-facts.yaml"))
    assert reader.get(CONFIG_MAP, "inferenceservice-config")["data"] == {"deploy": "{}"}  # type: ignore[index]
    assert reader.get(DEPLOYMENT, "kserve-controller-manager") is None
    assert refused(lambda: reader.get(CONFIG_MAP, "others"))
    assert refused(lambda: reader.list(DEPLOYMENT))
