"""The kinds that the server holds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.cluster.builtin import builtin
from tests.cluster.schemas import custom

Schema = dict[str, Any]


@dataclass(frozen=True)
class Served:
    """A kind and how it is served.

    Attributes:
        group: empty for the core group.
        version: of the API.
        kind: its name.
        plural: in paths.
        namespaced: whether its objects are in namespaces.
        own: whether it is one of Kubernetes' own; the others are custom resources.
        has_status: whether /status is a door of its own.
        counts: whether ``metadata.generation`` counts changes of what is wanted.
        source: gives the schema.
        versionless: whether an update may leave out the resourceVersion.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    own: bool
    has_status: bool
    counts: bool
    source: Callable[[], Schema]
    versionless: bool = False

    @property
    def api_version(self) -> str:
        """Group and version as objects have it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """Plural and group, as messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        """Kind and group, as messages about validity name it."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @cached_property
    def schema(self) -> Schema:
        """The schema with that of metadata in it."""
        schema = self.source()
        return schema | {"properties": schema["properties"] | {"metadata": builtin("V1ObjectMeta")}}

    @cached_property
    def order(self) -> tuple[str, str, str]:
        """What tells it from the others."""
        return (self.group, self.version, self.plural)


def _own(
    group: str,
    version: str,
    kind: str,
    model: str,
    *,
    plural: str = "",
    namespaced: bool = True,
    has_status: bool = False,
    counts: bool = False,
    versionless: bool = True,
) -> Served:
    return Served(
        group=group,
        version=version,
        kind=kind,
        plural=plural or f"{kind.lower()}s",
        namespaced=namespaced,
        own=True,
        has_status=has_status,
        counts=counts,
        source=lambda: builtin(model),
        versionless=versionless,
    )


def _custom(
    group: str, version: str, kind: str, key: str, *, plural: str = "", namespaced: bool = True, has_status: bool = True
) -> Served:
    return Served(
        group=group,
        version=version,
        kind=kind,
        plural=plural or f"{kind.lower()}s",
        namespaced=namespaced,
        own=False,
        has_status=has_status,
        counts=True,
        source=lambda: custom(key),
    )


NAMESPACE = _own("", "v1", "Namespace", "V1Namespace", namespaced=False, has_status=True)
POD = _own("", "v1", "Pod", "V1Pod", has_status=True, counts=True)

_RBAC = "rbac.authorization.k8s.io"
KINDS = (
    NAMESPACE,
    POD,
    _own("", "v1", "Node", "V1Node", namespaced=False, has_status=True),
    _own("", "v1", "ConfigMap", "V1ConfigMap"),
    _own("", "v1", "Secret", "V1Secret"),
    _own("", "v1", "ServiceAccount", "V1ServiceAccount"),
    _own("", "v1", "Service", "V1Service", has_status=True),
    _own("", "v1", "Event", "CoreV1Event"),
    _own("apps", "v1", "Deployment", "V1Deployment", has_status=True, counts=True),
    _own("apps", "v1", "ReplicaSet", "V1ReplicaSet", has_status=True, counts=True),
    _own("autoscaling", "v2", "HorizontalPodAutoscaler", "V2HorizontalPodAutoscaler", has_status=True),
    _own("coordination.k8s.io", "v1", "Lease", "V1Lease", versionless=False),
    _own(_RBAC, "v1", "Role", "V1Role"),
    _own(_RBAC, "v1", "RoleBinding", "V1RoleBinding"),
    _own(_RBAC, "v1", "ClusterRole", "V1ClusterRole", namespaced=False),
    _own(_RBAC, "v1", "ClusterRoleBinding", "V1ClusterRoleBinding", namespaced=False),
    _custom("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservice"),
    _custom("serving.kserve.io", "v1alpha1", "ServingRuntime", "servingruntime", has_status=False),
    _custom(
        "serving.kserve.io", "v1alpha1", "ClusterServingRuntime", "servingruntime", namespaced=False, has_status=False
    ),
    _custom("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproute"),
    _custom("gateway.networking.k8s.io", "v1", "Gateway", "gateway"),
    _custom(
        "gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclass", plural="gatewayclasses", namespaced=False
    ),
    _custom("serving.knative.dev", "v1", "Service", "kservice"),
    _custom("serving.knative.dev", "v1", "Revision", "krevision"),
    _custom("sparkoperator.k8s.io", "v1beta2", "SparkApplication", "sparkapplication"),
)
