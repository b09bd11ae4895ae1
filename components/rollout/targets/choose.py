"""The target on a cluster that a deployment names."""

from components.cluster.api import Cluster, connect
from components.rollout.deployment import Deployment
from components.rollout.targets import probe
from components.rollout.targets.gitops import GitOpsApplier
from components.rollout.targets.knative import Knative
from components.rollout.targets.kserve_applier import Applier, Guard
from components.rollout.targets.standard import Standard
from components.rollout.targets.target import Target
from components.rollout.targets.two_services import TwoServices


def target_for(deployment: Deployment, service: str, guard: Guard, cluster: Cluster | None) -> Target:
    """The service on a cluster, by the mechanism that is asked for, or the best one that the cluster can do.

    Args:
        deployment: where and how it is served.
        service: its name.
        guard: asked before every write whether this rollout still owns the service.
        cluster: in the service's namespace; None takes the one that this pod or kubeconfig is in.

    Raises:
        BadInput: the cluster can do no mechanism; names everything that is missing.
        Unreachable: the API server does not answer.
    """
    cluster = cluster or connect(deployment.namespace)
    found = probe.facts(cluster)
    one = probe.mechanism(cluster, deployment, found)
    applier: Applier | None = GitOpsApplier(deployment.gitops, guard) if deployment.gitops else None
    if one == "knative":
        mode = found.mode_name("Knative") if found.default_mode == "Standard" else ""
        return Knative(cluster, service, deployment, guard, applier, mode)
    mode = found.mode_name("Standard")
    if one == "standard":
        return Standard(cluster, service, deployment, guard, applier, mode)
    gateway = probe.gateway_of(deployment, found)
    return TwoServices(cluster, service, deployment, guard, applier, mode, gateway, found.domain)
