"""Every alert fires when it should and is silent when not, by promtool; and says what to do."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.prometheus import promtool

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "manifests/monitoring/rules").glob("*.yaml"))
CASES = {
    alert: cases
    for file in sorted((ROOT / "tests/alerts").glob("*.yaml"))
    for alert, cases in yaml.safe_load(file.read_text()).items()
}
GROUPS = [group for file in RULES for group in yaml.safe_load(file.read_text())["spec"]["groups"]]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"]: rule for group in GROUPS for rule in group["rules"] if "record" in rule}
RUNBOOKS = ROOT / "docs/monitoring.md"


def test_every_alert_has_a_case_when_it_fires_and_one_when_it_is_silent():
    assert set(CASES) == set(ALERTS)
    for alert, cases in CASES.items():
        assert any(case["fires"] for case in cases), f"{alert} never fires"
        assert any(not case["fires"] for case in cases), f"{alert} is never silent"


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_when_it_should_and_is_silent_when_not(alert, tmp_path):
    groups = [{"name": alert, "rules": [*recorded_for(ALERTS[alert]["expr"]), without_annotations(ALERTS[alert])]}]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    tests = [as_promtool(alert, case) for case in CASES[alert]]
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": tests[0]["interval"], "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    run = subprocess.run([promtool(), "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_prometheus_takes_the_rules(tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": GROUPS}))
    command = [promtool(), "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def as_promtool(alert, case):
    severity = ALERTS[alert]["labels"]["severity"]
    expected = [{"exp_labels": {**labels, "severity": severity}} for labels in case["fires"]]
    return {
        "name": f"{alert}: {case['when']}",
        "interval": case.get("every", "1m"),
        "input_series": [{"series": name, "values": values} for name, values in case["series"].items()],
        "alert_rule_test": [{"alertname": alert, "eval_time": case["at"], "exp_alerts": expected}],
    }


def recorded_for(expression):
    """The recording rules that an alert is made from; all others would take their time too."""
    return [RECORDED[name] for name in dict.fromkeys(re.findall(r"sluiceway:\w+:\w+", expression))]


def without_annotations(rule):
    """The cases are about when an alert fires; that its text can be filled in is another test."""
    return {key: value for key, value in rule.items() if key != "annotations"}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_has_happened_with_labels_that_it_has(alert):
    said = ALERTS[alert]["annotations"]
    used = set(re.findall(r"\$labels\.(\w+)", said["summary"] + said["description"]))
    for case in CASES[alert]:
        for labels in case["fires"]:
            assert used <= set(labels)
    assert ALERTS[alert]["labels"]["severity"] in ("critical", "warning")


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_links_to_a_runbook_that_says_what_to_do(alert):
    page, _, anchor = ALERTS[alert]["annotations"]["runbook_url"].partition("#")
    assert page.endswith("/docs/monitoring.md")
    assert anchor == alert.lower()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", RUNBOOKS.read_text(), flags=re.M | re.S))
    assert "**Do:**" in sections[alert]
    assert "**Means:**" in sections[alert]


def test_no_runbook_is_for_an_alert_that_is_gone():
    assert set(re.findall(r"^### (Sluiceway\w+)$", RUNBOOKS.read_text(), flags=re.M)) == set(ALERTS)
