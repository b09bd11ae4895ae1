"""The place where a service is rolled out: its target, its record and the source of its signals."""

from dataclasses import dataclass, field

from components.errors import BadInput
from components.rollout.deployment import Deployment
from components.rollout.plan import RolloutPlan
from components.rollout.signals.source import Source
from components.rollout.store import Ownership, Store
from components.rollout.targets.target import Target
from components.settings import settings


@dataclass
class Guard:
    """What every write to a cluster asks first: whether this rollout still owns the service."""

    ownership: Ownership | None = None

    def __call__(self) -> None:
        """Return while the right to act is held.

        Raises:
            Lost: it is not.
        """
        if self.ownership is not None:
            self.ownership.check()


@dataclass(frozen=True)
class Place:
    """Everything that a rollout of one service needs from where it runs.

    Attributes:
        target: the service.
        store: its record.
        source: its signals; None where nothing is judged.
        deployment: what it is the place of.
        staging: the same service in the staging namespace; None where it is staged beside the live one.
        replay_per_second: held-out rows that are sent to the service unless said otherwise.
        guard: asked before every write; knows the owner once there is one.
    """

    target: Target
    store: Store
    source: Source | None
    deployment: Deployment
    staging: Target | None = None
    replay_per_second: int = 0
    guard: Guard = field(default_factory=Guard)


def on_this_machine(deployment: Deployment) -> bool:
    """Whether the service runs on this machine: asked for, or where the settings name no other place.

    Raises:
        BadInput: the settings name a place that there is not.
    """
    if deployment.where != "auto":
        return deployment.where == "single-machine"
    where = settings().where
    if where not in ("", "single-machine", "kserve"):
        raise BadInput(f"SLUICEWAY_WHERE is {where!r}: set it to kserve, or to single-machine.")
    return where != "kserve"


def store_for(deployment: Deployment, service: str, kubeconfig: str = "") -> Store:
    """The record of a service's rollouts.

    Raises:
        BadInput: the cluster is named by neither a pod's account nor a kubeconfig.
    """
    if on_this_machine(deployment):
        from components.rollout.stores.files import FileStore

        return FileStore(settings().home, service)
    from components.cluster.api import connect
    from components.rollout.stores.kubernetes import KubernetesStore

    return KubernetesStore(connect(deployment.namespace, kubeconfig), service)


def place_for(deployment: Deployment, plan: RolloutPlan | None, service: str, kubeconfig: str = "") -> Place:
    """The place that a deployment names.

    Args:
        deployment: where and how to serve.
        plan: what is to be judged; None to act without a judge.
        service: the InferenceService's name.
        kubeconfig: names the cluster; empty takes the pod's own, or KUBECONFIG's.

    Raises:
        BadInput: the cluster cannot do a canary, or no Prometheus is named; says what is missing.
        Unreachable: the API server does not answer.
    """
    if on_this_machine(deployment):
        from components.rollout.signals.local import LocalSource
        from components.rollout.targets.single_machine import SingleMachine

        home = settings().home
        target, store = SingleMachine(home, service), store_for(deployment, service)
        return Place(target, store, LocalSource(home, service), deployment, replay_per_second=200)
    return _in_cluster(deployment, plan, service, kubeconfig)


def _in_cluster(deployment: Deployment, plan: RolloutPlan | None, service: str, kubeconfig: str) -> Place:
    from components.cluster.api import connect
    from components.rollout.stores.kubernetes import KubernetesStore
    from components.rollout.targets.choose import target_for

    guard = Guard()
    cluster = connect(deployment.namespace, kubeconfig)
    staging = None
    if deployment.staging_namespace:
        there = replace_namespace(deployment, deployment.staging_namespace)
        staging = target_for(there, service, guard, cluster.inside(deployment.staging_namespace))
    return Place(
        target=target_for(deployment, service, guard, cluster),
        store=KubernetesStore(cluster, service),
        source=_prometheus(cluster.namespace, service, plan) if plan is not None else None,
        deployment=deployment,
        staging=staging,
        guard=guard,
    )


def _prometheus(namespace: str, service: str, plan: RolloutPlan) -> Source:
    from components.rollout.signals.prometheus import PrometheusSource

    address = settings().prometheus
    if not address:
        raise BadInput(
            "The judge needs a Prometheus that sees the served models: set SLUICEWAY_PROMETHEUS to its address."
        )
    return PrometheusSource(address, namespace, service, plan.slo.business, plan.interval_seconds)


def replace_namespace(deployment: Deployment, namespace: str) -> Deployment:
    """The same deployment in another namespace, staged there by no other."""
    return deployment.model_copy(update={"namespace": namespace, "staging_namespace": ""})
