"""A Kubernetes API server as far as a training in several pods needs it: the REST protocol, and strict about fields.

The field names are those of the custom resource definitions of Kubeflow Trainer 2.1 and 2.2 and of the Training
Operator 1.9, as far as they may stand in what we send; a field that is not listed is refused, as a real server refuses
one that its schema does not know under strict validation.
"""

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ANY = None
_CONTAINER_PATCH = {"name": ANY, "volumeMounts": [ANY], "securityContext": ANY}  # env: not for the container `node`
_POD_PATCH = {
    "serviceAccountName": ANY,
    "nodeSelector": ANY,
    "affinity": {"nodeAffinity": ANY, "podAffinity": ANY, "podAntiAffinity": ANY},
    "tolerations": [{"key": ANY, "operator": ANY, "value": ANY, "effect": ANY, "tolerationSeconds": ANY}],
    "volumes": [ANY],
    "initContainers": [_CONTAINER_PATCH],
    "containers": [_CONTAINER_PATCH],
    "imagePullSecrets": [ANY],
}
_TRAINER = {
    "runtimeRef": {"name": ANY, "apiGroup": ANY, "kind": ANY},
    "trainer": {
        "image": ANY,
        "command": [ANY],
        "args": [ANY],
        "env": [{"name": ANY, "value": ANY, "valueFrom": ANY}],
        "numNodes": ANY,
        "numProcPerNode": ANY,
        "resourcesPerNode": {"limits": ANY, "requests": ANY, "claims": ANY},
    },
    "suspend": ANY,
    "managedBy": ANY,
}
TRAINER_2_1 = _TRAINER | {
    "podTemplateOverrides": [{"targetJobs": [{"name": ANY}], "metadata": ANY, "spec": _POD_PATCH}]
}
_JOB_PATCH = {"name": ANY, "template": {"metadata": ANY, "spec": {"template": {"metadata": ANY, "spec": _POD_PATCH}}}}
TRAINER_2_2 = _TRAINER | {
    "runtimePatches": [
        {
            "manager": ANY,
            "trainingRuntimeSpec": {"template": {"metadata": ANY, "spec": {"replicatedJobs": [_JOB_PATCH]}}},
        }
    ]
}
_POLICY = {"cleanPodPolicy": ANY, "ttlSecondsAfterFinished": ANY, "activeDeadlineSeconds": ANY, "backoffLimit": ANY}
_CONTAINER = {
    "name": ANY,
    "image": ANY,
    "command": [ANY],
    "env": [{"name": ANY, "value": ANY, "valueFrom": ANY}],
    "ports": [{"name": ANY, "containerPort": ANY}],
    "resources": {"limits": ANY, "requests": ANY},
    "volumeMounts": [{"name": ANY, "mountPath": ANY, "readOnly": ANY, "subPath": ANY}],
}
_REPLICA = {
    "replicas": ANY,
    "restartPolicy": ANY,
    "template": {"metadata": ANY, "spec": {**_POD_PATCH, "containers": [_CONTAINER], "initContainers": [_CONTAINER]}},
}
PYTORCH = {
    "runPolicy": _POLICY,
    "elasticPolicy": ANY,
    "nprocPerNode": ANY,
    "pytorchReplicaSpecs": {"Master": _REPLICA, "Worker": _REPLICA},
}
TENSORFLOW = {
    "runPolicy": _POLICY,
    "successPolicy": ANY,
    "enableDynamicWorker": ANY,
    "tfReplicaSpecs": dict.fromkeys(("Chief", "Master", "PS", "Worker", "Evaluator"), _REPLICA),
}


def unknown(value: Any, known: Any, where: str = "spec") -> list[str]:
    """The fields that are not known, by their path."""
    if known is ANY:
        return []
    if isinstance(known, list):
        return [one for index, item in enumerate(value) for one in unknown(item, known[0], f"{where}[{index}]")]
    return [
        one
        for name, item in value.items()
        for one in (unknown(item, known[name], f"{where}.{name}") if name in known else [f"{where}.{name}"])
    ]


@dataclass
class Api:
    """What the server holds.

    Attributes:
        kinds: by ``group/version``, then kind: the fields that its spec may have.
        objects: by name, as they were applied, with uid and status.
        forbidden: verbs that the account may not use.
        log: what the first pod says.
        broken: how many of the next looks at an object the server fails to answer.
        operator: called with an object that was made; sets its status, as an operator would.
        removed: names of the objects that were removed.
    """

    kinds: dict[str, dict[str, Any]]
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    log: str = ""
    broken: int = 0
    operator: Callable[[dict[str, Any]], None] = lambda _made: None
    removed: list[str] = field(default_factory=list)
    made: int = 0
    selectors: set[str] = field(default_factory=set)

    def answer(self, method: str, path: str, query: dict[str, list[str]], kind: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON (or text) for a request."""
        parts = path.strip("/").split("/")
        if path == "/version":
            return 200, {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}
        if path == "/api":
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            return 200, {"kind": "APIGroupList", "groups": self._groups()}
        if path.startswith("/openapi/v3/apis/"):
            return self._described(path.removeprefix("/openapi/v3/apis/"))
        if parts[:2] == ["api", "v1"]:
            return self._pods(parts, query)
        group = "/".join(parts[1:3])
        if group not in self.kinds:
            return _status(404, "the server could not find the requested resource")
        if len(parts) == 3:
            return 200, {"kind": "APIResourceList", "groupVersion": group, "resources": self._resources(group)}
        return self._object(method, parts, kind, body)

    def _groups(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name.split("/")[0],
                "versions": [{"groupVersion": name, "version": name.split("/")[1]}],
                "preferredVersion": {"groupVersion": name, "version": name.split("/")[1]},
            }
            for name in self.kinds
        ]

    def _resources(self, group: str) -> list[dict[str, Any]]:
        verbs = ["get", "list", "create", "patch", "delete"]
        return [
            {"name": _plural(kind), "singularName": "", "kind": kind, "namespaced": True, "verbs": verbs}
            for kind in self.kinds[group]
        ]

    def _described(self, group: str) -> tuple[int, Any]:
        schemas = {
            f"org.kubeflow.{kind}": {"properties": {"spec": {"properties": {key: {} for key in fields}}}}
            for kind, fields in self.kinds.get(group, {}).items()
        }
        return 200, {"openapi": "3.0.0", "components": {"schemas": schemas}}

    def _pods(self, parts: list[str], query: dict[str, list[str]]) -> tuple[int, Any]:
        if parts == ["api", "v1"]:
            return 200, {"kind": "APIResourceList", "groupVersion": "v1", "resources": []}
        if parts[-1] == "log":
            return 200, self.log
        self.selectors.update(query.get("labelSelector", []))
        metadata = {"name": "first", "namespace": parts[3], "creationTimestamp": "2026-01-01T00:00:00Z"}
        return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [{"metadata": metadata}]}

    def _object(self, method: str, parts: list[str], content: str, body: bytes) -> tuple[int, Any]:
        group, plural, name = "/".join(parts[1:3]), parts[5], parts[6]
        (kind,) = [kind for kind in self.kinds[group] if _plural(kind) == plural]
        if method.lower() in self.forbidden:
            return _status(403, f'{plural} "{name}" is forbidden: User "x" cannot {method.lower()} resource')
        if method == "GET":
            if self.broken:
                self.broken -= 1
                return _status(503, "the server is currently unable to handle the request")
            found = self.objects.get(name)
            return (200, found) if found else _status(404, f'{plural} "{name}" not found')
        if method == "DELETE":
            self.removed.append(name)
            gone = self.objects.pop(name, None)
            return _status(200, "deleted") if gone else _status(404, f'{plural} "{name}" not found')
        assert (method, content) == ("PATCH", "application/apply-patch+yaml"), "made by server-side apply"
        given = json.loads(body)
        wrong = unknown(given["spec"], self.kinds[group][kind])
        if wrong or given["kind"] != kind or given["metadata"]["name"] != name:
            return _status(422, f"unknown fields {wrong}")
        self.made += 1
        given["metadata"]["uid"] = f"uid-{self.made}"
        self.objects[name] = given
        self.operator(given)
        return 201, given


def _plural(kind: str) -> str:
    return f"{kind.lower()}s"


def _status(code: int, message: str) -> tuple[int, Any]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


@contextmanager
def serving(api: Api):
    """The server's address while it serves."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            split = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = self.headers.get("Content-Type", "")
            status, said = api.answer(self.command, split.path, parse_qs(split.query), kind, body)
            data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PATCH = do_DELETE = do_POST = _handle  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
