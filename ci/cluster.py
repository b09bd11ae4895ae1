"""A Kubernetes cluster on this machine with KFP, KServe and the suite: ``make cluster`` and ``make cluster-down``.

Every step can be run again: what is there already is brought to the same state. ``--print`` shows the commands and runs
none of them.
"""

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components import images as names

NAME = "sluiceway"
KUBECONFIG = Path(".sluiceway/cluster/kubeconfig")
PASSWORD = KUBECONFIG.with_name("database-password")
KIND = "0.32.0"
CERT_MANAGER = "v1.17.0"
ENVOY_GATEWAY = "v1.8.3"
KSERVE = "v0.21.0"
KFP = "2.17.0"
PROMETHEUS_OPERATOR = "v0.93.0"
_LEAST_MEMORY = 8 * 2**30
_GITHUB = "https://github.com"
_PROMETHEUS = "prometheus-operator/prometheus-operator"
_KFP_AT = "github.com/kubeflow/pipelines/manifests/kustomize"
_TOOLS = {
    "docker": "https://docs.docker.com/engine/install",
    "kind": f"https://kind.sigs.k8s.io/docs/user/quick-start (version {KIND} or newer)",
    "kubectl": "https://kubernetes.io/docs/tasks/tools",
    "git": "https://git-scm.com/downloads",
}


class NotPossible(Exception):
    """The cluster cannot be made on this machine; says what to do."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        words: the command.
        source: the command whose output it reads; empty for none.
        change: what is done to that output on the way; its docstring says so where the command is printed.
    """

    words: tuple[str, ...]
    source: tuple[str, ...] = ()
    change: Callable[[str], str] | None = None

    def __str__(self) -> str:
        """As one would type it."""
        if not self.source:
            return shlex.join(self.words)
        change = f" | <{self.change.__doc__}>" if self.change else ""
        return f"{shlex.join(self.source)}{change} | {shlex.join(self.words)}"

    def run(self) -> None:
        """Run it.

        Raises:
            subprocess.CalledProcessError: it failed; what it said is on standard error.
        """
        text = None
        if self.source:
            text = subprocess.run(self.source, check=True, stdout=subprocess.PIPE, text=True, env=_environment()).stdout
            text = self.change(text) if self.change else text
        subprocess.run(self.words, check=True, input=text, text=True, env=_environment())


@dataclass(frozen=True)
class Step:
    """A part of the cluster."""

    title: str
    commands: tuple[Command, ...]


def configured_kserve(rendered: str) -> str:
    """KServe's release tag, Standard mode, routes by Gateway API."""
    documents = [one for one in yaml.safe_load_all(re.sub(r":latest\b", f":{KSERVE}", rendered)) if one]
    config = next(
        one for one in documents if one["kind"] == "ConfigMap" and "inferenceservice" in one["metadata"]["name"]
    )
    _set(config, "deploy", {"defaultDeploymentMode": "Standard"})
    _set(config, "ingress", {"enableGatewayApi": True, "kserveIngressGateway": "kserve/kserve-ingress-gateway"})
    return yaml.safe_dump_all(documents, sort_keys=False)


def _set(config: dict[str, Any], key: str, values: dict[str, Any]) -> None:
    config["data"][key] = json.dumps(json.loads(config["data"][key]) | values, indent=2)


def plan(exists: bool) -> list[Step]:
    """What makes the cluster, in order."""
    made = () if exists else (_kind("create", "cluster", "--config=manifests/kind/kind.yaml", "--wait=5m"),)
    kfp_api = "deployment/ml-pipeline"
    return [
        Step("Kubernetes (kind)", (*made, _kind("export", "kubeconfig", f"--name={NAME}"))),
        Step(
            f"cert-manager {CERT_MANAGER}",
            (
                _apply(f"{_GITHUB}/cert-manager/cert-manager/releases/download/{CERT_MANAGER}/cert-manager.yaml"),
                _available("cert-manager"),
            ),
        ),
        Step(
            f"Envoy Gateway {ENVOY_GATEWAY} with the Gateway API",
            (
                _apply(f"{_GITHUB}/envoyproxy/gateway/releases/download/{ENVOY_GATEWAY}/install.yaml"),
                _available("envoy-gateway-system"),
            ),
        ),
        Step(
            f"Prometheus Operator {PROMETHEUS_OPERATOR}",
            (
                _apply(f"{_GITHUB}/{_PROMETHEUS}/releases/download/{PROMETHEUS_OPERATOR}/bundle.yaml"),
                _available("default"),
            ),
        ),
        Step(
            f"KServe {KSERVE}, Standard mode",
            (
                _apply("-", source=_rendered(f"{_GITHUB}/kserve/kserve//config/crd/full?ref={KSERVE}")),
                _apply(
                    "-",
                    source=_rendered(f"{_GITHUB}/kserve/kserve//config/overlays/standalone/kserve?ref={KSERVE}"),
                    change=configured_kserve,
                ),
                _available("kserve"),
                _apply("manifests/kind/gateway.yaml"),
                _patch_initializer("manifests/base/kserve/storage-initializer.yaml"),
                _patch_initializer("manifests/components/object-store/storage-initializer.yaml"),
            ),
        ),
        Step(
            f"Kubeflow Pipelines {KFP}",
            (
                _apply("-", source=_rendered(f"{_KFP_AT}/cluster-scoped-resources?ref={KFP}")),
                _kubectl("wait", "--for=condition=established", "--timeout=60s", "crd/workflows.argoproj.io"),
                _apply("-", source=_rendered(f"{_KFP_AT}/env/platform-agnostic?ref={KFP}")),
                _kubectl("wait", "--namespace=kubeflow", "--for=condition=available", "--timeout=15m", kfp_api),
            ),
        ),
        Step(
            "the suite's images",
            (
                Command(("docker", "buildx", "bake", "--file=images/docker-bake.hcl", "--load", *targets())),
                _kind("load", "docker-image", f"--name={NAME}", *images()),
            ),
        ),
        Step(
            "the suite",
            (
                _apply("-", source=_rendered("manifests/kind")),
                _apply("-", source=_database_secret()),
                _available("mlflow"),
            ),
        ),
    ]


def images() -> list[str]:
    """The images that the road needs on a cluster without GPUs."""
    return [names.DATA, names.CONTROL, names.TRAIN_SKLEARN, names.SERVING]


def targets() -> list[str]:
    """Their targets in the bake file."""
    return [one.rsplit("/", 1)[-1].split(":")[0] for one in images()]


def _database_secret() -> tuple[str, ...]:
    words = "kubectl create secret generic mlflow-database --namespace=mlflow --from-literal=username=mlflow"
    return (*words.split(), f"--from-file=password={PASSWORD}", "--dry-run=client", "--output=yaml")


def _keep_password() -> None:
    """Make the database's password, once: a database that exists goes on with the one that it was made with."""
    if not PASSWORD.exists():
        with os.fdopen(os.open(PASSWORD, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))


def check_machine() -> None:
    """See that the cluster can be made here.

    Raises:
        NotPossible: a tool is missing or too old, Docker does not answer, or it has too little memory.
    """
    for tool, where in _TOOLS.items():
        if shutil.which(tool) is None:
            raise NotPossible(f"`make cluster` needs {tool}, which is not installed: see {where}.")
    info = subprocess.run(["docker", "info", "--format={{json .}}"], capture_output=True, text=True, check=False)
    if info.returncode:
        raise NotPossible("Docker is installed and does not answer: start it, or see that you may use its socket.")
    memory = int(json.loads(info.stdout).get("MemTotal", 0))
    if memory < _LEAST_MEMORY:
        raise NotPossible(f"Docker has {memory / 2**30:.1f} GiB of memory and the cluster needs 8: give it more.")
    said = subprocess.run(["kind", "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v?(\d+)\.(\d+)\.\d+", said)
    least = tuple(map(int, KIND.split(".")[:2]))
    if found and (int(found[1]), int(found[2])) < least:
        raise NotPossible(f"kind is {found[0]} and the cluster's node image needs {KIND}: see {_TOOLS['kind']}.")


def _exists() -> bool:
    listed = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True, check=True)
    return NAME in listed.stdout.split()


def up() -> None:
    """Make the cluster, or bring the one that is there to the same state."""
    check_machine()
    KUBECONFIG.parent.mkdir(parents=True, exist_ok=True)
    _keep_password()
    steps = plan(_exists())
    for number, step in enumerate(steps, 1):
        sys.stderr.write(f"[{number}/{len(steps)}] {step.title}\n")
        for command in step.commands:
            _patiently(command)
    sys.stderr.write(f"""The cluster is up.
  export KUBECONFIG={KUBECONFIG.resolve()}
  kubectl port-forward --namespace kubeflow service/ml-pipeline-ui 8080:80    # the KFP UI at http://localhost:8080
  make test-cluster                                                           # the road and the Kubernetes tests
  make cluster-down
""")


def _patiently(command: Command) -> None:
    """Run a command; once more after a failure, since registries and webhooks that have just started falter."""
    try:
        command.run()
    except subprocess.CalledProcessError:
        sys.stderr.write(f"Once more: {command}\n")
        try:
            command.run()
        except subprocess.CalledProcessError as error:
            raise NotPossible(f"This failed, for the reason above: {command}") from error


def down() -> None:
    """Delete the cluster; nothing happens when there is none."""
    if shutil.which("kind") is None:
        raise NotPossible(f"`make cluster-down` needs kind, which is not installed: see {_TOOLS['kind']}.")
    subprocess.run(["kind", "delete", "cluster", f"--name={NAME}"], check=True, env=_environment())
    for path in (KUBECONFIG, PASSWORD):
        path.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    """The person's own kubeconfig is never touched."""
    return os.environ | {"KUBECONFIG": str(KUBECONFIG)}


def _kind(*words: str) -> Command:
    return Command(("kind", *words))


def _kubectl(*words: str) -> Command:
    return Command(("kubectl", *words))


def _rendered(kustomization: str) -> tuple[str, ...]:
    return ("kubectl", "kustomize", kustomization)


def _apply(what: str, source: tuple[str, ...] = (), change: Callable[[str], str] | None = None) -> Command:
    return Command(("kubectl", "apply", "--server-side", "--force-conflicts", f"--filename={what}"), source, change)


def _patch_initializer(file: str) -> Command:
    return _kubectl("patch", "clusterstoragecontainer", "default", "--type=merge", f"--patch-file={file}")


def _available(namespace: str) -> Command:
    return _kubectl(
        "wait", f"--namespace={namespace}", "--for=condition=available", "--timeout=10m", "deployment", "--all"
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["up", "down"])
    parser.add_argument("--print", action="store_true", dest="show", help="show the commands and run none")
    given = parser.parse_args()
    if given.show:
        for step in plan(exists=False):
            sys.stdout.write(f"# {step.title}\n" + "".join(f"{command}\n" for command in step.commands))
        return 0
    try:
        up() if given.what == "up" else down()
    except NotPossible as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
