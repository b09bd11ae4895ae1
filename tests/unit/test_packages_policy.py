"""From compiled YAML back: what each task may use and what becomes of it, against the tables that were reviewed."""

import re
from pathlib import Path

import pytest

from components.errors import BadInput
from components.rollout.plan import parse_plan
from pipelines.catalog import CATALOG
from pipelines.lint.check import lint
from pipelines.lint.package import read
from pipelines.package_table import tables
from pipelines.packages import compile_package, documents
from pipelines.pinning import Pins
from pipelines.policy import POLICIES
from pipelines.project import project

ROOT = Path(__file__).parents[2]
ONE = f"sha256:{1:064x}"


@pytest.mark.parametrize("name", CATALOG)
def test_types_images_resources_secrets_and_volumes_are_those_of_the_reviewed_tables(name, package, tmp_path):
    if name != "train-and-deploy":
        package = tmp_path / "package.yaml"
        compile_package(name, package)
    page = (ROOT / "docs" / "packages.md").read_text()
    reviewed = re.search(rf"^## {name}\n\n(.*?)(?=^## |^<!--)", page, re.DOTALL | re.MULTILINE)
    assert reviewed is not None, f"docs/packages.md has no tables of {name}: make golden docs"
    assert tables(package).splitlines() == reviewed[1].strip().splitlines(), "make golden docs, and review them"


def test_a_package_with_its_images_locked_has_nothing_that_lint_finds(tmp_path):
    class Any(dict):
        __contains__ = __missing__ = lambda self, name: ONE

    path = tmp_path / "package.yaml"
    compile_package("train-and-deploy", path, Pins().model_copy(update={"images": Any()}))
    report = lint([read(path)], project(ROOT))
    assert not report.findings
    assert {one.finding.rule for one in report.suppressed} == {"SW002"}, "only images that a run chooses"


@pytest.fixture(scope="module")
def containers(package):
    return list(read(package).containers())


def test_every_attempt_of_every_task_fits_into_the_time_in_which_it_is_tried_again(containers):
    assert {task.function.replace("_", "-") for task in containers} == set(POLICIES)
    for task in containers:
        retry, timeout = task.node["retryPolicy"], int(task.kubernetes["activeDeadlineSeconds"].text())
        window = int(retry["backoffMaxDuration"].text().removesuffix("s"))
        assert window >= (1 + retry["maxRetryCount"].value) * timeout, task.name
        # Argo takes whole numbers only, as text.
        assert float(retry["backoffFactor"].text()).is_integer(), task.name


def test_no_plan_may_take_a_rollout_longer_than_its_pod_has(containers):
    (rollout,) = [task for task in containers if task.function == "rollout"]
    timeout = int(rollout.kubernetes["activeDeadlineSeconds"].text())
    day = 24 * 60 * 60
    assert parse_plan({"max_total_seconds": timeout - day}).max_total_seconds == timeout - day
    with pytest.raises(BadInput, match="max_total_seconds"):
        parse_plan({"max_total_seconds": timeout})


def test_nothing_secret_is_a_parameter_and_every_secret_may_be_missing(package):
    _, platform = documents(package)
    seen = set()
    for pod in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        for source in (*pod.get("secretAsEnv", ()), *pod.get("secretAsVolume", ())):
            assert source["optional"] is True
            seen.add(source["secretName"])
    assert seen == {"sluiceway-rollout", "sluiceway-signing", "sluiceway-sources"}
