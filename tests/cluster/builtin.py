"""Schemas of Kubernetes' own kinds, made from the official client's models: every field by its name and type.

What those do not say (which lists are merged by which key, what is filled in) is listed here as far as we use it.
"""

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from kubernetes.client import models

Schema = dict[str, Any]

# How server-side apply merges a list: by these keys. All others are leaves.
_KEYS = {
    ("V1PodSpec", "containers"): ("name",),
    ("V1PodSpec", "initContainers"): ("name",),
    ("V1PodSpec", "ephemeralContainers"): ("name",),
    ("V1PodSpec", "volumes"): ("name",),
    ("V1PodSpec", "imagePullSecrets"): ("name",),
    ("V1PodSpec", "hostAliases"): ("ip",),
    ("V1PodSpec", "resourceClaims"): ("name",),
    ("V1PodSpec", "schedulingGates"): ("name",),
    ("V1PodSpec", "topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("V1Container", "ports"): ("containerPort", "protocol"),
    ("V1Container", "env"): ("name",),
    ("V1Container", "volumeMounts"): ("mountPath",),
    ("V1Container", "volumeDevices"): ("devicePath",),
    ("V1ResourceRequirements", "claims"): ("name",),
    ("V1PodStatus", "conditions"): ("type",),
    ("V1PodStatus", "podIPs"): ("ip",),
    ("V1ObjectMeta", "ownerReferences"): ("uid",),
    ("V1DeploymentStatus", "conditions"): ("type",),
    ("V1ReplicaSetStatus", "conditions"): ("type",),
    ("V1NodeStatus", "conditions"): ("type",),
    ("V1NodeStatus", "addresses"): ("type",),
    ("V1NamespaceStatus", "conditions"): ("type",),
    ("V1ServiceSpec", "ports"): ("port", "protocol"),
    ("V1ServiceStatus", "conditions"): ("type",),
    ("V1ServiceAccount", "secrets"): ("name",),
    ("V2HorizontalPodAutoscalerStatus", "conditions"): ("type",),
}
_KEYS |= {("V1EphemeralContainer", name): keys for (owner, name), keys in _KEYS.items() if owner == "V1Container"}
_SETS = {("V1ObjectMeta", "finalizers"), ("V1NodeSpec", "podCIDRs")}
_LEAVES = {
    "V1LabelSelector",
    "V1ObjectReference",
    "V1LocalObjectReference",
    "V1TypedLocalObjectReference",
    "V1SecretKeySelector",
    "V1ConfigMapKeySelector",
    "V1ObjectFieldSelector",
    "V1ResourceFieldSelector",
    "V1NodeSelector",
    "V1NodeSelectorTerm",
    "V1OwnerReference",
    "V1RoleRef",
    "RbacV1Subject",
}
_LEAF_MAPS = {("V1PodSpec", "nodeSelector"), ("V1ServiceSpec", "selector")}
_DEFAULTS: dict[tuple[str, str], Any] = {
    ("V1ContainerPort", "protocol"): "TCP",
    ("V1ServicePort", "protocol"): "TCP",
    ("V1ServiceSpec", "type"): "ClusterIP",
    ("V1PodSpec", "restartPolicy"): "Always",
    ("V1DeploymentSpec", "replicas"): 1,
    ("V1ReplicaSetSpec", "replicas"): 1,
}
_QUANTITIES = {"limits", "requests", "capacity", "allocatable"}
_SIMPLE: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
    "object": {"x-kubernetes-preserve-unknown-fields": True},
}
_REQUIRED = re.compile(r"client_side_validation and (\w+) is None")


@cache
def builtin(model: str) -> Schema:
    """The schema of a model of the client, for instance ``V1Deployment``.

    Models within themselves end as an object with any fields.
    """
    return _model(model, ())


def _model(name: str, inside: tuple[str, ...]) -> Schema:
    if name in inside:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    model = getattr(models, name)
    required = _required(model.__module__)
    properties = {
        model.attribute_map[attribute]: _field(name, model.attribute_map[attribute], kind, (*inside, name))
        for attribute, kind in model.openapi_types.items()
    }
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = sorted(model.attribute_map[attribute] for attribute in required)
    if name in _LEAVES:
        schema["x-kubernetes-map-type"] = "atomic"
    return schema


@cache
def _required(module: str) -> set[str]:
    """The attributes that a model refuses to be without; each model has a module of its own."""
    return set(_REQUIRED.findall(Path(str(sys.modules[module].__file__)).read_text(encoding="utf-8")))


def _field(owner: str, name: str, kind: str, inside: tuple[str, ...]) -> Schema:
    schema = _type(kind, name, inside)
    if keys := _KEYS.get((owner, name)):
        schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
    elif (owner, name) in _SETS:
        schema |= {"x-kubernetes-list-type": "set"}
    elif (owner, name) in _LEAF_MAPS:
        schema |= {"x-kubernetes-map-type": "atomic"}
    if (owner, name) in _DEFAULTS:
        schema |= {"default": _DEFAULTS[owner, name]}
    return schema


def _type(kind: str, name: str, inside: tuple[str, ...]) -> Schema:
    if kind in _SIMPLE:
        return dict(_SIMPLE[kind])
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        return {"type": "array", "items": _type(found[1], name, inside)}
    if found := re.fullmatch(r"dict\((\w+), (.+)\)", kind):
        quantity = name in _QUANTITIES and found[2] == "str"
        value = {"x-kubernetes-int-or-string": True} if quantity else _type(found[2], name, inside)
        return {"type": "object", "additionalProperties": value}
    return dict(_model(kind, inside))
