"""What a cluster can do: the mechanism for ``where: auto``, and everything that is missing in one message."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from components.cluster.api import (
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    KNATIVE_SERVICE,
    POD,
    REVISION,
    Cluster,
    Kind,
)
from components.errors import BadInput
from components.rollout.deployment import Deployment
from components.rollout.targets.kserve_fields import at
from components.rollout.validation import has_field

Plain = dict[str, Any]

KSERVE_NAMESPACE = "kserve"
_MANAGER = "kserve-controller-manager"
_NO_UPDATES = "serving.kserve.io/disable-auto-update"
_WEIGHTS_SINCE = (0, 21)
"""v0.20.0 and the head of release-0.20 take ``spec.canary`` and start pods, but write no weights: nothing is split."""
_NEW_NAMES_SINCE = (0, 16)
"""Before, Standard was called RawDeployment and Knative Serverless; a service keeps the name it was made with."""
_WRITES = ("get", "list", "watch", "patch", "create", "delete")


@dataclass(frozen=True)
class Facts:
    """What there is.

    Attributes:
        kserve: whether InferenceServices are served.
        version: of KServe, major and minor, by its controller's image; None when it cannot be read.
        default_mode: Knative or Standard; empty when it cannot be read.
        knative: whether Knative Serving is there.
        gateway_api: whether HTTPRoutes are.
        uses_gateway_api: whether KServe is set to make them; None when it cannot be read.
        gateway: "namespace/name" of the Gateway that KServe uses; empty when it cannot be read.
        canary_field: whether the schema has ``spec.canary``.
        domain: that host names end in.
    """

    kserve: bool = False
    version: tuple[int, int] | None = None
    default_mode: str = ""
    knative: bool = False
    gateway_api: bool = False
    uses_gateway_api: bool | None = None
    gateway: str = ""
    canary_field: bool = False
    domain: str = ""

    @property
    def writes_weights(self) -> bool:
        """Whether this version is known to split the traffic of ``spec.canary``."""
        return self.version is not None and self.version >= _WEIGHTS_SINCE

    def mode_name(self, mode: str) -> str:
        """What this version calls a deployment mode."""
        if self.version is None or self.version >= _NEW_NAMES_SINCE:
            return mode
        return {"Standard": "RawDeployment", "Knative": "Serverless"}[mode]


def facts(cluster: Cluster) -> Facts:
    """Look at a cluster; what may not be read is unknown.

    Raises:
        Unreachable: the API server does not answer.
    """
    if not cluster.serves(INFERENCE_SERVICE):
        return Facts()
    theirs = cluster.inside(KSERVE_NAMESPACE)
    config = _readable(lambda: theirs.get(CONFIG_MAP, "inferenceservice-config")) or {}
    ingress, deploy = (_json(at(config, f"data.{part}")) for part in ("ingress", "deploy"))
    knative = cluster.serves(KNATIVE_SERVICE)
    mode = str(deploy.get("defaultDeploymentMode", "" if knative else "Standard"))
    return Facts(
        kserve=True,
        version=_version(_readable(lambda: theirs.get(DEPLOYMENT, _MANAGER))),
        default_mode=_new_name(mode),
        knative=knative,
        gateway_api=cluster.serves(HTTP_ROUTE),
        uses_gateway_api=bool(ingress.get("enableGatewayApi", False)) if ingress else None,
        gateway=str(ingress.get("kserveIngressGateway", "")),
        canary_field=_has_canary(cluster),
        domain=str(ingress.get("ingressDomain", "")),
    )


def _new_name(mode: str) -> str:
    return {"Serverless": "Knative", "RawDeployment": "Standard"}.get(mode, mode)


def _has_canary(cluster: Cluster) -> bool:
    schema = _readable(lambda: cluster.fields(INFERENCE_SERVICE))
    return schema is not None and has_field(schema, "spec", "canary")


def _readable(read: Callable[[], Plain | None]) -> Plain | None:
    try:
        return read()
    except BadInput:  # forbidden
        return None


def _json(text: str | None) -> Plain:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _version(manager: Plain | None) -> tuple[int, int] | None:
    for container in at(manager, "spec.template.spec.containers") or []:
        if "kserve" in container["image"] and (tag := re.search(r":v?(\d+)\.(\d+)", container["image"])):
            return int(tag[1]), int(tag[2])
    return None


def mechanism(cluster: Cluster, deployment: Deployment, found: Facts) -> str:
    """The mechanism that a deployment names, or the best one that the cluster can do.

    Raises:
        BadInput: it can do none; names what each of them would need.
    """
    if deployment.where not in ("auto", "single-machine"):
        return deployment.where
    order = ["standard", "two-services", "knative"] if found.default_mode == "Standard" else ["knative"]
    order += [one for one in ("standard", "two-services") if one not in order]
    said = []
    for one in order:
        missing = list(lacking(one, cluster, deployment, found))
        if not missing:
            return one
        said.append(f"{one} lacks {'; '.join(missing)}")
    raise BadInput(f"This cluster cannot do a canary: {' | '.join(said)}.")


def lacking(one: str, cluster: Cluster, deployment: Deployment, found: Facts) -> Iterator[str]:
    """Everything that a mechanism needs and the cluster does not have."""
    if not found.kserve:
        yield "KServe (no InferenceServices are served here)"
        return
    if one == "knative":
        if not found.knative:
            yield "Knative Serving"
    else:
        yield from _lacking_routes(one, deployment, found)
    if one != "knative" and deployment.autoscaling.min_replicas == 0:
        yield "Knative mode, which alone scales to zero (autoscaling.min_replicas: 0)"
    for kind, verbs in _permissions(one):
        denied = [verb for verb in verbs if not cluster.may(verb, kind)] if cluster.serves(kind) else []
        if denied:
            yield f"permission to {', '.join(denied)} {kind.kind}s in {cluster.namespace}"


def _lacking_routes(one: str, deployment: Deployment, found: Facts) -> Iterator[str]:
    if not found.gateway_api:
        yield "Gateway API (no HTTPRoutes are served here)"
    if one == "two-services":
        if not (deployment.gateway or found.gateway):
            yield "the name of a Gateway (deployment.gateway)"
        return
    if not found.canary_field:
        yield "spec.canary in the schema of InferenceService"
    if found.uses_gateway_api is not True:
        known = "is false" if found.uses_gateway_api is False else "cannot be read"
        yield f"enableGatewayApi: true in KServe's configuration (it {known})"
    if not found.writes_weights:
        version = ".".join(map(str, found.version)) if found.version else "unknown"
        yield f"a KServe that writes the weights of a canary (0.21 or newer; it is {version})"


def _permissions(one: str) -> list[tuple[Kind, tuple[str, ...]]]:
    """What each mechanism does; on a wrong guess the API server would refuse in the middle of a rollout."""
    needed = [(INFERENCE_SERVICE, _WRITES), (DEPLOYMENT, ("get",)), (POD, ("list",)), (EVENT, ("create",))]
    if one == "knative":
        return [*needed, (REVISION, ("get",))]
    return [*needed, (HTTP_ROUTE, _WRITES if one == "two-services" else ("get",))]


def require(
    one: str, cluster: Cluster, deployment: Deployment, live: Plain | None, found: Facts | None = None
) -> Facts:
    """Fail unless the cluster can do a mechanism for this service.

    Args:
        one: the mechanism.
        cluster: in the service's namespace.
        deployment: how it is served.
        live: the InferenceService as it is; None when there is none.
        found: what is known of the cluster; None looks.

    Raises:
        BadInput: something is missing; names all of it.
    """
    found = found or facts(cluster)
    missing = [*lacking(one, cluster, deployment, found), *_obstacles(one, live)]
    if missing:
        raise BadInput(f"This cluster cannot do a canary by {one}: it lacks {'; '.join(missing)}.")
    return found


def _obstacles(one: str, live: Plain | None) -> Iterator[str]:
    """What about the service itself stands in the way."""
    name = at(live, "metadata.name")
    if one != "knative" and any(at(live, f"spec.{part}") is not None for part in ("transformer", "explainer")):
        # KServe puts the canary into the rules of these two too; no version is known to do it right.
        yield f"a service without transformer and explainer ({name} has one, and its requests would pass it by)"
    if (at(live, "metadata.annotations") or {}).get(_NO_UPDATES) == "true":
        yield f"a service that KServe keeps up to date ({name} has the annotation {_NO_UPDATES})"
    mode = _new_name(at(live, "status.deploymentMode") or "")
    if mode and (mode == "Standard") != (one != "knative"):
        yield f"a service made in its own mode ({name} is in {mode} mode, which cannot be changed)"


def gateway_of(deployment: Deployment, found: Facts) -> tuple[str, str]:
    """Namespace and name of the Gateway that our own routes hang on."""
    namespace, _, name = (deployment.gateway or found.gateway).partition("/")
    return namespace, name
