"""How the simulated controllers see the API: plain REST calls, and a mirror of every object that follows by watch."""

import contextlib
import copy
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

Plain = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """Where the objects of a kind lie."""

    kind: str
    api_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", part: str = "") -> str:
        """The address of one object, or of all in a namespace or in the cluster."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        inside = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return "/".join(filter(None, (f"{root}{inside}/{self.plural}", name, part)))


RESOURCES = {
    one.kind if one.api_version != "serving.knative.dev/v1" or one.kind == "Revision" else "KnativeService": one
    for one in (
        Resource("InferenceService", "serving.kserve.io/v1beta1", "inferenceservices"),
        Resource("Service", "serving.knative.dev/v1", "services"),
        Resource("Revision", "serving.knative.dev/v1", "revisions"),
        Resource("Deployment", "apps/v1", "deployments"),
        Resource("Pod", "v1", "pods"),
        Resource("Service", "v1", "services"),
        Resource("ConfigMap", "v1", "configmaps"),
        Resource("Node", "v1", "nodes", namespaced=False),
        Resource("Namespace", "v1", "namespaces", namespaced=False),
        Resource("HTTPRoute", "gateway.networking.k8s.io/v1", "httproutes"),
        Resource("Gateway", "gateway.networking.k8s.io/v1", "gateways"),
        Resource("ServingRuntime", "serving.kserve.io/v1alpha1", "servingruntimes"),
        Resource("ClusterServingRuntime", "serving.kserve.io/v1alpha1", "clusterservingruntimes", namespaced=False),
    )
}


class Api:
    """Calls of the simulated controllers, under their own field manager."""

    def __init__(self, client: ApiClient, manager: str = "kserve-controller-manager") -> None:
        configuration = copy.copy(client.configuration)
        configuration.connection_pool_maxsize = 32
        self._client = ApiClient(configuration=configuration)
        self._client.default_headers = dict(client.default_headers)
        self._client.user_agent = manager
        self._query = [("fieldManager", manager)]

    def list(self, resource: Resource) -> tuple[list[Plain], str]:
        """All objects of a kind, and the version they are of."""
        found = self._call("GET", resource.path())
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}
        return [kind | item for item in found["items"]], found["metadata"]["resourceVersion"]

    def watch(self, resource: Resource, since: str, seconds: int) -> Iterator[Plain]:
        """Events after a version, until the server ends the watch."""
        query = [("watch", "true"), ("resourceVersion", since), ("timeoutSeconds", str(seconds))]
        query.append(("allowWatchBookmarks", "true"))
        response = self._open("GET", resource.path(), None, query, timeout=(5, seconds + 5))
        try:
            rest = b""
            for part in response.stream(amt=None, decode_content=False):
                *lines, rest = (rest + part).split(b"\n")
                yield from (json.loads(line) for line in lines if line.strip())
        finally:
            response.close()

    def get(self, resource: Resource, namespace: str, name: str) -> Plain:
        return self._call("GET", resource.path(namespace, name))

    def create(self, resource: Resource, item: Plain) -> Plain:
        return self._call("POST", resource.path(item["metadata"].get("namespace", "")), item, self._query)

    def update(self, resource: Resource, item: Plain, part: str = "") -> Plain:
        meta = item["metadata"]
        return self._call("PUT", resource.path(meta.get("namespace", ""), meta["name"], part), item, self._query)

    def delete(self, resource: Resource, item: Plain, grace: int | None = None) -> None:
        query = [] if grace is None else [("gracePeriodSeconds", str(grace))]
        meta = item["metadata"]
        try:
            self._call("DELETE", resource.path(meta.get("namespace", ""), meta["name"]), None, query)
        except ApiException as error:
            if error.status != 404:
                raise

    def _call(self, method: str, path: str, body: Plain | None = None, query: Any = ()) -> Plain:
        response = self._open(method, path, body, query, timeout=(5, 10))
        return json.loads(response.data)

    def _open(self, method: str, path: str, body: Plain | None, query: Any, timeout: Any) -> Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        return self._client.call_api(
            path,
            method,
            query_params=list(query),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _preload_content=False,
            _request_timeout=timeout,
        )


class Mirror(threading.Thread):
    """The objects of one kind as they are, kept by list and watch; a dropped watch or 410 begins anew."""

    def __init__(self, api: Api, resource: Resource, changed: threading.Event) -> None:
        super().__init__(daemon=True, name=f"mirror-{resource.plural}")
        self.resource = resource
        self.synced = threading.Event()
        self._api, self._changed = api, changed
        self._items: dict[tuple[str, str], Plain] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()

    def all(self) -> list[Plain]:
        """The objects themselves, not copies: they are only read."""
        with self._lock:
            return list(self._items.values())

    def get(self, namespace: str, name: str) -> Plain | None:
        with self._lock:
            return self._items.get((namespace, name))

    def put(self, item: Plain) -> None:
        """Take in an object that was just written, so that the next pass sees it."""
        kind = {"apiVersion": self.resource.api_version, "kind": self.resource.kind}
        key = (item["metadata"].get("namespace", ""), item["metadata"]["name"])
        with self._lock:
            known = self._items.get(key)
            if known is None or _version(item) >= _version(known):
                self._items[key] = kind | item
        self._changed.set()

    def drop(self, item: Plain) -> None:
        with self._lock:
            self._items.pop((item["metadata"].get("namespace", ""), item["metadata"]["name"]), None)
        self._changed.set()

    def stop(self) -> None:
        self._over.set()

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._follow()
            except (ApiException, HTTPError, OSError, ValueError):
                self._over.wait(0.2)

    def _follow(self) -> None:
        items, version = self._api.list(self.resource)
        with self._lock:
            self._items = {(item["metadata"].get("namespace", ""), item["metadata"]["name"]): item for item in items}
        self.synced.set()
        self._changed.set()
        while not self._over.is_set():
            for event in self._api.watch(self.resource, version, 20):
                if event["type"] == "ERROR":
                    return
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] == "DELETED":
                    self.drop(event["object"])
                elif event["type"] != "BOOKMARK":
                    self.put(event["object"])
                if self._over.is_set():
                    return


class View:
    """Everything that the controllers look at, to be read only; writes go through it."""

    KINDS = ("InferenceService", "KnativeService", "Revision", "Deployment", "Pod", "Service", "HTTPRoute", "Gateway")
    RUNTIMES = ("ServingRuntime", "ClusterServingRuntime")

    def __init__(self, api: Api) -> None:
        self.changed = threading.Event()
        self.api = api
        self._mirrors = {kind: Mirror(api, RESOURCES[kind], self.changed) for kind in (*self.KINDS, *self.RUNTIMES)}

    def start(self, seconds: float = 10) -> None:
        for mirror in self._mirrors.values():
            mirror.start()
        for kind in ("InferenceService", "Deployment", "Pod", "Service"):
            assert self._mirrors[kind].synced.wait(seconds), f"{kind} could not be listed"

    def stop(self) -> None:
        for mirror in self._mirrors.values():
            mirror.stop()

    def all(self, kind: str) -> list[Plain]:
        return self._mirrors[kind].all()

    def get(self, kind: str, namespace: str, name: str) -> Plain | None:
        return self._mirrors[kind].get(namespace, name)

    def create(self, kind: str, item: Plain) -> Plain:
        made = self.api.create(RESOURCES[kind], item)
        self._mirrors[kind].put(made)
        return made

    def update(self, kind: str, item: Plain) -> Plain:
        made = self.api.update(RESOURCES[kind], item)
        self._mirrors[kind].put(made)
        return made

    def set_status(self, kind: str, item: Plain, status: Plain) -> None:
        """Write a status, when it differs from the one that is there."""
        if item.get("status", {}) == status:
            return
        self._mirrors[kind].put(self.api.update(RESOURCES[kind], {**item, "status": status}, "status"))

    def delete(self, kind: str, item: Plain, grace: int | None = None) -> None:
        self.api.delete(RESOURCES[kind], item, grace)
        if grace == 0 or kind != "Pod":
            self._mirrors[kind].drop(item)


def ensure(api: Api, kind: str, item: Plain) -> None:
    """Make an object unless it is there, or the cluster does not know its kind."""
    with contextlib.suppress(ApiException):
        api.create(RESOURCES[kind], item)


def _version(item: Plain) -> int:
    return int(item["metadata"].get("resourceVersion") or 0)
