"""Packages as KFP's resources: what a KFP server with its Kubernetes-native API would take from git."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.errors import BadInput
from pipelines.cli import app
from pipelines.manifests_out import resources, write_manifests
from pipelines.packages import documents, version_name
from tests.cluster.schema import problems, unknown

SCHEMAS = json.loads((Path(__file__).parents[1] / "cluster" / "crds" / "kfp.json").read_text())
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def at_a_commit(monkeypatch):
    monkeypatch.setenv("SLUICEWAY_GIT_COMMIT", COMMIT)


@pytest.fixture(scope="module")
def file(package, tmp_path_factory):
    """The resources of the package at a commit."""
    path = tmp_path_factory.mktemp("resources") / "out.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICEWAY_GIT_COMMIT", COMMIT)
        write_manifests(package, path, "kubeflow", "https://git.example.com/ml")
    return path


@pytest.fixture(scope="module")
def made(file):
    """The same as data."""
    return list(yaml.load_all(file.read_bytes(), yaml.CSafeLoader))


def test_the_resources_fit_kfps_own_schemas_and_have_no_field_that_would_be_dropped(made):
    assert [one["kind"] for one in made] == [
        "Pipeline",
        "PipelineVersion",
    ]  # KFP refuses a version without its pipeline
    for one in made:
        schema = SCHEMAS[one["kind"]]
        assert not list(problems(schema, one))
        assert [path for path in unknown(schema, one) if not path.startswith(("metadata", ".metadata"))] == []
    wrong = {**made[1], "spec": {**made[1]["spec"], "versionName": "Not A Name", "pipelineSpec": None}}
    assert list(problems(SCHEMAS["PipelineVersion"], wrong))


def test_a_version_holds_the_package_and_is_named_as_an_upload_names_it(made, package):
    pipeline, version = made
    spec, platform = documents(package)
    assert version["spec"]["pipelineSpec"] == spec
    assert version["spec"]["platformSpec"] == platform
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == spec["pipelineInfo"]["name"]
    assert version["spec"]["versionName"] == version_name(package)
    assert version["spec"]["versionName"].startswith(COMMIT[:12])
    assert version["metadata"]["name"] == f"train-and-deploy-{version_name(package)}"  # as KFP names those it makes
    assert {one["metadata"]["namespace"] for one in made} == {"kubeflow"}
    assert version["spec"]["codeSourceURL"] == "https://git.example.com/ml"


def test_writing_them_again_gives_the_same_bytes_since_kfp_refuses_a_change(file, package, tmp_path):
    write_manifests(package, tmp_path / "again", "kubeflow", "https://git.example.com/ml")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("commit", "begins"), [(COMMIT, "0123456789ab-"), (f"{COMMIT}-dirty", "0123456789ab-dirty-"), ("", "no-commit-")]
)
def test_the_name_says_the_commit_and_whether_files_differ_from_it(package, monkeypatch, commit, begins):
    monkeypatch.setenv("SLUICEWAY_GIT_COMMIT", commit)
    monkeypatch.setenv("PATH", "")  # no git
    assert version_name(package).startswith(begins)


def test_a_name_that_kubernetes_would_refuse_is_refused_before_anything_is_written(package, tmp_path):
    with pytest.raises(BadInput, match="longer than the 253 characters"):
        resources(package, "v" * 240)


def test_old_versions_are_not_pruned_and_the_pipeline_comes_first(made):
    told = made[1]["metadata"]["annotations"]
    assert told["argocd.argoproj.io/sync-options"] == "Prune=false"
    assert told["kustomize.toolkit.fluxcd.io/prune"] == "disabled"
    assert int(told["argocd.argoproj.io/sync-wave"]) > 0


def test_compile_writes_the_resources_when_asked_to(tmp_path):
    done = CliRunner().invoke(app, ["compile", "train-and-deploy", "--format", "kubernetes", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (path,) = (str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml"))
    assert path == "kubernetes/train-and-deploy.yaml"
    assert COMMIT[:12] in done.output


def test_compile_says_what_is_wrong_with_a_lock_and_fails(tmp_path):
    lock = tmp_path / "lock.json"
    lock.write_text('{"images": {"python-data": "latest"}}')
    done = CliRunner().invoke(app, ["compile", "train-and-deploy", "--lock", str(lock), "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "a digest is sha256:" in " ".join(done.output.split())
    assert not list(tmp_path.glob("*.yaml"))
