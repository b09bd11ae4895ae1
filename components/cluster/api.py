"""The Kubernetes API: read, server-side apply, watch; failures that pass are waited out, others become one sentence."""

import builtins
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from components.cluster import credentials
from components.cluster.discovery import Discoverer, checked, plain
from components.cluster.openapi import schema_of
from components.cluster.retry import Again, passes, patiently, reason, timeouts
from components.cluster.watch import Follower
from components.errors import BadInput

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from kubernetes.client.exceptions import ApiException
    from kubernetes.dynamic.resource import Resource

Plain = dict[str, Any]
T = TypeVar("T")

FIELD_MANAGER = "sluiceway"


@dataclass(frozen=True)
class Kind:
    """A kind of object: ``Kind("serving.kserve.io/v1beta1", "InferenceService")``."""

    api_version: str
    kind: str

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version within the group."""
        return self.api_version.rpartition("/")[2]


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

_REVIEW = Kind("authorization.k8s.io/v1", "SelfSubjectAccessReview")
_PAGE = 500
_SERVERS_OWN = {"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"}


class Cluster:
    """One namespace of a cluster.

    Every call waits out what passes by itself (429 by its Retry-After, 410, 500, 502, 503, 504, a dropped connection)
    with growing pauses, ``patience_seconds`` in all; then it raises ``Unreachable``. A refusal (400, 403, 405, 413,
    415, 422, and 404 for more than a single object) raises ``BadInput`` at once, with the server's own reason.

    A write that was repeated because its first answer was lost, and finds itself done already, is not taken for a
    conflict.
    """

    def __init__(self, client: "ApiClient", namespace: str, patience_seconds: float = 60.0) -> None:
        """Wrap a client; nothing is asked yet."""
        from kubernetes.dynamic import DynamicClient

        # urllib3 would repeat reads and sleep as long as Retry-After says, without regard to our patience.
        client.rest_client.pool_manager.connection_pool_kw["retries"] = False
        self.namespace = namespace
        self.patience_seconds = patience_seconds
        self._host = client.configuration.host
        self._client: DynamicClient = DynamicClient(client, discoverer=Discoverer)

    def inside(self, namespace: str) -> "Cluster":
        """The same cluster, another namespace."""
        return Cluster(self._client.client, namespace, self.patience_seconds)

    def get(self, kind: Kind, name: str) -> Plain | None:
        """An object; None where there is none."""
        from kubernetes.dynamic.exceptions import NotFoundError

        def get(seconds: float) -> Plain | None:
            if (place := self._place(kind, seconds)) is None:
                return None
            try:
                return self._send("get", place, name, seconds)
            except NotFoundError:
                return None

        return self._patiently(f"get the {kind.kind} {name}", get)

    def list(self, kind: Kind, selector: str = "") -> "builtins.list[Plain]":
        """The objects that a label selector selects, following ``continue`` to the end."""

        def list_(seconds: float) -> builtins.list[Plain]:
            found: builtins.list[Plain] = []
            more: str | None = ""
            while more is not None:
                query = {"label_selector": selector or None, "limit": _PAGE, "_continue": more or None}
                page = self._send("get", self._known(kind, seconds), None, seconds, **query)
                # A list of a built-in kind leaves these two out of its items.
                found += [item | {"apiVersion": kind.api_version, "kind": kind.kind} for item in page["items"]]
                more = page["metadata"].get("continue") or None
            return found

        return self._patiently(f"list the objects of kind {kind.kind}", list_)

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
        query = {
            "content_type": "application/apply-patch+yaml",
            "force_conflicts": "true" if force else None,
            "dry_run": "All" if dry_run else None,
        }
        return self._write("apply", "patch", manifest, manifest["metadata"]["name"], query)

    def create(self, manifest: Plain) -> Plain:
        """Make an object that is not there yet.

        Raises:
            Conflict: it is there.
        """
        return self._write("create", "post", manifest, None, {})

    def replace(self, manifest: Plain) -> Plain:
        """Write an object whole; its ``metadata.resourceVersion`` must be current.

        Raises:
            Conflict: it is not, or the object is gone.
        """
        return self._write("replace", "put", manifest, manifest["metadata"]["name"], {})

    def delete(self, kind: Kind, name: str) -> None:
        """Take an object away; one that is gone already is gone."""
        from kubernetes.dynamic.exceptions import NotFoundError

        def delete(seconds: float) -> None:
            place = self._place(kind, seconds)
            try:
                if place is not None:
                    self._send("delete", place, name, seconds, propagation_policy="Background")
            except NotFoundError:
                return

        self._patiently(f"delete the {kind.kind} {name}", delete)

    def wait(self, kind: Kind, name: str, done: Callable[[Plain | None], T | None], seconds: float) -> T | None:
        """Watch an object until ``done`` gives something for it.

        The watch goes on from where it was when the connection drops, and lists anew when the server has forgotten
        that (410). ``done`` is called with the object as it is at first and after each change, None when it is not
        there; what it raises ends the watch.

        Returns:
            What ``done`` gave; None when the time is over.
        """
        what = f"watch the {kind.kind} {name}"
        place = self._patiently(what, lambda left: self._known(kind, left))
        return Follower(
            client=self._client,
            host=self._host,
            path=place.path(namespace=self.namespace),
            kind={"apiVersion": kind.api_version, "kind": kind.kind},
            name=name,
            what=f"{what} in the namespace {self.namespace}",
            patience_seconds=self.patience_seconds,
        ).wait(done, seconds)

    def serves(self, kind: Kind) -> bool:
        """Whether the API server knows a kind."""
        place = self._patiently(f"tell whether it knows {kind.kind}", lambda seconds: self._place(kind, seconds))
        return place is not None

    def fields(self, kind: Kind) -> Plain | None:
        """The OpenAPI schema of a kind as the API server publishes it, references resolved; None where it has none."""
        from kubernetes.dynamic.exceptions import NotFoundError

        def fields(seconds: float) -> Plain | None:
            options = {"serializer": plain, "_request_timeout": timeouts(seconds)}
            path = f"{'apis' if kind.group else 'api'}/{kind.api_version}"
            try:
                parts = checked(self._client.request("get", "/openapi/v3", **options))["paths"]
            except NotFoundError:
                return None
            if path not in parts:
                return None
            address, _, digest = parts[path]["serverRelativeURL"].partition("?hash=")
            document = self._client.request("get", address, query_params=[("hash", digest)], **options)
            return schema_of(checked(document), kind.group, kind.version, kind.kind)

        return self._patiently(f"describe {kind.kind}", fields)

    def may(self, verb: str, kind: Kind, subresource: str = "") -> bool:
        """Whether this account may do that here (SelfSubjectAccessReview).

        Args:
            verb: get, list, watch, create, update, patch or delete.
            kind: to what.
            subresource: of the kind, for instance "log".
        """

        def may(seconds: float) -> bool:
            if (place := self._place(kind, seconds)) is None:
                return False
            asked = {"namespace": self.namespace, "verb": verb, "group": kind.group, "version": kind.version}
            asked |= {"resource": place.name, "subresource": subresource}
            review = {
                "apiVersion": _REVIEW.api_version,
                "kind": _REVIEW.kind,
                "spec": {"resourceAttributes": {key: value for key, value in asked.items() if value}},
            }
            answer = self._send("post", self._known(_REVIEW, seconds), None, seconds, body=review)
            return bool(answer["status"]["allowed"])

        return self._patiently(f"tell whether we may {verb} {kind.kind}", may)

    def _write(self, verb: str, method: str, manifest: Plain, name: str | None, query: Plain) -> Plain:
        from kubernetes.dynamic.exceptions import ConflictError, NotFoundError

        kind = Kind(manifest["apiVersion"], manifest["kind"])
        named = manifest["metadata"].get("name", "")
        query = {
            "field_manager": FIELD_MANAGER,
            "query_params": [("fieldValidation", "Strict")],
            "body": manifest,
        } | query
        lost = False  # whether an earlier attempt may have been carried out, though we saw no answer

        def write(seconds: float) -> Plain:
            nonlocal lost
            try:
                return self._send(method, self._known(kind, seconds), name, seconds, **query)
            except ConflictError as error:
                if lost and (found := self._written(kind, named, manifest)):
                    return found
                if verb == "apply" and _lost_a_race(error, manifest):
                    raise Again(reason(error)) from error
                raise Conflict(reason(error)) from error
            except NotFoundError as error:
                if verb == "replace":
                    raise Conflict(reason(error)) from error
                raise
            except Exception as error:
                lost = lost or passes(error)
                raise

        return self._patiently(f"{verb} the {kind.kind} {named}", write)

    def _written(self, kind: Kind, name: str, manifest: Plain) -> Plain | None:
        """The object, when it is as our manifest says."""
        sent = manifest | {"metadata": {k: v for k, v in manifest["metadata"].items() if k not in _SERVERS_OWN}}
        found = self.get(kind, name)
        return found if found is not None and _within(sent, found) else None

    def _place(self, kind: Kind, seconds: float) -> "Resource | None":
        place: Resource | None = self._client.resources.get(kind.api_version, kind.kind, seconds)
        return place

    def _known(self, kind: Kind, seconds: float) -> "Resource":
        place = self._place(kind, seconds)
        if place is None:
            raise BadInput(
                f"The API server at {self._host} does not know {kind.kind} ({kind.api_version}): install what brings "
                "it, or choose another target."
            )
        return place

    def _send(self, method: str, place: "Resource", name: str | None, seconds: float, **options: Any) -> Plain:
        path = place.path(name=name, namespace=self.namespace)
        options["query_params"] = [*options.get("query_params", [])]  # the client appends to it
        return checked(
            self._client.request(method, path, serializer=plain, _request_timeout=timeouts(seconds), **options)
        )

    def _patiently(self, what: str, call: Callable[[float], T]) -> T:
        return patiently(f"{what} in the namespace {self.namespace}", self._host, self.patience_seconds, call)


def _lost_a_race(error: "ApiException", manifest: Plain) -> bool:
    """Whether an apply met writes of others at the same moment, and not an owner of its fields or its own condition."""
    return "FieldManagerConflict" not in str(error.body) and "resourceVersion" not in manifest["metadata"]


def _within(sent: Any, found: Any) -> bool:
    """Whether everything that was sent stands in what was found; the server adds defaults and drops empty fields."""
    if isinstance(sent, dict) and isinstance(found, dict):
        return all(_within(value, found[key]) if key in found else not value for key, value in sent.items())
    if isinstance(sent, list) and isinstance(found, list):
        return len(sent) == len(found) and all(map(_within, sent, found))
    return bool(sent == found)


class Conflict(Exception):
    """Somebody else has written the object, or owns a field of it. ``message`` is the server's reason."""


def connect(namespace: str = "", kubeconfig: str = "") -> Cluster:
    """The cluster that this pod runs in, or the one that a kubeconfig names.

    Args:
        namespace: empty takes the pod's own, or that of the kubeconfig's context.
        kubeconfig: path; empty goes by KUBECONFIG, then the pod's service account, then ~/.kube/config.

    Raises:
        BadInput: there is neither, or it cannot be read.
    """
    client, own = credentials.client(kubeconfig)
    return Cluster(client, namespace or own)
