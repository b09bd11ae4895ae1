"""The manifests as kustomize renders them, and ways to go through them."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

Plain = dict[str, Any]

FOLDER = Path(__file__).resolve().parents[1] / "manifests"
OVERLAYS = ("dev", "staging", "prod")
_LEAST = (1, 22)  # the first kubectl whose kustomize knows components


@cache
def kubectl() -> str:
    """The path of kubectl; empty where there is none that can render the manifests."""
    found = shutil.which("kubectl")
    if not found:
        return ""
    said = subprocess.run([found, "version", "--client"], capture_output=True, text=True, timeout=20).stdout
    version = re.search(r"v(\d+)\.(\d+)", said)
    return found if version and (int(version[1]), int(version[2])) >= _LEAST else ""


@cache
def rendered(folder: str) -> tuple[Plain, ...]:
    """The objects of a folder below manifests/; skips the test where nothing can render them."""
    if not kubectl():
        pytest.skip("there is no kubectl from 1.22 on here to render the manifests with")
    done = subprocess.run([kubectl(), "kustomize", str(FOLDER / folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return tuple(yaml.load_all(done.stdout, yaml.CSafeLoader))


def overlay(name: str) -> tuple[Plain, ...]:
    """The objects of an overlay."""
    return rendered(f"overlays/{name}")


@dataclass(frozen=True)
class Pods:
    """A description of pods, wherever it stands.

    Attributes:
        owner: kind and name of what has it.
        namespace: of the pods.
        labels: of the pods; those that KServe, KFP and operators put on theirs are not here.
        spec: of a pod, or of a runtime, which has the same fields.
    """

    owner: str
    namespace: str
    labels: dict[str, str]
    spec: Plain

    def containers(self) -> Iterator[tuple[str, Plain]]:
        """Every container with a name for messages."""
        for part in ("initContainers", "containers"):
            for container in self.spec.get(part, []):
                yield f"{self.owner}: {container['name']}", container


def pods(objects: tuple[Plain, ...]) -> list[Pods]:
    """The pods that objects describe."""
    return [found for one in objects for found in _pods(one)]


def _pods(one: Plain) -> Iterator[Pods]:
    owner, namespace = f"{one['kind']} {one['metadata']['name']}", one["metadata"].get("namespace", "")
    spec = one.get("spec", {})
    if one["kind"] in ("ServingRuntime", "ClusterServingRuntime"):
        yield Pods(owner, namespace, spec.get("labels", {}), spec)
    elif one["kind"] == "TrainingRuntime":
        for job in spec["template"]["spec"]["replicatedJobs"]:
            template = job["template"]["spec"]["template"]
            yield Pods(owner, namespace, template.get("metadata", {}).get("labels", {}), template["spec"])
    elif one["kind"] == "CronJob":
        template = spec["jobTemplate"]["spec"]["template"]
        yield Pods(owner, namespace, template.get("metadata", {}).get("labels", {}), template["spec"])
    elif one["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
        template = spec["template"]
        yield Pods(owner, namespace, template.get("metadata", {}).get("labels", {}), template["spec"])


def named(one: Plain) -> str:
    """Kind, namespace and name, for messages."""
    metadata = one["metadata"]
    return f"{one['kind']} {metadata.get('namespace', '')}/{metadata['name']}".replace(" /", " ")


def of_kind(objects: tuple[Plain, ...], *kinds: str) -> list[Plain]:
    """The objects of some kinds."""
    return [one for one in objects if one["kind"] in kinds]
