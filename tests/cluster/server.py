"""A Kubernetes API server over HTTP, for the real client to talk to: objects in memory, the protocol as it is.

It holds the kinds of :mod:`tests.cluster.kinds` and checks every object against its schema (unknown fields under
strict validation, required, types, enums, limits, defaults). It does resource versions with optimistic concurrency,
generation, server-side apply with ``managedFields`` and conflicts, the status door, selectors, paged lists, watches
with bookmarks and 410, dry runs, finalizers, graceful deletion of pods on nodes, removal of what a deleted object
owned, Roles and bindings for impersonated accounts, and faults. What a cluster's controllers and kubelets do is not
here.

    with ApiServer() as server:
        cluster = Cluster(server.client(), "default", patience_seconds=2)
        server.faults.add("answer", code=429, retry_after=1, method="PATCH", path="inferenceservices/iris", times=2)
        server.faults.add("lose", method="PUT", path="leases")  # carried out, but the answer never arrives
        with server.away():                                     # connections are refused
            ...
        server.cut_watches(); server.storage.forget()           # they must list anew
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.cluster.discovery import Discovery
from tests.cluster.errors import Refused, status
from tests.cluster.faults import Fault, Faults
from tests.cluster.kinds import KINDS, NAMESPACE, Served
from tests.cluster.objects import Objects, Request
from tests.cluster.rbac import Deed, allowed
from tests.cluster.selectors import by_fields, by_labels
from tests.cluster.storage import Storage
from tests.cluster.watching import Watch

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Plain = dict[str, Any]

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_BOOKMARK_SECONDS = 5.0
_LONGEST_WATCH = 1800.0


class ApiServer:
    """The server, on a free port of this machine.

    Attributes:
        storage: what it holds; ``storage.forget()`` makes watches from before refused with 410.
        discovery: what it serves; ``discovery.hidden`` names groups that are not there, as on a cluster without them.
        faults: what goes wrong.
        tokens: the bearer tokens that are accepted; None accepts everyone.
        logs: what pods have said, by namespace and name, and "previous" for a container that was restarted.
        requests: every request so far, as method and path; a watch's method is WATCH.
        deeds: what accounts have done so far, or were refused: pairs of the account and the deed.
    """

    def __init__(self, kinds: Iterable[Served] = KINDS) -> None:
        """Serve these kinds, once started."""
        self.storage = Storage()
        self.discovery = Discovery(kinds)
        self.objects = Objects(self.storage)
        self.faults = Faults()
        self.tokens: set[str] | None = None
        self.logs: dict[tuple[str, ...], str] = {}
        self.requests: list[tuple[str, str]] = []
        self.deeds: set[tuple[str, Deed]] = set()
        self.watches_cut = 0
        self._http: _Listener | None = None
        self._port = 0
        for name in ("default", "kube-system"):
            self.objects.create(Request(NAMESPACE, "", "", "server"), {"metadata": {"name": name}})

    def __enter__(self) -> Self:
        """Start."""
        self.come_back()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop."""
        self.go_away()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def client(self, account: str = "") -> "ApiClient":
        """A client of it.

        Args:
            account: "namespace/name" of the service account that it acts as; empty may do everything.
        """
        from kubernetes.client import ApiClient, Configuration

        client = ApiClient(Configuration(host=self.url))
        if account:
            impersonate(client, account)
        return client

    def come_back(self) -> None:
        """Accept connections."""
        self._http = _Listener(self, self._port)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def go_away(self) -> None:
        """Close every connection and refuse new ones; what is stored stays."""
        if self._http is not None:
            http, self._http = self._http, None
            http.shutdown()
            http.server_close()
            self.cut_watches()
            http.close_all()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Be away while the block runs."""
        self.go_away()
        try:
            yield
        finally:
            self.come_back()

    def cut_watches(self) -> None:
        """Close the connection of every watch."""
        with self.storage.changed:
            self.watches_cut += 1
            self.storage.changed.notify_all()


def impersonate(client: "ApiClient", account: str) -> None:
    """Have a client act as a service account, "namespace/name"; needs the right to impersonate."""
    client.set_default_header("Impersonate-User", f"system:serviceaccount:{account.replace('/', ':')}")


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, api: ApiServer, port: int) -> None:
        self.api = api
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_all(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error of ours; anything else is shown."""
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Dropped(ConnectionError):
    """The connection is to be closed without another word."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    def setup(self) -> None:
        super().setup()
        self.api = self.server.api

    def _serve(self) -> None:
        address = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(address.query, keep_blank_values=True).items()}
        self.raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in address.path.split("/") if part]
        watching = self.query.get("watch") in ("true", "1", "True")
        method = "WATCH" if watching else self.command
        self.api.requests.append((method, address.path))
        fault = self.api.faults.next(method, address.path)
        try:
            if fault is not None and not self._let_through(fault, watching):
                return
            answer = self._answer(parts, watching, fault)
            if answer is not None:
                self._send(200, answer, fault)
        except Refused as refusal:
            self._send(refusal.code, json.dumps(refusal.status).encode(), fault)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _let_through(self, fault: Fault, watching: bool) -> bool:
        """Let a fault happen; whether the request is carried out all the same."""
        if fault.how == "answer":
            headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
            self._send(fault.code, fault.body(), None, headers)
        elif fault.how == "drop":
            raise _Dropped
        elif fault.how == "hang":
            if watching:
                self._begin_stream()
            self._still(fault.seconds)
            raise _Dropped
        elif fault.how == "gone":
            self._begin_stream()
            self._line({"type": "ERROR", "object": status(410, "too old resource version", "Expired")})
            self._end_stream()
        return fault.how in ("lose", "cut", "mute")

    def _still(self, seconds: float) -> None:
        end, cuts = time.monotonic() + seconds, self.api.watches_cut
        self.api.storage.wait(lambda: self.api.watches_cut != cuts or time.monotonic() > end, seconds)

    def _send(self, code: int, body: bytes, fault: Fault | None, headers: dict[str, str] | None = None) -> None:
        if fault is not None and fault.how == "lose":
            raise _Dropped
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if fault is not None and fault.how == "cut":
            self.wfile.write(body[: len(body) // 2])
            raise _Dropped
        self.wfile.write(body)

    def _answer(self, parts: list[str], watching: bool, fault: Fault | None) -> bytes | None:
        self._let_in()
        match parts:
            case ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] if self.command == "POST":
                return json.dumps(self._review()).encode()
            case ["openapi", "v3", "api", version]:
                return self.api.discovery.document("", version)
            case ["openapi", "v3", "apis", group, version]:
                return self.api.discovery.document(group, version)
            case ["api", version, *rest] if rest:
                return self._resource("", version, rest, watching, fault)
            case ["apis", group, version, *rest] if rest:
                return self._resource(group, version, rest, watching, fault)
        return json.dumps(self.api.discovery.answer(parts)).encode()

    def _let_in(self) -> None:
        token = self.headers.get("Authorization", "").rpartition(" ")[2]
        if self.api.tokens is not None and token not in self.api.tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")

    def _resource(self, group: str, version: str, rest: list[str], watching: bool, fault: Fault | None) -> bytes | None:
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        kind = self.api.discovery.find(group, version, rest[0])
        name, subresource = [*rest[1:], "", ""][:2]
        self._allow(kind, namespace, name, subresource, watching)
        if subresource == "log" and kind.kind == "Pod":
            return self._log(kind, namespace, name)
        if subresource and (subresource != "status" or not kind.has_status):
            raise Refused(404, "the server could not find the requested resource")
        if self.command == "GET":
            if watching:
                return self._watch(kind, namespace, fault)
            found = self._list(kind, namespace) if not name else self.api.objects.get(kind, namespace, name)
        else:
            found = self._write(kind, namespace, name, subresource)
        return json.dumps(found).encode()

    def _allow(self, kind: Served, namespace: str, name: str, subresource: str, watching: bool) -> None:
        user = self.headers.get("Impersonate-User", "")
        reading = "watch" if watching else "get" if name else "list"
        resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
        deed = Deed(_VERBS.get(self.command, reading), kind.group, resource, namespace, name)
        deeds = [deed]
        applying = self.headers.get("Content-Type", "").startswith("application/apply-patch")
        if user and applying and self.api.storage.get(kind, namespace, name) is None:
            deeds.append(replace(deed, verb="create"))  # an apply that makes the object needs both rights
        for one in deeds if user else []:
            self._permit(kind, user, one)

    def _permit(self, kind: Served, user: str, deed: Deed) -> None:
        name, namespace, resource = deed.name, deed.namespace, deed.resource
        self.api.deeds.add((user, deed))
        if not allowed(self.api.storage, user, deed):
            named = f'{kind.resource} "{name}" is forbidden' if name else f"{kind.resource} is forbidden"
            where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
            raise Refused(
                403,
                f'{named}: User "{user}" cannot {deed.verb} resource "{resource}" in API group "{kind.group}" {where}',
            )

    def _review(self) -> Plain:
        review = self._body()
        asked = review["spec"].get("resourceAttributes", {})
        resource = asked.get("resource", "") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        deed = Deed(
            asked.get("verb", ""), asked.get("group", ""), resource, asked.get("namespace", ""), asked.get("name", "")
        )
        user = self.headers.get("Impersonate-User", "")
        return review | {"status": {"allowed": not user or allowed(self.api.storage, user, deed)}}

    def _write(self, kind: Served, namespace: str, name: str, subresource: str) -> Plain:
        query, objects = self.query, self.api.objects
        request = Request(
            kind=kind,
            namespace=namespace,
            name=name,
            manager=query.get("fieldManager", "") or self._agent(),
            strict=query.get("fieldValidation") == "Strict",
            dry_run=query.get("dryRun") == "All",
            force=query.get("force", "").lower() == "true",
            subresource=subresource,
        )
        if self.command == "DELETE":
            asked = {key: query[key] for key in ("propagationPolicy",) if key in query}
            asked |= {key: int(query[key]) for key in ("gracePeriodSeconds",) if key in query}
            gone = objects.delete(request, (self._body() or {}) | asked)
            return gone if kind.own else {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        if self.command in ("POST", "PUT"):
            return (
                objects.create(request, self._body())
                if self.command == "POST"
                else objects.replace(request, self._body())
            )
        return self._patch(request)

    def _patch(self, request: Request) -> Plain:
        form = self.headers.get("Content-Type", "").partition(";")[0]
        patches: dict[str, Callable[[], Plain]] = {
            "application/apply-patch+yaml": lambda: self.api.objects.apply(request, self._body()),
            "application/merge-patch+json": lambda: self.api.objects.merge(request, self._body()),
        }
        if request.kind.own:
            patches["application/strategic-merge-patch+json"] = lambda: self.api.objects.merge(
                request, self._body(), by_key=True
            )
        if form not in patches:
            raise Refused(
                415, f"the body of the request was in an unknown format - accepted media types: {list(patches)}"
            )
        return patches[form]()

    def _agent(self) -> str:
        """The manager of a write that names none; an apply must name one."""
        applying = self.headers.get("Content-Type", "").startswith("application/apply-patch")
        return "" if applying else self.headers.get("User-Agent", "unknown").partition("/")[0]

    def _body(self) -> Any:
        if not self.raw:
            return None
        try:
            return json.loads(self.raw)
        except ValueError:
            return yaml.safe_load(self.raw)

    def _selected(self, namespace: str) -> Callable[[Plain], bool]:
        labels, fields = self.query.get("labelSelector", ""), self.query.get("fieldSelector", "")

        def selected(thing: Plain) -> bool:
            here = not namespace or thing["metadata"].get("namespace") == namespace
            return here and by_labels(labels, thing) and by_fields(fields, thing)

        return selected

    def _list(self, kind: Served, namespace: str) -> Plain:
        with self.api.storage.lock:
            things = [thing for thing in self.api.storage.all(kind, namespace) if self._selected(namespace)(thing)]
            version = self.api.storage.version
        metadata: Plain = {"resourceVersion": str(version)}
        limit, start = int(self.query.get("limit") or 0), self.query.get("continue", "")
        if start:
            version, _, after = start.partition(":")
            if int(version) < self.api.storage.oldest:
                raise Refused(410, "The provided continue parameter is too old to display a consistent list result.")
            metadata = {"resourceVersion": version}
            things = [thing for thing in things if _place(thing) > after]
        if limit and len(things) > limit:
            metadata |= {
                "continue": f"{metadata['resourceVersion']}:{_place(things[limit - 1])}",
                "remainingItemCount": len(things) - limit,
            }
            things = things[:limit]
        if kind.own:
            things = [{key: value for key, value in t.items() if key not in ("apiVersion", "kind")} for t in things]
        return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata, "items": things}

    def _watch(self, kind: Served, namespace: str, fault: Fault | None) -> None:
        version, cuts = int(self.query.get("resourceVersion") or 0), self.api.watches_cut
        if version and version < self.api.storage.oldest:
            refusal = status(410, f"too old resource version: {version} ({self.api.storage.oldest})", "Expired")
            self._begin_stream()
            self._line({"type": "ERROR", "object": refusal})
            return self._end_stream()
        watch = Watch(
            kind=kind,
            version=version,
            seconds=float(self.query.get("timeoutSeconds") or _LONGEST_WATCH),
            bookmarks=_BOOKMARK_SECONDS if self.query.get("allowWatchBookmarks") == "true" else 0,
            selected=self._selected(namespace),
            ended=lambda: self.api.watches_cut != cuts,
        )
        self._begin_stream()
        for event in watch.events(self.api.storage):
            if fault is not None and fault.how == "mute":
                self._line(event)
                self._still(fault.seconds)
                raise _Dropped
            if fault is not None:  # the connection breaks in the middle of the first event
                self.wfile.write(b"%x\r\n" % 1000 + json.dumps(event).encode()[:40])
                raise _Dropped
            self._line(event)
        if watch.ended():
            raise _Dropped
        return self._end_stream()

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _line(self, event: Plain) -> None:
        line = json.dumps(event).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def _end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _log(self, kind: Served, namespace: str, name: str) -> bytes:
        self.api.objects.get(kind, namespace, name)
        key = (namespace, name, "previous") if self.query.get("previous") == "true" else (namespace, name)
        lines = self.api.logs.get(key, "").splitlines(keepends=True)
        return "".join(lines[-int(self.query.get("tailLines") or len(lines) or 1) :]).encode()


def _place(thing: Plain) -> str:
    return f"{thing['metadata'].get('namespace', '')}/{thing['metadata']['name']}"
