"""A compiled package as Kubernetes resources of KFP, for clusters whose state is in git.

With its Kubernetes-native API (``--pipelinesStoreKubernetes``), KFP keeps pipelines and their versions as resources, so
that a GitOps tool can apply them as it applies everything else.
"""

from pathlib import Path
from typing import Any

import yaml

from components.errors import BadInput
from components.files import write_text
from pipelines import packages

_API = "pipelines.kubeflow.org/v2beta1"

# A version that has runs or schedules must outlive the file that made it; a version without its pipeline is refused.
_KEPT = {
    "argocd.argoproj.io/sync-options": "Prune=false",
    "argocd.argoproj.io/sync-wave": "1",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
}
_LONGEST_NAME = 253


def write_manifests(package: Path, path: Path, namespace: str = "", code_url: str = "") -> str:
    """Write a package as a ``Pipeline`` and a ``PipelineVersion``, whole.

    The version is named as ``sluiceway upload`` names it. KFP refuses a change of a version, so the same name must
    always stand for the same resource: nothing in it depends on when or where it was written.

    Args:
        package: what ``sluiceway compile`` wrote.
        path: where to.
        namespace: that of both; empty leaves it to whatever applies them.
        code_url: where the source of this version is, which KFP's UI shows as a link.

    Returns:
        The version's name.

    Raises:
        BadInput: pipeline and version have too long a name together.
    """
    version = packages.version_name(package)
    made = resources(package, version, namespace, code_url)
    write_text(path, yaml.safe_dump_all(made, sort_keys=True, allow_unicode=True, width=120))
    return version


def resources(package: Path, version: str, namespace: str = "", code_url: str = "") -> list[dict[str, Any]]:
    """The resources; see :func:`write_manifests`."""
    spec, *platforms = packages.documents(package)
    info = spec["pipelineInfo"]
    name = f"{info['name']}-{version}"
    if len(name) > _LONGEST_NAME:
        raise BadInput(f"{name} is longer than the {_LONGEST_NAME} characters of a name: shorten the pipeline's.")
    told = {"description": info["description"]} if "description" in info else {}
    place = {"namespace": namespace} if namespace else {}
    pipeline = {
        "apiVersion": _API,
        "kind": "Pipeline",
        "metadata": {"name": info["name"], **place},
        "spec": {"displayName": info.get("displayName", info["name"]), **told},
    }
    of_version = {
        "pipelineName": info["name"],
        "versionName": version,
        "displayName": version,
        **told,
        **({"codeSourceURL": code_url} if code_url else {}),
        "pipelineSpec": spec,
        **({"platformSpec": platforms[0]} if platforms else {}),
    }
    annotated = {"name": name, **place, "annotations": _KEPT}
    return [pipeline, {"apiVersion": _API, "kind": "PipelineVersion", "metadata": annotated, "spec": of_version}]
