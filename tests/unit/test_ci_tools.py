"""What the CI systems have in common: the text of a comment, its poster, images by digest, the local cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from ci import cluster, comment, golden_diff, images

ROOT = Path(__file__).parents[2]
PACKAGE = """\
components: {comp-ingest: {}}
deploymentSpec:
  executors:
    exec-ingest: {container: {image: "registry/data:0.1.0"}}
root:
  inputDefinitions:
    parameters:
      seed: {parameterType: NUMBER_INTEGER, defaultValue: 0}
      trainer: {parameterType: STRING, defaultValue: gradient_boosting}
---
platforms: {}
"""


class TestGoldenDiff:
    def test_nothing_changed_is_said_in_a_line(self):
        assert "No package changes." in golden_diff.report({"a.yaml": PACKAGE}, {"a.yaml": PACKAGE})

    def test_what_a_person_asks_first_stands_above_the_diff(self):
        package = next(yaml.safe_load_all(PACKAGE))
        parameters = package["root"]["inputDefinitions"]["parameters"]
        del parameters["seed"]
        parameters["colour"] = {"parameterType": "STRING"}
        parameters["trainer"]["defaultValue"] = "torch"
        package["deploymentSpec"]["executors"]["exec-ingest"]["container"]["image"] = "registry/data@sha256:1"
        said = golden_diff.report({"a.yaml": PACKAGE}, {"a.yaml": yaml.safe_dump(package)})
        head = said.split("<details>")[0]
        assert "1 of 1 packages change" in head
        assert "- parameter `colour` is new: `string`" in head
        assert "- parameter `seed` is **removed**" in head
        assert "- parameter `trainer`: `string = 'gradient_boosting'` → `string = 'torch'`" in head
        assert "→ `registry/data@sha256:1`" in head

    def test_a_package_as_kfp_compiles_it_is_read(self):
        package = (ROOT / "tests/golden/train-and-deploy.yaml").read_text("utf-8")
        said = golden_diff.report({"a.yaml": ""}, {"a.yaml": package})
        for fact in ("parameter `source_uri` is new: `string", "step `comp-train` is new", "image `rollout` is new"):
            assert fact in said

    def test_a_diff_that_is_too_long_for_a_comment_is_left_out_and_the_facts_stay(self):
        many = {f"{number}.yaml": PACKAGE for number in range(9)}
        said = golden_diff.report(many, {name: PACKAGE.replace("0.1.0", "0.2.0") + "#\n" * 9000 for name in many})
        assert len(said) <= golden_diff.LONGEST
        assert "#### `8.yaml` changes" in said
        assert "too long to show" in said

    def test_packages_that_come_and_go_and_files_that_are_none(self):
        said = golden_diff.report({"old.yaml": PACKAGE, "k.yaml": "kind: Pipeline\n"}, {"new.yaml": PACKAGE})
        assert "`new.yaml` is new" in said
        assert "`old.yaml` is removed" in said
        assert "3 of 3 packages change" in said

    def test_fences_in_a_component_do_not_end_the_diffs_own(self):
        said = golden_diff.report({"a.yaml": "x: 1\n"}, {"a.yaml": 'x: "```"\n'})
        assert said.count("```") == 2

    def test_the_packages_of_a_commit_are_compared_and_a_missing_commit_is_said(self, tmp_path):
        def run(*words: str) -> subprocess.CompletedProcess[str]:
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)

        for name, text in (("tests/golden/a.yaml", "x: 1\n"), ("build/a.yaml", "x: 2\n")):
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).write_text(text)
        for words in (
            ["init", "-q"],
            ["add", "tests"],
            ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm."],
        ):
            assert run("git", *words).returncode == 0
        command = (sys.executable, "-m", "ci.golden_diff", "build", "--base")
        assert "+x: 2" in run(*command, "HEAD").stdout
        ended = run(*command, "nowhere")
        assert ended.returncode == 1
        assert "Cannot read tests/golden of nowhere" in ended.stderr


class Forge:
    """Keeps comments as GitHub and GitLab do, 2 to a page."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if request.method == "GET":
            page = int(request.url.params.get("page", 1))
            shown = [{"id": i, "body": body} for i, body in enumerate(self.bodies)][2 * page - 2 : 2 * page]
            link = {"Link": f'<{request.url.copy_merge_params({"page": page + 1})}>; rel="next"'}
            return httpx.Response(200, json=shown, headers=link if 2 * page < len(self.bodies) else {})
        body = json.loads(request.content)["body"]
        if request.method == "POST":
            self.bodies.append(body)
        else:
            self.bodies[int(request.url.path.rsplit("/", 1)[1])] = body
        return httpx.Response(200, json={})

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self))


GITHUB = {
    "GITHUB_REF": "refs/pull/7/merge",
    "GITHUB_REPOSITORY": "sluiceway/sluiceway",
    "GITHUB_API_URL": "https://api.github.com",
}
GITLAB = {
    "CI_MERGE_REQUEST_IID": "7",
    "CI_MERGE_REQUEST_PROJECT_ID": "42",
    "CI_API_V4_URL": "https://gitlab.example.com/api/v4",
}


class TestComment:
    @pytest.mark.parametrize(
        ("environment", "address", "verb", "header"),
        [
            (GITHUB, "https://api.github.com/repos/sluiceway/sluiceway/issues/7/comments", "PATCH", "Authorization"),
            (GITLAB, "https://gitlab.example.com/api/v4/projects/42/merge_requests/7/notes", "PUT", "PRIVATE-TOKEN"),
            (
                {"CHANGE_URL": "https://github.com/sluiceway/sluiceway/pull/7"},
                "https://api.github.com/repos/sluiceway/sluiceway/issues/7/comments",
                "PATCH",
                "Authorization",
            ),
            (
                {"CHANGE_URL": "https://gitlab.example.com/ml/sluiceway/-/merge_requests/7"},
                "https://gitlab.example.com/api/v4/projects/ml%2Fsluiceway/merge_requests/7/notes",
                "PUT",
                "PRIVATE-TOKEN",
            ),
        ],
    )
    def test_a_comment_is_posted_once_and_renewed_after_that(self, environment, address, verb, header):
        request = comment.of_this_job(environment | {"COMMENT_TOKEN": "t0ken"})
        assert request is not None
        forge = Forge()
        forge.bodies = ["Nice!", "Please rebase.", "Done."]
        assert comment.post(request, "<!-- mark -->\nfirst", forge.client) == "posted"
        assert str(forge.seen[-1].url) == address
        assert "t0ken" in forge.seen[-1].headers[header]
        assert comment.post(request, "<!-- mark -->\nsecond", forge.client) == "renewed"
        assert forge.seen[-1].method == verb
        assert forge.bodies == ["Nice!", "Please rebase.", "Done.", "<!-- mark -->\nsecond"]

    @pytest.mark.parametrize("environment", [{"GITHUB_REF": "refs/heads/main"}, GITHUB])
    def test_without_a_request_or_a_token_nothing_is_posted_and_nothing_fails(self, environment, monkeypatch, capsys):
        for name in (*GITHUB, *GITLAB, "CHANGE_URL", "COMMENT_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert comment.main() == 0
        assert capsys.readouterr().err.startswith(("Nothing to comment on", "No comment is posted"))


METADATA = {
    "buildx.build.warnings": [],
    "python-data": {
        "containerimage.digest": "sha256:aa",
        "image.name": "docker.io/localhost:5000/ml/python-data:1,localhost:5000/ml/python-data:abc",
    },
    "python-control": {"containerimage.digest": "sha256:bb", "image.name": "ghcr.io/sluiceway/python-control:0.1.0"},
    "base": {"buildx.build.ref": "x"},
}


class TestImages:
    @pytest.fixture
    def metadata(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        path = tmp_path / "images.json"
        path.write_text(json.dumps(METADATA))
        return path

    @pytest.fixture
    def calls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """What the tools were called with; the one that scans fails for the first image."""
        folder, log = tmp_path / "bin", tmp_path / "calls"
        folder.mkdir()
        for tool in ("grype", "syft", "cosign"):
            path = folder / tool
            path.write_text(
                f'#!/bin/sh\necho "{tool} $*" >> {log}\ncase "$*" in *registry:*@sha256:bb*fail-on*) exit 2;; esac\n'
            )
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return log

    def test_images_are_named_by_digest_each_once(self, metadata):
        assert [one.reference for one in images.pushed(metadata)] == [
            "ghcr.io/sluiceway/python-control@sha256:bb",
            "localhost:5000/ml/python-data@sha256:aa",
        ]

    def test_all_are_scanned_even_when_one_is_refused(self, metadata, calls, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["images", "scan", str(metadata)])
        assert images.main() == 1
        assert len(calls.read_text().splitlines()) == 2
        assert "scan of ghcr.io/sluiceway/python-control@sha256:bb ended with 2" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("key", "option"), [("", ""), ("gcpkms://k", "--key=gcpkms://k "), ("-----BEGIN X", "--key=env://COSIGN_KEY ")]
    )
    def test_images_and_their_contents_are_signed_and_no_key_is_on_a_command_line(
        self, metadata, calls, monkeypatch, key, option
    ):
        monkeypatch.setenv("COSIGN_KEY", key)
        images.sign(images.pushed(metadata)[0])
        image = "ghcr.io/sluiceway/python-control@sha256:bb"
        assert calls.read_text().splitlines() == [
            f"cosign sign --yes --recursive {option}{image}",
            "cosign attest --yes --type=spdxjson --predicate=build/sbom/python-control.spdx.json " + f"{option}{image}",
        ]
        assert "BEGIN" not in calls.read_text()

    def test_a_tool_that_is_not_there_runs_from_its_own_image(self, metadata, tmp_path, monkeypatch):
        docker = tmp_path / "docker"
        docker.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/said\n')
        docker.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.setenv("SIGSTORE_ID_TOKEN", "s3cret")
        images.sbom(images.pushed(metadata)[0])
        said = (tmp_path / "said").read_text()
        assert "ghcr.io/anchore/syft:v" in said
        assert "--env=SIGSTORE_ID_TOKEN " in said
        assert "s3cret" not in said

    def test_a_build_that_pushed_nothing_is_said(self, metadata, monkeypatch, capsys):
        metadata.write_text("{}")
        monkeypatch.setattr(sys, "argv", ["images", "subjects", str(metadata)])
        assert images.main() == 1
        assert "names no pushed image" in capsys.readouterr().err


def words() -> list[str]:
    """Every word of every command that makes the cluster."""
    commands = [one for step in cluster.plan(exists=False) for one in step.commands]
    return [word for one in commands for word in (*one.words, *one.source)]


class TestCluster:
    def test_every_file_that_is_applied_exists(self):
        files = [word.split("=")[-1] for word in words() if "manifests/" in word and "github.com" not in word]
        assert len(files) >= 4
        assert not [name for name in files if not (ROOT / name).exists()]

    def test_every_source_outside_has_a_version(self):
        outside = [word for word in words() if "github.com" in word]
        assert len(outside) > 5
        assert not [word for word in outside if not any(mark in word for mark in ("?ref=", "/download/v"))]

    def test_a_cluster_that_exists_is_not_made_again(self):
        assert "create" in str(cluster.plan(exists=False)[0].commands[0])
        assert not [one for step in cluster.plan(exists=True) for one in step.commands if "create cluster" in str(one)]

    def test_kserve_gets_its_release_and_standard_mode_with_the_gateway_api_and_keeps_the_rest(self):
        config = {
            "kind": "ConfigMap",
            "metadata": {"name": "inferenceservice-config"},
            "data": {
                "deploy": '{"defaultDeploymentMode": "Serverless"}',
                "ingress": '{"ingressDomain": "example.com"}',
            },
        }
        manager = {"kind": "Deployment", "spec": {"image": "kserve/kserve-controller:latest"}}
        made = list(yaml.safe_load_all(cluster.configured_kserve(yaml.safe_dump_all([config, manager]))))
        assert made[1]["spec"]["image"] == f"kserve/kserve-controller:{cluster.KSERVE}"
        assert json.loads(made[0]["data"]["deploy"]) == {"defaultDeploymentMode": "Standard"}
        assert json.loads(made[0]["data"]["ingress"]) == {
            "ingressDomain": "example.com",
            "enableGatewayApi": True,
            "kserveIngressGateway": "kserve/kserve-ingress-gateway",
        }

    def test_the_gateway_that_kserve_is_told_of_is_the_one_that_is_made(self):
        made = list(yaml.safe_load_all((ROOT / "manifests/kind/gateway.yaml").read_text()))
        gateway = next(one for one in made if one["kind"] == "Gateway")
        assert (gateway["metadata"]["namespace"], gateway["metadata"]["name"]) == ("kserve", "kserve-ingress-gateway")

    @pytest.mark.parametrize(
        ("tools", "said"),
        [
            ({}, "needs docker, which is not installed: see https://docs.docker.com"),
            ({"docker": "exit 1"}, "needs kind, which is not installed"),
            ({"docker": "exit 1", "kind": "", "kubectl": "", "git": ""}, "Docker is installed and does not answer"),
            (
                {"docker": """echo '{"MemTotal": 4294967296}'""", "kind": "", "kubectl": "", "git": ""},
                "Docker has 4.0 GiB of memory and the cluster needs 8",
            ),
            (
                {
                    "docker": """echo '{"MemTotal": 17179869184}'""",
                    "kind": "echo kind v0.20.0 go1.20 linux/amd64",
                    "kubectl": "",
                    "git": "",
                },
                "kind is v0.20.0 and the cluster's node image needs 0.32.0",
            ),
        ],
    )
    def test_what_is_missing_is_one_clear_line(self, tools, said, tmp_path, monkeypatch):
        for name, script in tools.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(cluster.NotPossible, match=said):
            cluster.check_machine()

    def test_the_whole_is_made_with_a_kubeconfig_of_its_own(self, tmp_path, monkeypatch, capsys):
        """With stand-ins for the tools: in which order they are called, and that a failure is tried again."""
        log = tmp_path / "log"
        for name in ("docker", "kind", "kubectl", "git"):
            (tmp_path / name).write_text(
                f'#!/bin/sh\necho "{name} $* [$KUBECONFIG]" >> {log}\n'
                'case "$*" in info*) echo \'{"MemTotal": 17179869184}\';; version) echo kind v0.32.0;;\n'
                f"  *cert-manager.yaml*) [ -f {tmp_path}/once ] || {{ : > {tmp_path}/once; exit 1; }};;\n"
                "  kustomize*standalone*) printf 'kind: ConfigMap\\nmetadata: {name: inferenceservice-config}\\n"
                'data: {deploy: "{}", ingress: "{}"}\\n\';;\n'
                "  *filename=-*) cat > /dev/null;;\nesac\n"
            )
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("KUBECONFIG", "/home/anna/.kube/config")
        cluster.up()
        lines = log.read_text().splitlines()
        made = [line for line in lines if not line.startswith(("docker info", "kind version", "kind get"))]
        assert made[0].startswith("kind create cluster")
        assert sum("cert-manager.yaml" in line for line in made) == 2
        assert all(line.endswith("[.sluiceway/cluster/kubeconfig]") for line in made)
        assert (tmp_path / ".sluiceway/cluster/database-password").stat().st_mode & 0o777 == 0o600
        assert "The cluster is up." in capsys.readouterr().err
