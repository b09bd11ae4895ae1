"""Schemas of the custom kinds, as their definitions in a cluster have them.

KServe's are whole (Apache-2.0, kserve/kserve, without descriptions). Those of Gateway API v1 and Knative Serving v1 are
written down here as far as fields may stand in what we send or read: strict about those, silent about the rest.
"""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
ANYTHING: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
PERCENT: Schema = {"type": "integer", "minimum": 0, "maximum": 100}

_PRODUCT = Path(__file__).parents[2] / "components" / "rollout" / "schemas"
_OURS = Path(__file__).parent / "crds"


def thing(required: tuple[str, ...] = (), default: Any = None, **fields: Schema) -> Schema:
    """An object with these fields."""
    schema: Schema = {"type": "object", "properties": fields}
    return (
        schema | ({"required": list(required)} if required else {}) | ({} if default is None else {"default": default})
    )


def several(item: Schema, *keys: str, most: int | None = None, least: int | None = None, default: Any = None) -> Schema:
    """A list: merged by key when there are some, else a leaf."""
    merged = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
    schema: Schema = {"type": "array", "items": item} | (merged if keys else {"x-kubernetes-list-type": "atomic"})
    more = {"maxItems": most, "minItems": least, "default": default}
    return schema | {key: value for key, value in more.items() if value is not None}


def one_of(*values: str, default: str | None = None) -> Schema:
    """A string out of a few."""
    return STRING | {"enum": list(values)} | ({} if default is None else {"default": default})


def usually(value: str) -> Schema:
    """A string with a default."""
    return STRING | {"default": value}


def stored(path: Path) -> Schema:
    """A whole schema."""
    schema: Schema = json.loads(gzip.decompress(path.read_bytes()))
    return schema


def _root(spec: Schema, status: Schema, required: tuple[str, ...] = ()) -> Schema:
    return thing(required, apiVersion=STRING, kind=STRING, metadata={"type": "object"}, spec=spec, status=status)


def _condition(*required: str, **more: Schema) -> Schema:
    return thing(
        required,
        type=STRING,
        status=one_of("True", "False", "Unknown"),
        reason=STRING,
        message=STRING,
        lastTransitionTime=STRING,
        **more,
    )


_GATEWAY_CONDITIONS = several(
    _condition("type", "status", "reason", "message", "lastTransitionTime", observedGeneration=INTEGER), "type", most=8
)


def _route() -> Schema:
    parent = thing(
        ("name",),
        group=usually("gateway.networking.k8s.io"),
        kind=usually("Gateway"),
        name=STRING | {"minLength": 1},
        namespace=STRING,
        port=PORT,
        sectionName=STRING,
    )
    target = {
        "group": usually(""),
        "kind": usually("Service"),
        "name": STRING | {"minLength": 1},
        "namespace": STRING,
        "port": PORT,
    }
    mirror = thing(
        ("backendRef",),
        backendRef=thing(("name",), **target),
        percent=PERCENT,
        fraction=thing(("numerator",), numerator=INTEGER | {"minimum": 0}, denominator=INTEGER | {"default": 100}),
    )
    kinds = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite")
    headers = thing(
        set=several(thing(("name", "value"), name=STRING, value=STRING), "name"),
        add=several(thing(("name", "value"), name=STRING, value=STRING), "name"),
        remove={"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
    )
    filter_ = thing(
        ("type",),
        type=one_of(*kinds, "ExtensionRef", "CORS"),
        requestMirror=mirror,
        requestHeaderModifier=headers,
        responseHeaderModifier=headers,
        requestRedirect=ANYTHING,
        urlRewrite=ANYTHING,
    )
    weight = {"type": "integer", "minimum": 0, "maximum": 1_000_000, "default": 1}
    backend = thing(("name",), weight=weight, filters=several(filter_), **target)
    value = thing(
        ("name", "value"), name=STRING, type=one_of("Exact", "RegularExpression", default="Exact"), value=STRING
    )
    everything = {"type": "PathPrefix", "value": "/"}
    path = thing(
        type=one_of("Exact", "PathPrefix", "RegularExpression", default="PathPrefix"),
        value=usually("/"),
        default=everything,
    )
    methods = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
    match = thing(
        path=path, headers=several(value, "name"), queryParams=several(value, "name"), method=one_of(*methods)
    )
    rule = thing(
        name=STRING,
        backendRefs=several(backend, most=16),
        filters=several(filter_, most=16),
        matches=several(match, most=64, default=[{"path": everything}]),
        timeouts=thing(request=STRING, backendRequest=STRING),
    )
    spec = thing(
        hostnames=several(STRING, most=16),
        parentRefs=several(parent, most=32),
        rules=several(rule, most=16, least=1, default=[{"matches": [{"path": everything}]}]),
    )
    seen = thing(
        ("parentRef", "controllerName", "conditions"),
        parentRef=parent,
        controllerName=STRING,
        conditions=_GATEWAY_CONDITIONS,
    )
    return _root(spec, thing(("parents",), parents=several(seen, most=32)), ("spec",))


def _gateway() -> Schema:
    listener = thing(
        ("name", "port", "protocol"),
        name=STRING,
        hostname=STRING,
        port=PORT,
        protocol=STRING,
        tls=ANYTHING,
        allowedRoutes=thing(
            default={"namespaces": {"from": "Same"}},
            kinds=several(thing(("kind",), group=usually("gateway.networking.k8s.io"), kind=STRING)),
            namespaces=thing(
                default={"from": "Same"},
                **{"from": one_of("All", "Selector", "Same", "None", default="Same")},
                selector=ANYTHING | {"x-kubernetes-map-type": "atomic"},
            ),
        ),
    )
    spec = thing(
        ("gatewayClassName", "listeners"),
        gatewayClassName=STRING,
        listeners=several(listener, "name", most=64, least=1),
        addresses=several(thing(type=usually("IPAddress"), value=STRING), most=16),
        infrastructure=ANYTHING,
    )
    status = thing(
        addresses=several(thing(("value",), type=usually("IPAddress"), value=STRING), most=16),
        conditions=_GATEWAY_CONDITIONS,
        listeners=several(
            thing(
                ("name", "attachedRoutes", "conditions"),
                name=STRING,
                attachedRoutes=INTEGER,
                conditions=_GATEWAY_CONDITIONS,
                supportedKinds=several(thing(("kind",), group=usually("gateway.networking.k8s.io"), kind=STRING)),
            ),
            "name",
        ),
    )
    return _root(spec, status, ("spec",))


def _gateway_class() -> Schema:
    spec = thing(("controllerName",), controllerName=STRING, description=STRING, parametersRef=ANYTHING)
    return _root(spec, thing(conditions=_GATEWAY_CONDITIONS), ("spec",))


def _knative_pod() -> Schema:
    container = thing(
        name=STRING,
        image=STRING,
        command=several(STRING),
        args=several(STRING),
        env=several(thing(("name",), name=STRING, value=STRING, valueFrom=ANYTHING), "name"),
        ports={"type": "array", "items": thing(containerPort=INTEGER, name=STRING, protocol=usually("TCP"))},
        resources=ANYTHING,
        readinessProbe=ANYTHING,
        livenessProbe=ANYTHING,
        startupProbe=ANYTHING,
        volumeMounts=several(ANYTHING, "mountPath"),
        securityContext=ANYTHING,
        imagePullPolicy=STRING,
    )
    return thing(
        ("containers",),
        containers={"type": "array", "items": container},
        containerConcurrency={"type": "integer", "format": "int64"},
        timeoutSeconds={"type": "integer", "format": "int64"},
        serviceAccountName=STRING,
        imagePullSecrets=several(thing(name=usually("")), "name"),
        nodeSelector={"type": "object", "additionalProperties": STRING, "x-kubernetes-map-type": "atomic"},
        tolerations={"type": "array", "items": ANYTHING},
        volumes=several(ANYTHING, "name"),
    )


_KNATIVE_STATUS: dict[str, Schema] = {
    "conditions": {"type": "array", "items": _condition("type", "status", severity=STRING)},
    "annotations": {"type": "object", "additionalProperties": STRING},
    "observedGeneration": INTEGER,
}


def _knative_service() -> Schema:
    traffic = {
        "type": "array",
        "items": thing(
            configurationName=STRING,
            latestRevision=BOOLEAN,
            percent={"type": "integer", "format": "int64"},
            revisionName=STRING,
            tag=STRING,
            url=STRING,
        ),
    }
    spec = thing(template=thing(metadata=ANYTHING, spec=_knative_pod()), traffic=traffic)
    status = thing(
        **_KNATIVE_STATUS,
        address=thing(url=STRING, name=STRING),
        latestCreatedRevisionName=STRING,
        latestReadyRevisionName=STRING,
        traffic=traffic,
        url=STRING,
    )
    return _root(spec, status)


def _knative_revision() -> Schema:
    status = thing(
        **_KNATIVE_STATUS,
        actualReplicas=INTEGER,
        desiredReplicas=INTEGER,
        logUrl=STRING,
        containerStatuses={"type": "array", "items": thing(name=STRING, imageDigest=STRING)},
    )
    return _root(_knative_pod(), status)


@cache
def custom(kind: str) -> Schema:
    """The schema of a custom kind, by the key that :mod:`tests.cluster.kinds` knows it under."""
    return {
        "inferenceservice": lambda: stored(_PRODUCT / "inferenceservice.json.gz"),
        "servingruntime": lambda: stored(_OURS / "servingruntime.json.gz"),
        "sparkapplication": lambda: stored(_OURS / "sparkapplication.json.gz"),
        "httproute": _route,
        "gateway": _gateway,
        "gatewayclass": _gateway_class,
        "kservice": _knative_service,
        "krevision": _knative_revision,
    }[kind]()
