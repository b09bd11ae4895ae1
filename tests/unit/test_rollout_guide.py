"""docs/rollout.md: its examples are plans, loads and deployments that are accepted, and its commands are there."""

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.rollout.deployment import parse_deployment
from components.rollout.plan import RolloutPlan, Slo, parse_plan
from components.stage.load import parse_load
from pipelines.cli import app

GUIDE = Path(__file__).parents[2] / "docs" / "rollout.md"
TEXT = GUIDE.read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.S)]
PARSERS = {"steps": parse_plan, "requests_per_second": parse_load, "where": parse_deployment}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: next(iter(example)))
def test_an_example_is_accepted(example):
    PARSERS[next(iter(example))](example)


def test_every_mechanism_and_kind_of_parameter_has_an_example():
    assert {next(iter(example)) for example in EXAMPLES} == set(PARSERS)
    assert {example["where"] for example in EXAMPLES if "where" in example} == {"knative", "standard", "two-services"}


def test_the_defaults_that_it_states_are_those_of_the_plan():
    plan = next(example for example in EXAMPLES if "steps" in example)
    for name in ("max_total_seconds", "max_down_seconds"):
        assert plan[name] == RolloutPlan.model_fields[name].default
    for name in ("error_rate_margin", "latency_ratio", "latency_slack_ms", "restarts", "false_rollback_rate"):
        assert plan["slo"][name] == Slo.model_fields[name].default


def test_every_command_that_it_names_exists():
    commands = set(re.findall(r"^sluiceway rollout (\w+)", TEXT, re.M))
    assert commands == {"status", "pause", "resume", "abort", "promote", "history", "report"}
    for command in commands:
        assert CliRunner().invoke(app, ["rollout", command, "--help"]).exit_code == 0
