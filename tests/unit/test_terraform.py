"""The Terraform files ask the provider for what it has, refer to what is there, and are formatted."""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

FOLDER = Path("manifests/terraform")
SCHEMA = json.loads(gzip.decompress(Path("tests/terraform/google.json.gz").read_bytes()))
# Arguments of Terraform itself, which any resource takes.
META = {"count", "depends_on", "for_each", "lifecycle", "provider"}


def read(text: str) -> dict[str, list[dict[str, Any]]]:
    return cleaned(hcl2.loads(text))


def cleaned(part: Any) -> Any:
    """Without the parser's own marks and the quotes around names."""
    if isinstance(part, list):
        return [cleaned(item) for item in part]
    if isinstance(part, dict):
        return {key.strip('"'): cleaned(value) for key, value in part.items() if not key.startswith("__")}
    return part


def blocks(kind: str, *texts: str) -> dict[str, dict[str, Any]]:
    """By address, such as ``google_storage_bucket.this``."""
    found = {}
    for text in texts:
        for one in read(text).get(kind, []):
            for first, rest in one.items():
                named = rest.items() if kind in ("resource", "data") else [("", rest)]
                found |= {f"{first}.{name}".rstrip("."): body for name, body in named}
    return found


def complaints(address: str, body: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """What the provider would say of a block."""
    given = {}
    for key, value in body.items():
        if key == "dynamic":
            for one in value:
                given |= {name: [part["content"][0]] for name, part in one.items()}
        elif key not in META or key in schema:
            given[key] = value
    said = [f"{address} takes no {key}" for key in given if key not in schema]
    said += [f"{address} needs {key}" for key, spec in schema.items() if spec.get("required") and key not in given]
    for key, value in given.items():
        inner = schema.get(key, {}).get("block")
        if inner is not None and isinstance(value, list):
            for one in value:
                said += complaints(f"{address}.{key}", one, inner)
    return said


TEXTS = [path.read_text() for path in sorted(FOLDER.glob("*.tf"))]


def everything(*texts: str) -> list[str]:
    said = []
    for kind in ("resource", "data"):
        for address, body in blocks(kind, *texts).items():
            name = address.split(".")[0]
            said += complaints(address, body, SCHEMA["data." * (kind == "data") + name])
    return said


def test_every_resource_is_one_that_the_provider_takes():
    assert everything(*TEXTS) == []


def test_each_kind_of_mistake_would_be_said():
    bucket = 'resource "google_storage_bucket" "x" {\n  name = "x"\n  %s\n}\n'
    assert everything(bucket % "") == ["google_storage_bucket.x needs location"]
    assert everything(bucket % 'location = "eu"\n  colour = "red"') == ["google_storage_bucket.x takes no colour"]
    rule = 'location = "eu"\n  lifecycle_rule {\n    action {\n      kind = "Delete"\n    }\n    condition {}\n  }'
    assert everything(bucket % rule) == [
        "google_storage_bucket.x.lifecycle_rule.action takes no kind",
        "google_storage_bucket.x.lifecycle_rule.action needs type",
    ]
    dynamic = 'location = "eu"\n  dynamic "logging" {\n    for_each = [1]\n    content {}\n  }'
    assert everything(bucket % dynamic) == ["google_storage_bucket.x.logging needs log_bucket"]


def test_everything_that_is_referred_to_is_there():
    text = "\n".join(re.sub(r"^\s*#.*$", "", one, flags=re.MULTILINE) for one in TEXTS)
    (names,) = [set().union(*(one for t in TEXTS for one in read(t).get("locals", [])))]
    assert set(re.findall(r"\bvar\.(\w+)", text)) == set(blocks("variable", *TEXTS))
    assert set(re.findall(r"\blocal\.(\w+)", text)) == names
    referred = set(re.findall(r"(?<![\w./])(google_\w+\.\w+)", text.replace("data.google_", "data/google_")))
    assert referred <= set(blocks("resource", *TEXTS)), referred - set(blocks("resource", *TEXTS))


def test_every_variable_and_output_is_described_and_the_example_sets_only_variables():
    for kind in ("variable", "output"):
        for name, body in blocks(kind, *TEXTS).items():
            assert len(body["description"]) > 20, name
    example = set(read((FOLDER / "terraform.tfvars.example").read_text()))
    variables = blocks("variable", *TEXTS)
    assert example <= set(variables)
    assert {name for name, body in variables.items() if "default" not in body} <= example


def test_nothing_is_open_to_everybody():
    resources = blocks("resource", *TEXTS)
    for address, body in resources.items():
        assert "allUsers" not in json.dumps(body), address
        assert "allAuthenticatedUsers" not in json.dumps(body), address
        if address.startswith("google_storage_bucket."):
            assert body["public_access_prevention"] == '"enforced"'
            assert body["uniform_bucket_level_access"] is True
        if address.startswith("google_container_node_pool."):
            (config,) = body["node_config"]
            assert config["workload_metadata_config"] == [{"mode": '"GKE_METADATA"'}], address
            assert config["service_account"] == "${google_service_account.nodes.email}"
    cluster = resources["google_container_cluster.this"]
    assert cluster["private_cluster_config"][0]["enable_private_nodes"] is True
    assert "master_authorized_networks_config" in cluster


def test_the_spot_nodes_have_what_a_training_on_spot_asks_for():
    from components.train.schedule import _SPOT

    (label, value), (tolerated,) = next(iter(_SPOT["gke"][0].items())), _SPOT["gke"][1]
    (config,) = blocks("resource", *TEXTS)["google_container_node_pool.gpu"]["node_config"]
    (taint,) = [one["taint"]["content"][0] for one in config["dynamic"]]
    assert (
        (tolerated["key"], "NO_SCHEDULE")
        == (taint["key"].strip('"'), taint["effect"].strip('"'))
        == (label, "NO_SCHEDULE")
    )
    assert value == tolerated["value"] == "true"
    assert config["spot"] == "${var.gpu.spot}"  # GKE then sets the label itself


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_the_files_are_formatted():
    ended = subprocess.run(["terraform", f"-chdir={FOLDER}", "fmt", "-check", "-diff"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


def test_the_accounts_that_get_rights_are_those_of_the_manifests():
    text = (FOLDER / "identity.tf").read_text()
    named = set(re.findall(r'"(sluiceway-\w+|mlflow)"', text))
    documents = [one for path in Path("manifests/base").rglob("*.yaml") for one in yaml.safe_load_all(path.read_text())]
    made = {one["metadata"]["name"] for one in documents if one and one.get("kind") == "ServiceAccount"}
    assert named <= made
