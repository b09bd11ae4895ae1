"""What holds for every object of every overlay, as kustomize renders it. Schemas: integration/test_cluster_roles.py."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components import images
from tests import manifests
from tests.cluster.suite import kinds
from tests.network_policies import selects

Plain = dict[str, Any]

NODE_AGENT = "DaemonSet sluiceway-log-agent"
"""Reads every container's log on its node, which no restricted pod may, and serves nobody."""

each = pytest.mark.parametrize("name", manifests.OVERLAYS)


def containers(name: str) -> Iterator[tuple[str, Plain, Plain]]:
    """Each container of an overlay: what it is called, itself, and its pod."""
    for pod in manifests.pods(manifests.overlay(name)):
        for called, container in pod.containers():
            yield called, container, pod.spec


@each
def test_every_container_says_what_it_needs_and_no_more(name: str) -> None:
    for called, container, _ in containers(name):
        if called.startswith("TrainingRuntime"):
            continue  # its resources come from the job
        resources = container.get("resources", {})
        for side in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(resources.get(side, {})), f"{called}: no {side}"


@each
def test_every_container_is_restricted(name: str) -> None:
    for called, container, pod in containers(name):
        if called.startswith(NODE_AGENT):
            continue
        own, whole = container.get("securityContext", {}), pod.get("securityContext", {})
        assert own.get("allowPrivilegeEscalation") is False, called
        assert own.get("capabilities", {}).get("drop") == ["ALL"], called
        assert own.get("runAsNonRoot", whole.get("runAsNonRoot")) is True, called
        profile = own.get("seccompProfile", whole.get("seccompProfile"))
        assert profile == {"type": "RuntimeDefault"}, called
        if not called.startswith("TrainingRuntime"):  # trainings write where their frameworks like
            assert own.get("readOnlyRootFilesystem") is True, called
        volumes = {kind for volume in pod.get("volumes", []) for kind in volume if kind != "name"}
        assert volumes <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}, called
        assert not any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")), called


@each
def test_whatever_runs_on_is_probed(name: str) -> None:
    for pod in manifests.pods(manifests.overlay(name)):
        if pod.owner.partition(" ")[0] in ("Job", "CronJob", "TrainingRuntime") or pod.owner == NODE_AGENT:
            continue
        for container in pod.spec["containers"]:
            assert {"readinessProbe", "livenessProbe"} <= set(container), f"{pod.owner}: {container['name']}"


@each
def test_images_do_not_move(name: str) -> None:
    ours = {value for value in vars(images).values() if isinstance(value, str)}
    for called, container, _ in containers(name):
        image = container["image"]
        tag = re.search(r"(@sha256:[0-9a-f]{64}|:[\w][\w.-]*)$", image)
        assert tag, f"{called}: {image}"
        assert tag[1] != ":latest", f"{called}: {image}"
        if image.startswith(images.REGISTRY):
            assert image in ours or "@sha256:" in image, f"{called}: {image}"


@each
def test_no_secret_is_written_down(name: str) -> None:
    for one in manifests.overlay(name):
        assert one["kind"] != "Secret", f"{manifests.named(one)}: secrets come from Vault, or are made by hand"
        for key, value in one.get("data", {}).items() if one["kind"] == "ConfigMap" else ():
            assert not re.search(r"(?i)password|token|secret", key), f"{manifests.named(one)}: {key}"
            assert not re.search(r"://[^/\s:]+:[^/\s@]+@|BEGIN [A-Z ]*PRIVATE KEY", value), (
                f"{manifests.named(one)}: {key}"
            )
    for called, container, _ in containers(name):
        for variable in container.get("env", []):
            if re.search(r"(?i)password|token|secret|_key", variable["name"]):
                assert "value" not in variable, f"{called}: {variable['name']}"


@each
def test_names_are_used_once_and_namespaces_are_said(name: str) -> None:
    namespaced = {(kind.api_version, kind.kind): kind.namespaced for kind in kinds()}
    objects = manifests.overlay(name)
    (most,) = Counter((one["apiVersion"], manifests.named(one)) for one in objects).most_common(1)
    assert most[1] == 1, most[0]
    for one in objects:
        kind = (one["apiVersion"], one["kind"])
        assert bool(one["metadata"].get("namespace")) == namespaced[kind], manifests.named(one)
        assert one["metadata"].get("namespace") != "default", manifests.named(one)


@each
def test_pods_run_under_accounts_of_their_own_and_carry_no_token_that_they_do_not_need(name: str) -> None:
    for pod in manifests.pods(manifests.overlay(name)):
        if pod.owner.partition(" ")[0] in ("Deployment", "StatefulSet") and pod.namespace == "mlflow":
            assert pod.spec["serviceAccountName"] not in ("", "default"), pod.owner
            assert pod.spec["automountServiceAccountToken"] is False, pod.owner


@each
def test_what_is_referred_to_is_there_or_said_to_be_made_by_hand(name: str) -> None:
    objects = manifests.overlay(name)
    made = {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects}
    for one in manifests.of_kind(objects, "ExternalSecret"):
        made.add(("Secret", one["metadata"]["namespace"], one["spec"]["target"]["name"]))
    for one in manifests.of_kind(objects, "Certificate"):
        made.add(("Secret", one["metadata"]["namespace"], one["spec"]["secretName"]))
    missing = {one for one in references(objects) if one not in made}
    assert missing == by_hand(name)


def references(objects: tuple[Plain, ...]) -> set[tuple[str, str, str]]:
    """Every ConfigMap, Secret, ServiceAccount, store and issuer that an object needs, by kind, namespace and name."""
    found = set()
    for pod in manifests.pods(objects):
        found |= {(kind, pod.namespace, name) for kind, name in _of_pod(pod.spec)}
    for one in objects:
        namespace, spec = one["metadata"].get("namespace", ""), one.get("spec", {})
        if one["kind"] == "RoleBinding":
            found |= {("ServiceAccount", who.get("namespace", namespace), who["name"]) for who in one["subjects"]}
            found.add((one["roleRef"]["kind"], namespace, one["roleRef"]["name"]))
        elif one["kind"] == "SecretStore":
            vault = spec["provider"]["vault"]
            found.add((vault["caProvider"]["type"], namespace, vault["caProvider"]["name"]))
            found.add(("ServiceAccount", namespace, vault["auth"]["kubernetes"]["serviceAccountRef"]["name"]))
        elif one["kind"] == "ExternalSecret":
            found.add((spec["secretStoreRef"]["kind"], namespace, spec["secretStoreRef"]["name"]))
        elif one["kind"] == "Certificate":
            found.add((spec["issuerRef"]["kind"], namespace, spec["issuerRef"]["name"]))
        elif one["kind"] == "Issuer" and "ca" in spec:
            found.add(("Secret", namespace, spec["ca"]["secretName"]))
    return found


def _of_pod(spec: Plain) -> Iterator[tuple[str, str]]:
    if "serviceAccountName" in spec:
        yield "ServiceAccount", spec["serviceAccountName"]
    for volume in spec.get("volumes", []):
        if "secret" in volume and not volume["secret"].get("optional"):
            yield "Secret", volume["secret"]["secretName"]
        if "configMap" in volume and not volume["configMap"].get("optional"):
            yield "ConfigMap", volume["configMap"]["name"]
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        for source in container.get("envFrom", []):
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source:
                    yield kind, source[key]["name"]
        for variable in container.get("env", []):
            for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                reference = variable.get("valueFrom", {}).get(key)
                if reference and not reference.get("optional"):
                    yield kind, reference["name"]


def by_hand(name: str) -> set[tuple[str, str, str]]:
    """What manifests/README.md says that one makes oneself for an overlay."""
    text = (manifests.FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(Secret|ConfigMap) (\S+)/(\S+)` \| ([^|]+) \|", text, re.MULTILINE)
    assert rows
    return {(kind, namespace, called) for kind, namespace, called, overlays in rows if name in overlays}


@each
def test_who_may_do_what_is_what_the_table_says(name: str) -> None:
    text = (manifests.FOLDER / "README.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| `([\w-]+)` \| `([\w-]+)` \| `([^`]+)` \| ([a-zA-Z, ]+) \|", re.MULTILINE)
    said = {(role, where, what, tuple(verbs.split(", "))) for role, where, what, verbs in row.findall(text)}
    roles = manifests.of_kind(manifests.overlay(name), "Role")
    assert said == {
        (one["metadata"]["name"], one["metadata"]["namespace"], _resource(group, resource, rule), tuple(rule["verbs"]))
        for one in roles
        if one["metadata"]["namespace"] in ("kubeflow", "kserve", "models")
        for rule in one["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def _resource(group: str, resource: str, rule: Plain) -> str:
    named = f" {', '.join(rule['resourceNames'])}" if "resourceNames" in rule else ""
    return f"{resource}{f'.{group}' if group else ''}{named}"


@each
def test_no_role_reaches_further_than_it_says(name: str) -> None:
    for role in manifests.of_kind(manifests.overlay(name), "Role"):
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["apiGroups"], *rule["resources"]], manifests.named(role)


@each
def test_budgets_select_pods_and_let_nodes_be_drained(name: str) -> None:
    objects = manifests.overlay(name)
    budgets = manifests.of_kind(objects, "PodDisruptionBudget")
    assert {one["metadata"]["name"] for one in budgets} >= {"mlflow", "sluiceway-servers"}
    labels = [one.labels for one in manifests.pods(objects)] + [{"serving.kserve.io/inferenceservice": "churn"}]
    for one in budgets:
        assert any(selects(one["spec"]["selector"], those) for those in labels), manifests.named(one)
    (mlflow,) = (one for one in objects if manifests.named(one) == "Deployment mlflow/mlflow")
    (budget,) = (one["spec"] for one in budgets if one["metadata"]["name"] == "mlflow")
    assert budget.get("minAvailable", 0) < mlflow["spec"]["replicas"]


@each
def test_what_runs_fits_into_its_quota_while_it_is_renewed(name: str) -> None:
    objects = manifests.overlay(name)
    (quota,) = (one["spec"]["hard"] for one in objects if manifests.named(one) == "ResourceQuota mlflow/sluiceway")
    used: Counter[str] = Counter()
    for one in manifests.of_kind(objects, "Deployment", "StatefulSet"):
        if one["metadata"]["namespace"] != "mlflow":
            continue
        copies = one["spec"]["replicas"] + (one["kind"] == "Deployment")
        used["pods"] += copies
        for container in one["spec"]["template"]["spec"]["containers"]:
            for side in ("requests", "limits"):
                for what, amount in container["resources"][side].items():
                    used[f"{side}.{what}"] += round(copies * amount_of(amount) * 1000)
    for what, milli in used.items():
        most = amount_of(quota[what])
        assert milli <= most * (1 if what == "pods" else 1000), what


def amount_of(text: Any) -> float:
    """A quantity as Kubernetes writes it, in units."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "m": 0.001, "Mi": 2**20, "Gi": 2**30}[unit]


@pytest.mark.parametrize("name", ["staging", "prod"])
def test_everything_between_pods_is_encrypted(name: str) -> None:
    objects = manifests.overlay(name)
    strict = {
        one["metadata"]["namespace"]
        for one in manifests.of_kind(objects, "PeerAuthentication")
        if one["spec"] == {"mtls": {"mode": "STRICT"}}
    }
    meshed = {
        one["metadata"]["name"]
        for one in manifests.of_kind(objects, "Namespace")
        if one["metadata"]["labels"].get("istio.io/dataplane-mode") == "ambient"
    }
    assert strict == meshed == {"mlflow", "models", "models-staging"}


@each
def test_the_database_is_reached_by_verified_tls_alone(name: str) -> None:
    objects = manifests.overlay(name)
    (settings,) = (one["data"] for one in objects if manifests.named(one) == "ConfigMap mlflow/mlflow")
    assert settings["PGSSLMODE"] == "verify-full"
    certificates = manifests.of_kind(objects, "Certificate")
    if certificates:
        (server,) = (one["spec"] for one in certificates if "dnsNames" in one["spec"])
        assert settings["PGHOST"] in server["dnsNames"]
        (hba,) = (one["data"] for one in objects if manifests.named(one) == "ConfigMap mlflow/mlflow-postgresql")
        assert not re.search(r"(?m)^host(nossl)?\s|trust", hba["pg_hba.conf"])


def test_one_runtime_for_every_namespace_takes_the_place_of_one_in_each(tmp_path: Path) -> None:
    base, component = (
        os.path.relpath(manifests.FOLDER / part, tmp_path.resolve()) for part in ("base", "components/every-namespace")
    )
    (tmp_path / "kustomization.yaml").write_text(json.dumps({"resources": [base], "components": [component]}))
    (runtime,) = manifests.of_kind(manifests.rendered(str(tmp_path)), "ServingRuntime", "ClusterServingRuntime")
    assert (runtime["kind"], runtime["metadata"].get("namespace")) == ("ClusterServingRuntime", None)
