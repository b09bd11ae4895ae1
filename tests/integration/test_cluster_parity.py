"""The API server of the tests against a real one: the same writes, by several managers, end in the same objects."""

import json
import random
import re
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from components.cluster.api import Cluster
from components.cluster.discovery import plain
from tests.cluster.fixtures import RealServer
from tests.cluster.server import ApiServer

if TYPE_CHECKING:
    from kubernetes.dynamic import DynamicClient

pytest_plugins = ["tests.cluster.fixtures"]
pytestmark = pytest.mark.cluster

Plain = dict[str, Any]

_STAMPS = ("uid", "creationTimestamp", "resourceVersion", "namespace", "time", "lastTransitionTime")
_SEEDS, _STEPS = 12, 25
_DEEDS = ["apply"] * 5 + ["force", "put", "put", "merge", "create", "delete", "status", "apply status"]


def config_map(dice: random.Random) -> Plain:
    data = {key: dice.choice("123") for key in dice.sample("abcd", dice.randint(0, 3))}
    labels = {key: dice.choice("12") for key in dice.sample(["x", "y"], dice.randint(0, 2))}
    head: Plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "thing"}}
    head["metadata"] |= {"labels": labels} if labels else {}
    return head | ({"data": data} if data else {})


def deployment(dice: random.Random) -> Plain:
    containers = []
    for name in dice.sample(["one", "two", "three"], dice.randint(1, 3)):
        container: Plain = {"name": name, "image": dice.choice(["a", "b"])}
        if dice.random() < 0.5:
            container["env"] = [{"name": n, "value": dice.choice("12")} for n in dice.sample("MNO", dice.randint(1, 2))]
        if dice.random() < 0.3:
            container["ports"] = [{"containerPort": dice.choice([80, 81])}]
        if dice.random() < 0.3:
            container["args"] = dice.sample(["x", "y", "z"], 2)
        containers.append(container)
    labels = {"app": "thing"}
    spec: Plain = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
    }
    spec |= {"replicas": dice.randint(1, 3)} if dice.random() < 0.5 else {}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "thing"}, "spec": spec}


def inference_service(dice: random.Random) -> Plain:
    model: Plain = {"name": "main", "modelFormat": {"name": dice.choice(["onnx", "mlflow"])}}
    model |= {"storageUri": dice.choice(["gs://a", "gs://b"])} if dice.random() < 0.6 else {}
    if dice.random() < 0.4:
        model["env"] = [{"name": n, "value": dice.choice("12")} for n in dice.sample("MNO", dice.randint(1, 2))]
    if dice.random() < 0.3:
        model["resources"] = {"requests": {"cpu": dice.choice(["1", 2])}}
    predictor: Plain = {"model": model}
    predictor |= {"minReplicas": dice.randint(0, 2)} if dice.random() < 0.5 else {}
    predictor |= {"canaryTrafficPercent": dice.choice([0, 10])} if dice.random() < 0.4 else {}
    # One mistake at a time: of several, a real server names the one that it happens to meet first.
    predictor |= dice.choice([{"strange": 1}, {"timeout": "1"}]) if dice.random() < 0.08 else {}
    spec: Plain = {"predictor": predictor}
    if dice.random() < 0.4:
        canary = {"name": "v2", "model": {"name": "main", "modelFormat": {"name": "onnx"}}}
        spec["canary"] = [{"trafficPercent": dice.choice([1, 2]), "predictor": canary}]
    notes = {key: dice.choice("12") for key in dice.sample(["p", "q"], dice.randint(0, 2))}
    metadata: Plain = {"name": "thing"} | ({"annotations": notes} if notes else {})
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata, "spec": spec}


def route(dice: random.Random) -> Plain:
    weight = dice.choice([0, 10, 100, -1 if dice.random() < 0.2 else 50])
    backends = [{"name": "a", "port": 80, "weight": weight}, {"name": "b", "port": 80}]
    rule: Plain = {"backendRefs": backends[: dice.randint(1, 2)]}
    if dice.random() < 0.4:
        rule["matches"] = [{"path": {"value": dice.choice(["/", "/v2"])}}]
    if dice.random() < 0.3:
        rule["filters"] = [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "b", "port": 80}}}]
    spec: Plain = {"parentRefs": [{"name": "gateway"}], "rules": [rule]}
    spec |= {"hostnames": [dice.choice(["a.example", "b.example"])]} if dice.random() < 0.5 else {}
    api = "gateway.networking.k8s.io/v1"
    return {"apiVersion": api, "kind": "HTTPRoute", "metadata": {"name": "thing"}, "spec": spec}


_PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "InferenceService": "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
}


class Side:
    """One of the two servers, in a namespace of its own."""

    def __init__(self, server: ApiServer | RealServer) -> None:
        cluster = Cluster(server.client(), f"parity-{uuid.uuid4().hex[:8]}", patience_seconds=5)
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace}})
        self._client: DynamicClient = cluster._client
        self._namespace = cluster.namespace

    def send(self, method: str, path: str, body: Plain | None, manager: str, **options: Any) -> tuple[int, Any]:
        """The answer's code, and the object or the server's reason."""
        from kubernetes.client.exceptions import ApiException

        query = [("fieldValidation", "Strict"), ("fieldManager", manager)] if body is not None else []
        try:
            path = path.format(self._namespace)
            return 200, self._client.request(method, path, body=body, query_params=query, serializer=plain, **options)
        except ApiException as error:
            return error.status, json.loads(error.body)["message"].replace(self._namespace, "NAMESPACE")


def comparable(value: Any) -> Any:
    """Without what two servers can never agree on."""
    if isinstance(value, dict):
        return {key: comparable(part) for key, part in value.items() if key not in _STAMPS}
    return [comparable(part) for part in value] if isinstance(value, list) else value


def settled(answer: tuple[int, Any]) -> Any:
    code, thing = answer
    if isinstance(thing, str):
        thing = thing.partition("strict decoding error: ")[2] or thing  # what comes before repeats the object
        return code, sorted(re.split(r", |\n|: \n", thing.replace("[", "").replace("]", "")))
    entries = thing["metadata"].get("managedFields", [])
    thing["metadata"]["managedFields"] = sorted(
        entries, key=lambda e: (e["manager"], e["operation"], "subresource" in e)
    )
    return code, comparable(thing)


@pytest.fixture(scope="module")
def sides(api_server: ApiServer | RealServer) -> Iterator[tuple[Side, Side]]:
    if isinstance(api_server, ApiServer):
        pytest.skip("needs a real API server to compare with")
    with ApiServer() as ours:
        yield Side(ours), Side(api_server)


@pytest.mark.parametrize("make", [config_map, deployment, inference_service, route])
def test_the_same_writes_end_in_the_same_object(sides: tuple[Side, Side], make: Any) -> None:
    for seed in range(_SEEDS):
        _write_at_random(sides, make, random.Random(f"{make.__name__} {seed}"), f"seed {seed}")


def _write_at_random(sides: tuple[Side, Side], make: Any, dice: random.Random, seed: str) -> None:
    path = _PATHS[make(dice)["kind"]]
    ours, real = sides
    for side in sides:
        side.send("delete", f"{path}/thing", None, "ada")
    for number in range(_STEPS):
        what = dice.choice(_DEEDS)
        manager, body = dice.choice(["ada", "bob"]), make(dice)
        told = []
        for side in (ours, real):
            told.append(settled(_write(side, what, path, body, manager)))
        if what == "delete" and told[0][0] == told[1][0]:
            continue
        if make is deployment:
            if told[1][0] == 422:
                return  # what a container must have, beyond its fields, is not checked by ours
            told = [_without_defaults(answer, told[0]) for answer in told]
        assert told[0] == told[1], (
            f"{seed}, step {number}: {what} by {manager}: {_first(*told)}; sent {json.dumps(body)}"
        )


def _first(ours: Any, real: Any, path: str = "") -> str:
    """Where two answers differ first."""
    if type(ours) is type(real) and isinstance(ours, dict) and ours.keys() == real.keys():
        return next(_first(ours[key], real[key], f"{path}/{key}") for key in ours if ours[key] != real[key])
    if type(ours) is type(real) and isinstance(ours, list | tuple) and len(ours) == len(real):
        number = next(number for number, part in enumerate(ours) if part != real[number])
        return _first(ours[number], real[number], f"{path}/{number}")
    return f"{path}: ours {ours}, real {real}"


def _without_defaults(answer: Any, ours: Any) -> Any:
    """An answer with what ours has, too: a real server fills in much more, and gives it to whoever writes whole."""
    code, thing = answer
    if not isinstance(thing, dict) or not isinstance(ours[1], dict):
        return answer
    entries = [entry for entry in thing["metadata"].get("managedFields", []) if entry["operation"] == "Apply"]
    return code, _shared(thing, ours[1]) | {"managedFields": entries, "metadata": {}, "status": {}}


def _shared(thing: Any, ours: Any) -> Any:
    if isinstance(thing, dict) and isinstance(ours, dict):
        return {key: _shared(part, ours[key]) for key, part in thing.items() if key in ours}
    if isinstance(thing, list) and isinstance(ours, list) and len(thing) == len(ours):
        return [_shared(one, other) for one, other in zip(thing, ours, strict=True)]
    return thing


def _write(side: Side, what: str, path: str, body: Plain, manager: str) -> tuple[int, Any]:
    one = f"{path}/thing"
    if what in ("apply", "force"):
        force = {"force_conflicts": "true"} if what == "force" else {}
        return side.send("patch", one, body, manager, content_type="application/apply-patch+yaml", **force)
    if what == "create":
        return side.send("post", path, body, manager)
    if what == "merge":
        return side.send("patch", one, body, manager, content_type="application/merge-patch+json")
    if what.endswith("status"):
        seen = {"observedGeneration": 1 + len(json.dumps(body)) % 3}
        told = {"HTTPRoute": {"parents": []}, "ConfigMap": {}}.get(body["kind"], seen)
        body = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": {"name": "thing"}, "status": told}
        form = "merge-patch+json" if what == "status" else "apply-patch+yaml"
        return side.send("patch", f"{one}/status", body, manager, content_type=f"application/{form}")
    if what == "delete":
        return side.send("delete", one, None, manager)[0], {"metadata": {}}
    code, found = side.send("get", one, None, manager)
    if code != 200:
        return code, found
    changed = found | {key: value for key, value in body.items() if key != "metadata"}
    return side.send("put", one, changed, manager)
