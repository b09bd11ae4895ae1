"""The commands of docs/cluster.md, taken from the page and run, as far as no cluster is needed."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.packages import parameters
from pipelines.server import schedules
from tests import manifests

pytest_plugins = ["tests.kfp_api.fixtures"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cluster.md"

NEEDS = {
    "make cluster": "Docker and kind",
    "export ": "the shell of the reader",
    "git clone ": "the release",
    "make install": "an environment, which the tests run in already",
    ". .venv/bin/activate": "the shell of the reader",
    "docker buildx bake ": "Docker and a registry",
    "make images-lock": "images that were pushed",
    "kubectl create ": "a cluster",
    "kubectl apply ": "a cluster",
    "kubectl patch ": "a cluster",
    "kubectl label ": "a cluster",
    "kubectl rollout ": "a cluster",
    "kubectl get ": "a cluster",
    "sluiceway submit ": "KFP, to run it",
    "sluiceway rollout ": "a rollout",
    "sluiceway schedule ": "KFP, to start it; the file is read below",
    "mkdir ": "the schedule that follows",
}
"""What is not run, and what it would need."""


def commands() -> list[str]:
    """The page's commands; what is fed to one of them is left out."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    text = re.sub(r"<<'END'\n.*?^END$", "", "".join(blocks), flags=re.MULTILINE | re.DOTALL)
    return [line for line in text.splitlines() if line.strip()]


def test_the_packages_are_compiled_linted_and_uploaded_as_the_page_says(
    tmp_path: Path, kfp_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICEWAY_KFP_HOST", kfp_server)
    monkeypatch.chdir(tmp_path)
    ran = []
    for command in commands():
        if command.startswith("sluiceway ") and not command.startswith(tuple(NEEDS)):
            _, *words = shlex.split(command)
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, f"{command}\n{done.output}"
            ran.append(words[0])
    assert ran == ["compile", "lint", "upload"]


def test_the_overlays_of_the_page_can_be_rendered() -> None:
    rendered = [line.rpartition(" ")[2] for line in commands() if line.startswith("kubectl kustomize ")]
    assert rendered == ["manifests/overlays/dev", "manifests/overlays/staging"]
    for folder in rendered:
        assert manifests.rendered(folder.removeprefix("manifests/"))


def test_the_schedule_of_the_page_fits_the_pipeline(tmp_path: Path, package: Path) -> None:
    (given,) = re.findall(r"<<'END'\n(.*?)^END$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "first.yaml").write_text(given)
    (schedule,) = schedules.read(tmp_path).schedules
    schedules.check_parameters(schedule, parameters(package))
    assert (schedule.pipeline, schedule.service_account) == (package.stem, "sluiceway-deploy")


def test_nothing_else_is_left_out_unawares() -> None:
    run = ("sluiceway compile ", "sluiceway lint ", "sluiceway upload ", "kubectl kustomize ")
    assert [line for line in commands() if not line.startswith((*run, *NEEDS))] == []
    unused = [start for start in NEEDS if not any(line.startswith(start) for line in commands())]
    assert not unused


def test_files_and_accounts_that_the_page_names_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in re.findall(r"--patch-file (\S+)", text):
        assert (ROOT / name).is_file(), name
    accounts = {one["metadata"]["name"] for one in manifests.of_kind(manifests.overlay("dev"), "ServiceAccount")}
    assert set(re.findall(r"service_account\"?: \"?([a-z-]+)|--service-account ([a-z-]+)", text)) <= {
        pair for account in accounts for pair in ((account, ""), ("", account))
    }
