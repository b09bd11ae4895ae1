"""GitHub Actions, GitLab CI and Jenkins do the same, name what there is, and hand no secret to a fork."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from pipelines.cli import app

ROOT = Path(__file__).parents[2]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
GITLAB = {
    name: job
    for name, job in yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text()).items()
    if isinstance(job, dict) and "script" in job
}
JENKINS = (ROOT / "Jenkinsfile").read_text()

Plain = dict[str, Any]


def github_jobs() -> Iterator[tuple[str, str, Plain]]:
    for workflow, whole in WORKFLOWS.items():
        for name, job in whole["jobs"].items():
            yield workflow, name, job


def jenkins_stages() -> dict[str, str]:
    parts = re.split(r"\n        stage\('([^']+)'\)", JENKINS)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def scripts() -> dict[str, list[str]]:
    """Every line of shell, by CI system."""
    github = [step["run"] for _, _, job in github_jobs() for step in job.get("steps", []) if "run" in step]
    gitlab = [line for job in GITLAB.values() for line in [*job.get("before_script", []), *job["script"]]]
    jenkins = re.findall(r"sh '([^']*)'", JENKINS)
    return {
        "GitHub": [line.strip() for text in github for line in text.splitlines()],
        "GitLab": gitlab,
        "Jenkins": jenkins,
    }


def made(lines: list[str]) -> set[str]:
    """The make targets, sluiceway commands and modules that lines of shell name."""
    found = set()
    for line in lines:
        for words in re.findall(r"\bmake ((?:[a-z][a-z-]*[ ;]?)+)", line):
            found |= {f"make {target}" for target in words.replace(";", " ").split()}
        found |= {f"sluiceway {name}" for name in re.findall(r"\bsluiceway ([a-z]+)", line)}
        found |= {"".join(words) for words in re.findall(r"(ci\.[a-z_]+)( scan| sbom| sign)?", line)}
    return found


SCRIPTS = scripts()


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", sorted(str(path) for path in (ROOT / ".github/workflows").glob("*.yml"))),
        ("gitlab-ci", [str(ROOT / ".gitlab-ci.yml")]),
        ("dependabot", [str(ROOT / ".github/dependabot.yml")]),
    ],
)
def test_a_definition_is_valid_by_the_systems_own_schema(schema: str, files: list[str]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_the_three_do_the_same() -> None:
    # Jenkins has its environment from an earlier stage, and builds no matrix; `subjects` is for GitHub's attestations.
    own = {"make install", "make test-unit", "make stop", "ci.images"}
    github, gitlab, jenkins = (made(SCRIPTS[one]) - own for one in ("GitHub", "GitLab", "Jenkins"))
    assert github == gitlab == jenkins
    for deed in ("make lint", "make test", "make audit", "make check-packages", "make golden-diff", "ci.comment"):
        assert deed in github
    for deed in ("make images-push", "ci.images scan", "ci.images sbom", "ci.images sign", "make images-lock"):
        assert deed in github
    for deed in ("sluiceway upload", "make run-on-kfp", "sluiceway schedule"):
        assert deed in github


def test_every_make_target_and_module_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for system, lines in SCRIPTS.items():
        for deed in made(lines):
            kind, _, name = deed.partition(" ")
            if kind == "make":
                assert name in targets, f"{system} runs make {name}"
            elif kind not in ("make", "sluiceway"):
                assert (ROOT / f"{kind.replace('.', '/')}.py").exists(), f"{system} runs {kind}"


def test_every_sluiceway_command_and_option_that_is_named_exists() -> None:
    whole = typer.main.get_command(app)
    makefile = re.sub(r"\$\(if [^\n]*?\)\)", "", (ROOT / "Makefile").read_text().replace("\\\n", " "))
    lines = [(system, line) for system, all_ in SCRIPTS.items() for line in all_]
    lines += [("Makefile", line) for line in re.findall(r"\$\(BIN\)/(sluiceway [a-z][^\n]*)", makefile)]
    named = 0
    for system, line in lines:
        if call := re.search(r"\bsluiceway ([^|&;]+)", line):
            named += 1
            assert not missing(whole, shlex.split(call[1])), f"{system}: {call[0]}"
    assert named > 6


def missing(command: Any, words: list[str]) -> str:
    """The first word that the command does not know."""
    for word in words:
        inner = getattr(command, "commands", None)
        if inner is not None and not word.startswith("-"):
            if word not in inner:
                return word
            command = inner[word]
        elif word.startswith("-"):
            known = {name for one in command.params for name in [*one.opts, *one.secondary_opts]}
            if word.split("=")[0] not in known:
                return word
    return ""


class TestGitHub:
    def test_actions_are_pinned_by_commit_and_say_which_version_that_is(self) -> None:
        used = re.findall(r"uses: (\S+)(.*)", "".join(p.read_text() for p in (ROOT / ".github").rglob("*.yml")))
        outside = [(name, rest) for name, rest in used if not name.startswith("./")]
        assert len(outside) > 10
        for name, rest in outside:
            assert re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40}", name), name
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", rest), f"{name}{rest}"

    def test_every_job_says_what_it_may_and_how_long(self) -> None:
        for workflow, whole in WORKFLOWS.items():
            assert whole["permissions"] == {}, workflow
            assert "concurrency" in whole
        for workflow, name, job in github_jobs():
            assert "permissions" in job, f"{workflow} {name}"
            assert "uses" in job or job["timeout-minutes"] <= 180, f"{workflow} {name}"

    def test_a_pull_request_sees_no_secret_and_only_the_comment_may_write(self) -> None:
        requests = [name for name, whole in WORKFLOWS.items() if "pull_request" in whole[True]]
        assert requests == ["ci"]
        assert not [name for name, whole in WORKFLOWS.items() if "pull_request_target" in whole[True]]
        assert "secrets." not in (ROOT / ".github/workflows/ci.yml").read_text()
        writers = [n for n, job in WORKFLOWS["ci"]["jobs"].items() if "write" in job["permissions"].values()]
        assert writers == ["comment"]
        comment = WORKFLOWS["ci"]["jobs"]["comment"]
        assert "head.repo.full_name == github.repository" in comment["if"]
        assert comment["steps"][0]["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"

    def test_delivery_is_for_main_alone_and_in_order(self) -> None:
        deliver = WORKFLOWS["deliver"]
        assert deliver[True] == {"push": {"branches": ["main"]}}
        assert deliver["concurrency"]["cancel-in-progress"] is False
        jobs = deliver["jobs"]
        assert [jobs[n]["needs"] for n in ("images", "staging", "production")] == ["ci", "images", "staging"]
        assert [jobs[n]["environment"] for n in ("staging", "production")] == ["staging", "production"]
        with_secrets = {n for n, job in jobs.items() if "secrets." in str(job)}
        assert with_secrets == {"staging", "production"}

    def test_no_expression_is_pasted_into_a_script(self) -> None:
        assert not [line for line in SCRIPTS["GitHub"] if "${{" in line]


class TestGitLab:
    def test_every_job_says_how_long(self) -> None:
        assert not [name for name, job in GITLAB.items() if "timeout" not in job]

    def test_what_acts_on_the_world_runs_on_main_alone(self) -> None:
        acting = ("images-push", "ci.images sign", "sluiceway upload", "run-on-kfp", "sluiceway schedule")
        for name, job in GITLAB.items():
            if any(deed in line for line in job["script"] for deed in acting):
                assert "CI_DEFAULT_BRANCH" in job["rules"][0]["if"], name
                assert len(job["rules"]) == 1
                assert job["interruptible"] is False

    def test_a_request_from_a_fork_is_not_commented_on(self) -> None:
        (rule,) = GITLAB["comment"]["rules"]
        assert "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID" in rule["if"]

    def test_production_takes_the_packages_that_ran_on_staging(self) -> None:
        assert GITLAB["staging"]["needs"] == ["locked-packages"]
        assert GITLAB["production"]["needs"] == ["locked-packages", "staging"]
        assert GITLAB["production"]["rules"][0]["when"] == "manual"


class TestJenkins:
    def test_credentials_are_bound_on_main_or_for_the_comment_on_a_request_that_is_no_fork(self) -> None:
        bound = {name: stage for name, stage in jenkins_stages().items() if "withCredentials" in stage}
        assert set(bound) == {"Comment", "Images", "Staging", "Production"}
        assert "not { expression { env.CHANGE_FORK } }" in bound.pop("Comment")
        assert all("branch 'main'" in stage for stage in bound.values())
        assert "credentials(" not in JENKINS

    def test_every_stage_says_how_long(self) -> None:
        stages = jenkins_stages()
        assert [name for name, stage in stages.items() if "timeout(" not in stage] == ["Checkout"]

    def test_braces_and_quotes_are_balanced(self) -> None:
        bare = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"|//[^\n]*", "", JENKINS)
        assert not re.search(r"['\"]", bare)
        assert all(bare.count(left) == bare.count(right) for left, right in ("{}", "()", "[]"))


@pytest.mark.parametrize("system", list(SCRIPTS))
def test_no_secret_is_said_aloud(system: str) -> None:
    secret = re.compile(r"(echo|printf)\b.*\$\{?\w*(TOKEN|PASSWORD|KEY|SECRET)")
    for line in SCRIPTS[system]:
        assert "set -x" not in line
        if secret.search(line):
            assert "--password-stdin" in line or re.search(r"> \"\$RUNNER_TEMP/", line), line
