"""``sluiceway lint`` as people and scripts meet it: what it reads, what it suppresses, how it ends."""

import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app

PACKAGE = """\
components:
  comp-send:
    executorLabel: exec-send
deploymentSpec:
  executors:
    exec-send:
      container:
        command:
        - send
        - "a text with # lint: ignore SW004 - in it"
        image: registry.example.com/send:1.4.2
        resources:
          resourceCpuLimit: '1'
          resourceCpuRequest: '1'
          resourceMemoryLimit: 1Gi
          resourceMemoryRequest: 1Gi
pipelineInfo:
  description: Sends.
  name: sending
root:
  dag:
    tasks:
      send:
        cachingOptions: {}
        componentRef:
          name: comp-send
        taskInfo:
          name: send
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
---
platforms:
  kubernetes:
    deploymentSpec:
      executors:
        exec-send:
          activeDeadlineSeconds: '60'
"""
IMAGE_LINE, TASK_LINE = 11, 23
IMAGE = "        image: registry.example.com/send:1.4.2"
TASK = "      send:\n"


@pytest.fixture
def lint(tmp_path, monkeypatch):
    """Lint a package, or what else is in the file, in a repository of its own."""
    monkeypatch.chdir(tmp_path)

    def run(text=PACKAGE, *options, name="package.yaml"):
        (tmp_path / name).write_text(text)
        return CliRunner().invoke(app, ["lint", name, *options])

    return run


def findings(result):
    return [(one["line"], one["rule"]) for one in json.loads(result.stdout)["findings"]]


def test_errors_fail_and_warnings_fail_only_when_strict(lint):
    result = lint()
    assert result.exit_code == 1
    assert f"package.yaml:{TASK_LINE}: error SW004 [retry] Task send" in result.stdout
    assert "1 package: 1 error, 1 warning" in result.stderr
    mended = PACKAGE.replace("        taskInfo", "        retryPolicy: {}\n        taskInfo")
    assert lint(mended).exit_code == 0
    assert lint(mended, "--strict").exit_code == 1


def test_json_is_one_object_with_every_finding(lint):
    assert findings(lint(PACKAGE, "--format", "json")) == [(IMAGE_LINE, "SW002"), (TASK_LINE, "SW004")]


def test_github_gets_a_command_for_each_finding_on_its_line(lint):
    lines = lint(PACKAGE, "--format", "github").stdout.splitlines()
    assert lines[1].startswith(f"::error file=package.yaml,line={TASK_LINE},title=SW004 retry::Task send does not say")
    assert lines[0].startswith(
        f"::warning file=package.yaml,line={IMAGE_LINE},title=SW002 image-pinned::Task send runs"
    )
    assert "file=a%2Cb.yaml,line=" in lint(PACKAGE, "--format", "github", name="a,b.yaml").stdout


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (IMAGE, f"{IMAGE}  # lint: ignore SW002 - the registry forbids moving tags"),
        (IMAGE, f"        # lint: ignore SW002 - the registry forbids moving tags\n        # and so on\n{IMAGE}"),
    ],
)
def test_a_comment_with_a_reason_suppresses_its_line(lint, before, after):
    result = lint(PACKAGE.replace(before, after), "--format", "json")
    assert [rule for _, rule in findings(result)] == ["SW004"]
    (kept,) = json.loads(result.stdout)["suppressed"]
    assert (kept["rule"], kept["reason"]) == ("SW002", "the registry forbids moving tags")


def test_a_comment_without_a_reason_suppresses_nothing_and_is_a_finding(lint):
    result = lint(PACKAGE.replace(IMAGE, f"{IMAGE}  # lint: ignore SW002"), "--format", "json")
    assert findings(result) == [(IMAGE_LINE, "SW002"), (IMAGE_LINE, "SW098"), (TASK_LINE, "SW004")]


def test_a_comment_suppresses_its_own_line_only(lint):
    text = PACKAGE.replace(IMAGE, f"{IMAGE}  # lint: ignore SW004 - it may run once")
    assert findings(lint(text, "--format", "json")) == [
        (IMAGE_LINE, "SW002"),
        (IMAGE_LINE, "SW099"),
        (TASK_LINE, "SW004"),
    ]


def test_a_comment_that_suppresses_nothing_or_names_no_rule_is_a_finding(lint):
    text = PACKAGE.replace(TASK, "      send:  # lint: ignore SW004, SW005, SW777 - it may run once\n")
    assert findings(lint(text, "--format", "json")) == [
        (IMAGE_LINE, "SW002"),
        (TASK_LINE, "SW098"),
        (TASK_LINE, "SW099"),
    ]


CONFIG = """\
[[tool.sluiceway.lint.ignore]]
rule = "SW004"
package = "sending"
on = ["fetch", "sen*"]
reason = "it may run once"

[[tool.sluiceway.lint.ignore]]
rule = "SW005"
package = "sending"
reason = "it has an end of its own"

[[tool.sluiceway.lint.ignore]]
rule = "SW005"
package = "another"
reason = "not looked at today"
"""


def test_pyproject_suppresses_what_is_compiled_anew_and_what_it_no_longer_suppresses_is_a_finding(lint, tmp_path):
    (tmp_path / "pyproject.toml").write_text(CONFIG)
    result = lint(PACKAGE, "--format", "json")
    assert findings(result) == [(IMAGE_LINE, "SW002"), (7, "SW099")]
    assert json.loads(result.stdout)["findings"][1]["file"] == "pyproject.toml"


def test_a_mistake_in_pyproject_is_named(lint, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[[tool.sluiceway.lint.ignore]]\nrule = "SW004"\n')
    result = lint()
    assert result.exit_code == 1
    assert "lint.ignore.0.package" in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2\n", "is not YAML at line 2"),
        ("", "is not a KFP package"),
        ("name: x\n", "is not a KFP package"),
        ("- 1\n", "is not a KFP package"),
        ("kind: Workflow\napiVersion: argoproj.io/v1alpha1\n", "as KFP 1 wrote them"),
        ("pipelineInfo: &a\n  x: *a\n", "refers to what it is a part of"),
        (PACKAGE.partition("root:")[0], "is not whole: it has no root"),
        (PACKAGE.partition("schemaVersion")[0], "is not whole: it has no schemaVersion"),
        (PACKAGE[:-8], "ends in the middle of a line"),
        (PACKAGE.replace("  comp-send:", "  comp-other:"), "runs comp-send, which is not there"),
        (
            PACKAGE.replace("    exec-send:\n      container", "    exec-x:\n      container"),
            "runs exec-send, which is",
        ),
        (PACKAGE.replace("2.1.0", "3.0.0"), "has schemaVersion 3.0.0"),
        ("\x00\n", "is not YAML"),
        ("pipelineInfo: " + "[" * 2000 + "\n", "is not YAML"),
    ],
)
def test_what_is_no_whole_package_is_refused_in_a_sentence(lint, text, words):
    result = lint(text)
    assert result.exit_code == 2
    assert "package.yaml" in result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_what_cannot_be_read_is_refused_in_a_sentence(lint, tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("none.yaml", "There is no package"),
        ("empty", "There is no package"),
        ("binary.yaml", "not text"),
    ):
        result = CliRunner().invoke(app, ["lint", name])
        assert (result.exit_code, words in result.stderr) == (2, True), result.stderr


def test_rules_teach():
    listed = CliRunner().invoke(app, ["lint", "--rules"])
    assert "SW003 resources" in listed.stdout
    explained = CliRunner().invoke(app, ["lint", "--explain", "sw006"])
    assert "backoff_max_duration" in explained.stdout
    assert CliRunner().invoke(app, ["lint", "--explain", "SW777"]).exit_code == 2
