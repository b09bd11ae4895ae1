"""The verbs: what a request makes of the objects."""

import re
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.cluster import managers
from tests.cluster.errors import Refused
from tests.cluster.fields import merge
from tests.cluster.kinds import KINDS, NAMESPACE, POD, Served
from tests.cluster.schema import copy, filled, mismatches, problems, pruned, unknown
from tests.cluster.storage import Storage

Plain = dict[str, Any]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character"
)
_KEPT = ("creationTimestamp", "uid", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")


@dataclass(frozen=True)
class Request:
    """What a writing request says beside its body.

    Attributes:
        kind: of the object.
        namespace: empty for a kind without.
        name: empty for a create.
        manager: the field manager.
        strict: refuse unknown fields instead of dropping them.
        dry_run: have no effect.
        force: of an apply.
        subresource: "status" or nothing.
    """

    kind: Served
    namespace: str
    name: str
    manager: str
    strict: bool = False
    dry_run: bool = False
    force: bool = False
    subresource: str = ""

    def who(self, operation: str) -> managers.Manager:
        """Who writes."""
        return managers.Manager(self.manager, operation, self.kind.api_version, self.subresource)

    @property
    def key(self) -> tuple[str, str]:
        """Where the object is stored."""
        return (self.namespace, self.name)


class Objects:
    """The objects of a server, written as the API server writes them."""

    def __init__(self, storage: Storage) -> None:
        """Work on a storage.

        ``admission`` is called with the kind of an object, the object and what it was before (None on create); gives
        the object as it is let in, or raises ``Refused``.
        """
        self.storage = storage
        self.admission: Callable[[Served, Plain, Plain | None], Plain] = lambda _kind, thing, _old: thing

    def get(self, kind: Served, namespace: str, name: str) -> Plain:
        """An object.

        Raises:
            Refused: 404.
        """
        found = self.storage.get(kind, namespace, name)
        if found is None:
            raise Refused(404, f'{kind.resource} "{name}" not found')
        return found

    def create(self, request: Request, body: Plain) -> Plain:
        """Make an object."""
        with self.storage.lock:
            thing = self._checked(request, body, naming=True)
            request = _named(request, thing["metadata"]["name"])
            if thing["metadata"].get("resourceVersion"):
                raise Refused(500, "resourceVersion should not be set on objects to be created", "InternalError")
            if self.storage.get(request.kind, *request.key) is not None:
                raise Refused(409, f'{request.kind.resource} "{request.name}" already exists', "AlreadyExists")
            return self._begin(request, thing, "Update")

    def replace(self, request: Request, body: Plain) -> Plain:
        """Write an object whole."""
        with self.storage.lock:
            thing = self._checked(request, body)
            live = self.get(request.kind, *request.key)
            version = thing["metadata"].get("resourceVersion")
            if not version and not request.kind.versionless:
                shown = '""' if request.kind.own else "0"
                raise _invalid(
                    request, f"metadata.resourceVersion: Invalid value: {shown}: must be specified for an update"
                )
            self._current(request, live, thing["metadata"])
            return self._change(request, live, thing)

    def merge(self, request: Request, patch: Plain, *, by_key: bool = False) -> Plain:
        """Merge-patch an object; ``by_key`` as a strategic merge does it with lists."""
        with self.storage.lock:
            live = self.get(request.kind, *request.key)
            lists = merge(request.kind.schema, live, _without_nulls(patch)) if by_key else live
            whole = _merged(live, patch) if not by_key else _merged(lists, patch, lists=True)
            thing = self._checked(request, whole, patching=True)
            self._current(request, live, thing["metadata"])
            return self._change(request, live, thing)

    def apply(self, request: Request, body: Plain) -> Plain:
        """Server-side apply."""
        if not request.manager:
            raise Refused(
                422, 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
            )
        with self.storage.lock:
            thing = self._named(request, body, naming=False)
            if thing["metadata"].get("managedFields"):
                raise Refused(400, "metadata.managedFields must be nil")
            kind = request.kind
            if wrong := list(mismatches(kind.schema, thing)):
                said = wrong[0] if len(wrong) == 1 else "errors:\n  " + "\n  ".join(sorted(wrong))
                where = (
                    f"{(body.get('metadata') or {}).get('namespace', '')}/{request.name}; {kind.group}/{kind.version}"
                )
                message = f"failed to create typed patch object ({where}, Kind={kind.kind}): {said}"
                raise Refused(500, message, "InternalError")
            live = self.storage.get(kind, *request.key)
            version = thing["metadata"].pop("resourceVersion", None)
            if live is None and version:
                raise Refused(409, f"{_stale(request)}: StorageError: invalid object")
            if live is not None and version not in (None, live["metadata"]["resourceVersion"]):
                raise Refused(409, f"{_stale(request)}: the object has been modified; {_AGAIN}")
            if live is None and request.subresource:
                raise Refused(404, f'{kind.resource} "{request.name}" not found')
            start = live or {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {}}
            new = managers.apply(kind.schema, start, thing, request.who("Apply"), kind.has_status, request.force)
            new = self._filled(request, new)
            return self._begin(request, new, "Apply") if live is None else self._change(request, live, new, "Apply")

    def delete(self, request: Request, options: Plain) -> Plain:
        """Take an object away, at once, or once its finalizers or the kubelet let it go."""
        with self.storage.lock:
            live = self.get(request.kind, *request.key)
            wanted = options.get("preconditions", {})
            if wanted.get("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
                raise Refused(409, f"{_stale(request)}: Precondition failed: UID in precondition differs")
            self._current(request, live, wanted)
            if request.dry_run:
                return live
            grace = self._grace(request.kind, live, options.get("gracePeriodSeconds"))
            if live["metadata"].get("finalizers") or grace:
                if "deletionTimestamp" not in live["metadata"]:
                    marks = {"deletionTimestamp": managers.now(), "deletionGracePeriodSeconds": grace}
                    live = self.storage.put(request.kind, request.key, live | {"metadata": live["metadata"] | marks})
                return live
            gone = self.storage.remove(request.kind, request.key)
            if options.get("propagationPolicy") != "Orphan":
                self._remove_dependents(request.kind, gone)
            return gone

    def _remove_dependents(self, kind: Served, gone: Plain) -> None:
        """What the garbage collector and the namespace controller of a cluster do, at once."""
        uid = gone["metadata"]["uid"]
        for other in KINDS:
            for thing in self.storage.all(other):
                owners = {owner.get("uid") for owner in thing["metadata"].get("ownerReferences", [])}
                inside = kind is NAMESPACE and thing["metadata"].get("namespace") == gone["metadata"]["name"]
                if uid in owners or inside:
                    key = (thing["metadata"].get("namespace", ""), thing["metadata"]["name"])
                    if self.storage.get(other, *key) is not None:
                        request = Request(other, *key, manager="garbage-collector")
                        self.delete(request, {"gracePeriodSeconds": 0} if inside else {})

    @staticmethod
    def _grace(kind: Served, live: Plain, asked: int | None) -> int:
        """Seconds that a pod on a node is given; its kubelet deletes it with 0 when it has ended."""
        started = live.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        if kind is not POD or not live["spec"].get("nodeName") or not started:
            return 0
        return int(live["spec"].get("terminationGracePeriodSeconds", 30)) if asked is None else asked

    def _named(self, request: Request, body: Any, naming: bool) -> Plain:
        """The body with its kind, namespace and name made sure of; a copy."""
        kind = request.kind
        if not isinstance(body, dict):
            raise Refused(400, "the request body is no object")
        if (body.get("apiVersion", kind.api_version), body.get("kind", kind.kind)) != (kind.api_version, kind.kind):
            raise Refused(
                400,
                f"the API version in the data ({body.get('apiVersion')}) does not match the expected API version "
                f"({kind.api_version})",
            )
        metadata = dict(body.get("metadata") or {})
        if metadata.get("namespace", request.namespace) != request.namespace:
            raise Refused(
                400,
                "the namespace of the provided object does not match the namespace sent on the request",
            )
        if kind.namespaced:
            metadata["namespace"] = request.namespace
            if self.storage.get(NAMESPACE, "", request.namespace) is None:
                raise Refused(404, f'namespaces "{request.namespace}" not found')
        if naming and not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        if not naming and metadata.get("name", request.name) != request.name:
            raise Refused(
                400,
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({request.name})",
            )
        if not naming:
            metadata["name"] = request.name
        elif not metadata.get("name"):
            raise Refused(
                422, f'{kind.singular} "" is invalid: metadata.name: Required value: name or generateName is required'
            )
        head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
        rest = {key: copy(value) for key, value in body.items() if key not in head}
        return head | rest

    def _checked(self, request: Request, body: Any, naming: bool = False, patching: bool = False) -> Plain:
        """The body without unknown fields, with defaults, and right by its schema."""
        thing = self._named(request, body, naming)
        kind = request.kind
        strange = sorted(unknown(kind.schema, thing))
        if strange and request.strict:
            listed = ", ".join(f'unknown field "{path[1:]}"' for path in strange)
            if patching:
                raise Refused(422, f' "" is invalid: patch: Invalid value: "…": strict decoding error: {listed}')
            handled = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'
            raise Refused(400, f"{handled}: strict decoding error: {listed}")
        return self._filled(_named(request, thing["metadata"]["name"]), pruned(kind.schema, thing))

    @staticmethod
    def _filled(request: Request, thing: Plain) -> Plain:
        """With defaults, and right by its schema.

        Raises:
            Refused: 422 with everything that is wrong.
        """
        kind = request.kind
        if kind.own and "status" not in thing and "status" in kind.schema["properties"]:
            thing = thing | {"status": {}}
        thing = filled(kind.schema, thing)
        if not _NAME.fullmatch(request.name) and not kind.group.startswith("rbac"):
            raise _invalid(request, f'metadata.name: Invalid value: "{request.name}": {_NAME_RULE}')
        if kind.has_status and not request.subresource and not kind.own:
            checked = {key: value for key, value in thing.items() if key != "status"}
        else:
            checked = thing
        if wrong := list(problems(kind.schema, checked)):
            raise _invalid(request, wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
        return thing

    def _begin(self, request: Request, thing: Plain, operation: str) -> Plain:
        """Store a new object."""
        kind = request.kind
        thing = self.admission(kind, thing, None)
        metadata = {key: value for key, value in thing["metadata"].items() if key not in _KEPT}
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": managers.now()}
        metadata |= {"generation": 1} if kind.counts else {}
        if kind.has_status and kind.kind != "Node":
            thing = {key: value for key, value in thing.items() if key != "status"}
            thing |= {"status": _first_status(kind)} if kind.own else {}
        thing = thing | {"metadata": metadata}
        if operation == "Update":
            empty = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {}}
            written = {key: value for key, value in thing.items() if key != "status"} if kind.has_status else thing
            owners = managers.update(kind.schema, empty, written, request.who("Update"), kind.has_status)
            thing = thing | {"metadata": metadata | ({"managedFields": owners} if owners else {})}
        thing = _without_empty(kind, thing)
        return thing if request.dry_run else self.storage.put(kind, _key(thing), thing)

    def _change(self, request: Request, live: Plain, thing: Plain, operation: str = "Update") -> Plain:
        """Store a new state of an object, unless nothing changes."""
        kind = request.kind
        if not request.subresource:
            thing = self.admission(kind, thing, live)
        kept = {key: live["metadata"][key] for key in _KEPT if key in live["metadata"]}
        metadata = {k: v for k, v in thing["metadata"].items() if k not in ("resourceVersion", *_KEPT)} | kept
        if request.subresource:
            owners = metadata.get("managedFields", [])
            metadata = {k: v for k, v in live["metadata"].items() if k != "resourceVersion"}
            metadata |= {"managedFields": owners} if operation == "Apply" else {}
            thing = live | {"metadata": metadata} | ({"status": thing["status"]} if "status" in thing else {})
        elif kind.has_status:
            thing = {key: value for key, value in thing.items() if key != "status"}
            thing |= {"status": live["status"]} if "status" in live else {}
        thing = _without_empty(kind, thing | {"metadata": metadata})
        if kind.counts and _wanted(thing) != _wanted(live):
            thing["metadata"]["generation"] = live["metadata"].get("generation", 1) + 1
        if operation == "Update":
            owners = managers.update(kind.schema, live, thing, request.who("Update"), kind.has_status)
            reset = thing["metadata"].get("managedFields") == []  # how a client has them begin anew
            thing["metadata"]["managedFields"] = [] if reset else owners
        if _timeless(thing) == _timeless(live):
            return live
        if request.dry_run:
            return thing | {"metadata": thing["metadata"] | {"resourceVersion": live["metadata"]["resourceVersion"]}}
        thing = self.storage.put(kind, request.key, thing)
        freed = "deletionTimestamp" in thing["metadata"] and not thing["metadata"].get("finalizers")
        if freed and not self._grace(kind, thing, None):
            self.delete(request, {})
        return thing

    @staticmethod
    def _current(request: Request, live: Plain, metadata: Plain) -> None:
        """Check what a writer takes an object to be.

        Raises:
            Refused: 409 when that is no longer so.
        """
        if metadata.get("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
            raise Refused(
                409,
                f"{_stale(request)}: Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: "
                f"{live['metadata']['uid']}",
            )
        if metadata.get("resourceVersion") not in (None, "", live["metadata"]["resourceVersion"]):
            raise Refused(409, f"{_stale(request)}: the object has been modified; {_AGAIN}")


_AGAIN = "please apply your changes to the latest version and try again"


def _stale(request: Request) -> str:
    return f'Operation cannot be fulfilled on {request.kind.resource} "{request.name}"'


def _invalid(request: Request, what: str) -> Refused:
    return Refused(422, f'{request.kind.singular} "{request.name}" is invalid: {what}')


def _named(request: Request, name: str) -> Request:
    return replace(request, name=name)


def _key(thing: Plain) -> tuple[str, str]:
    return (thing["metadata"].get("namespace", ""), thing["metadata"]["name"])


def _without_empty(kind: Served, thing: Plain) -> Plain:
    """An object without the empty fields that the server's own types leave out when they are written."""
    metadata = {key: value for key, value in thing["metadata"].items() if value not in ({}, None) and value != []}
    own = {
        key: value for key, value in thing.items() if not kind.own or key == "spec" or value != {} or key == "status"
    }
    return own | {"metadata": metadata}


def _first_status(kind: Served) -> Plain:
    first: dict[str, Plain] = {"Pod": {"phase": "Pending"}, "Namespace": {"phase": "Active"}}
    return first.get(kind.kind, {"loadBalancer": {}} if kind.kind == "Service" else {})


def _wanted(thing: Plain) -> Plain:
    """What ``metadata.generation`` counts the changes of."""
    return {key: value for key, value in thing.items() if key not in ("metadata", "status")}


def _timeless(thing: Plain) -> Plain:
    """An object without what changes by the mere writing."""
    metadata = {key: value for key, value in thing["metadata"].items() if key != "resourceVersion"}
    entries = [{k: v for k, v in entry.items() if k != "time"} for entry in metadata.pop("managedFields", [])]
    return thing | {"metadata": metadata | {"managedFields": sorted(entries, key=str)}}


def _merged(live: Any, patch: Any, lists: bool = False) -> Any:
    """A JSON merge patch (RFC 7386); with ``lists``, those were merged already and are left as they are."""
    if isinstance(patch, list) and lists:
        return live
    if not isinstance(patch, dict):
        return patch
    merged = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value, lists)
    return merged


def _without_nulls(patch: Plain) -> Plain:
    return {k: _without_nulls(v) if isinstance(v, dict) else v for k, v in patch.items() if v is not None}
