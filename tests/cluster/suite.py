"""The kinds that the suite's manifests have besides those that its code works with."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.cluster.builtin import builtin
from tests.cluster.kinds import KINDS, Served
from tests.cluster.schemas import ANYTHING, STRING, thing

_FILE = Path(__file__).parent / "crds" / "kinds.json.gz"

_OWN = (
    ("", "PersistentVolumeClaim", "persistentvolumeclaims", "V1PersistentVolumeClaim"),
    ("", "ResourceQuota", "resourcequotas", "V1ResourceQuota"),
    ("", "LimitRange", "limitranges", "V1LimitRange"),
    ("apps", "DaemonSet", "daemonsets", "V1DaemonSet"),
    ("apps", "StatefulSet", "statefulsets", "V1StatefulSet"),
    ("batch", "CronJob", "cronjobs", "V1CronJob"),
    ("batch", "Job", "jobs", "V1Job"),
    ("networking.k8s.io", "NetworkPolicy", "networkpolicies", "V1NetworkPolicy"),
    ("policy", "PodDisruptionBudget", "poddisruptionbudgets", "V1PodDisruptionBudget"),
)
_TRAININGS = (("PyTorchJob", "pytorchjobs"), ("TFJob", "tfjobs"))


@cache
def stored() -> dict[str, Any]:
    """Plural and schema of the operators' kinds, by group, version and kind."""
    found: dict[str, Any] = json.loads(gzip.decompress(_FILE.read_bytes()))
    return found


def _served(group: str, version: str, kind: str, plural: str, source: Any, *, own: bool, status: bool) -> Served:
    return Served(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        namespaced=True,
        own=own,
        has_status=status,
        counts=not own,
        source=source,
        versionless=own,
    )


def _model(name: str) -> Any:
    """A status is filled in by the server, so that none of its fields has to be sent."""

    def source() -> dict[str, Any]:
        schema = builtin(name)
        fields = dict(schema["properties"])
        if "status" in fields:
            fields["status"] = {key: value for key, value in fields["status"].items() if key != "required"}
        return schema | {"properties": fields}

    return source


def _operators(key: str, entry: dict[str, Any]) -> Served:
    api_version, _, kind = key.partition(" ")
    group, _, version = api_version.partition("/")
    head = {"apiVersion": STRING, "kind": STRING, "metadata": {"type": "object"}}
    schema = entry["schema"] | {"properties": head | entry["schema"]["properties"]}
    return _served(group, version, kind, entry["plural"], lambda: schema, own=False, status=bool(entry["status"]))


def _job(kind: str, plural: str) -> Served:
    """A kind of the Training Operator; which fields it has, tests/kubernetes_api.py knows."""
    schema = thing(apiVersion=STRING, kind=STRING, spec=ANYTHING, status=ANYTHING)
    return _served("kubeflow.org", "v1", kind, plural, lambda: schema, own=False, status=True)


def kinds() -> tuple[Served, ...]:
    """Everything that a cluster with the whole suite serves."""
    return (
        *KINDS,
        *(
            _served(group, "v1", kind, plural, _model(name), own=True, status=True)
            for group, kind, plural, name in _OWN
        ),
        *(_operators(key, entry) for key, entry in stored().items()),
        *(_job(kind, plural) for kind, plural in _TRAININGS),
    )
