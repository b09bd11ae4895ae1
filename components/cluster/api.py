"""The Kubernetes API: read, server-side apply, watch; failures that pass are waited out, others become one sentence."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Plain = dict[str, Any]
T = TypeVar("T")

FIELD_MANAGER = "sluiceway"


@dataclass(frozen=True)
class Kind:
    """A kind of object: ``Kind("serving.kserve.io/v1beta1", "InferenceService")``."""

    api_version: str
    kind: str


INFERENCE_SERVICE = Kind("serving.kserve.io/v1beta1", "InferenceService")
HTTP_ROUTE = Kind("gateway.networking.k8s.io/v1", "HTTPRoute")
GATEWAY = Kind("gateway.networking.k8s.io/v1", "Gateway")
REVISION = Kind("serving.knative.dev/v1", "Revision")
KNATIVE_SERVICE = Kind("serving.knative.dev/v1", "Service")
DEPLOYMENT = Kind("apps/v1", "Deployment")
POD = Kind("v1", "Pod")
EVENT = Kind("v1", "Event")
CONFIG_MAP = Kind("v1", "ConfigMap")
SERVICE = Kind("v1", "Service")
LEASE = Kind("coordination.k8s.io/v1", "Lease")


class Cluster:
    """One namespace of a cluster.

    Every call waits out what passes by itself (429 by its Retry-After, 500, 502, 503, 504, a dropped connection) with
    growing pauses, ``patience_seconds`` in all; then it raises ``Unreachable``. A refusal (400, 403, 405, 413, 415, 422) raises
    ``BadInput`` at once, with the server's own reason.
    """

    def __init__(self, client: "ApiClient", namespace: str, patience_seconds: float = 60.0) -> None:
        """Wrap a client; nothing is asked yet."""
        raise NotImplementedError

    def inside(self, namespace: str) -> "Cluster":
        """The same cluster, another namespace."""
        raise NotImplementedError

    def get(self, kind: Kind, name: str) -> Plain | None:
        """An object; None where there is none."""
        raise NotImplementedError

    def list(self, kind: Kind, selector: str = "") -> list[Plain]:
        """The objects that a label selector selects, following ``continue`` to the end."""
        raise NotImplementedError

    def apply(self, manifest: Plain, *, force: bool = False, dry_run: bool = False) -> Plain:
        """Server-side apply with our field manager and strict field validation; gives the object as it is then.

        Fields that we applied before and leave out now are removed; those of others stay.

        Args:
            manifest: with apiVersion, kind, metadata.name. ``metadata.resourceVersion``, if given, must still be so.
            force: take over fields that another manager owns.
            dry_run: have it checked by the server, admission included, without any effect.

        Raises:
            Conflict: another manager owns a field (without force), or the resourceVersion is not current.
        """
        raise NotImplementedError

    def create(self, manifest: Plain) -> Plain:
        """Make an object that is not there yet.

        Raises:
            Conflict: it is there.
        """
        raise NotImplementedError

    def replace(self, manifest: Plain) -> Plain:
        """Write an object whole; its ``metadata.resourceVersion`` must be current.

        Raises:
            Conflict: it is not, or the object is gone.
        """
        raise NotImplementedError

    def delete(self, kind: Kind, name: str) -> None:
        """Take an object away; one that is gone already is gone."""
        raise NotImplementedError

    def wait(self, kind: Kind, name: str, done: Callable[[Plain | None], T | None], seconds: float) -> T | None:
        """Watch an object until ``done`` gives something for it.

        The watch goes on from where it was when the connection drops, and lists anew when the server has forgotten
        that (410). ``done`` is called with the object as it is at first and after each change, None when it is not
        there; what it raises ends the watch.

        Returns:
            What ``done`` gave; None when the time is over.
        """
        raise NotImplementedError

    def serves(self, kind: Kind) -> bool:
        """Whether the API server knows a kind."""
        raise NotImplementedError

    def fields(self, kind: Kind) -> Plain | None:
        """The OpenAPI schema of a kind as the API server publishes it, references resolved; None where it has none."""
        raise NotImplementedError

    def may(self, verb: str, kind: Kind) -> bool:
        """Whether this account may do that here (SelfSubjectAccessReview)."""
        raise NotImplementedError


class Conflict(Exception):
    """Somebody else has written the object, or owns a field of it. ``message`` is the server's reason."""


def connect(namespace: str = "", kubeconfig: str = "") -> Cluster:
    """The cluster that this pod runs in, or the one that a kubeconfig names.

    Args:
        namespace: empty takes the pod's own, or that of the kubeconfig's context.
        kubeconfig: path; empty goes by KUBECONFIG and ~/.kube/config.

    Raises:
        BadInput: there is neither, or it cannot be read.
    """
    raise NotImplementedError
