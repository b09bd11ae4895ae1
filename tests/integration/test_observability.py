"""Every query of every dashboard and rule, against a real Prometheus that has scraped real model servers.

Metrics of programs that do not run here are given with the names and labels that their makers document.
"""

import contextlib
import json
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml

from tests.exported import NO_REAL_DATA
from tests.prometheus import Exporter, Prometheus, eventually
from tests.serving_bundle import write_bundle
from tests.serving_process import Server

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "manifests/monitoring"
RULES = [
    group
    for file in sorted((MONITORING / "rules").glob("*.yaml"))
    for group in yaml.safe_load(file.read_text())["spec"]["groups"]
]
PAGES = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((MONITORING / "dashboards").glob("*.yaml"))}
PANELS = [(page, panel) for page, content in PAGES.items() for row in content["rows"] for panel in row["panels"]]
EXPRESSIONS = [rule["expr"] for group in RULES for rule in group["rules"]]
EXPRESSIONS += [query["expr"] for _, panel in PANELS for query in panel["queries"]]
CHOSEN = {"$service": "ours", "$revision": ".*", "$__rate_interval": "5s", "$__range": "10s"}
NAMESPACE = {"service": "models", "platform": "kubeflow"}
REAL = ("sluiceway_request", "sluiceway_predict", "process_", "up")
"""What the metrics begin with that real programs give here."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A revision of a service that knows two classes, and one that knows three and fails often; both were asked."""
    folder = tmp_path_factory.mktemp("observed")
    prometheus = Prometheus(folder, rules=RULES)
    write_bundle(folder / "two")
    write_bundle(folder / "three", task="multiclass")
    first = Server(folder / "two", "ours-predictor-00001", folder / "first.log")
    second = Server(folder / "three", "ours-predictor-00002", folder / "second.log", "errors=0.5", ["--log=json"])
    with contextlib.ExitStack() as stack:
        for number, server in enumerate([first, second], 1):
            labels = {"namespace": "models", "pod": f"ours-{number}", "job": "monitoring/sluiceway-servers"}
            prometheus.scrape(server.address, **labels)
            stack.callback(server.kill)
            server.start()
        exporter = Exporter()
        stack.callback(exporter.close)
        prometheus.scrape(exporter.address, job="others")
        for metric, value, labels in (entry for entries in NO_REAL_DATA.values() for entry in entries):
            exporter.add(metric, value, **labels)
        stack.callback(prometheus.kill)
        prometheus.start()
        for server in (first, second):
            server.wait()
        for total in (100, 200):  # rates need two scrapes with a difference between them
            first.send(50)
            second.send(50)
            prometheus.shows("sum(sluiceway_requests_total)", total)
        prometheus.shows("count(sluiceway:request_slow:ratio_rate6h)", 1)
        yield SimpleNamespace(prometheus=prometheus, second=second, log=folder / "second.log")


def on(page, query):
    """A dashboard's query with its variables filled in."""
    for name, value in {"$namespace": NAMESPACE[page], **CHOSEN}.items():
        query = query.replace(name, value)
    return query


def metrics(expression):
    """The metrics of an expression, each with its matchers."""
    names = r"\b((?:sluiceway|kube|kubelet|resource_manager|argo|DCGM|certmanager|fluentbit|process)[_:]\w[\w:]*|up)\b"
    return re.findall(names + r"(?!\s*\()(\{(?:\"[^\"]*\"|[^\"}])*\})?", expression)


@pytest.mark.parametrize(
    ("page", "panel"), PANELS, ids=lambda value: value if isinstance(value, str) else value["title"]
)
def test_every_query_of_a_panel_gives_series_with_the_labels_of_its_legend(world, page, panel):
    for query in panel["queries"]:
        asked = on(page, query["expr"])
        found = eventually(partial(world.prometheus.series, asked), 5)
        for label in re.findall(r"\{\{(\w+)\}\}", query["legend"]):
            assert all(label in series["metric"] for series in found), f"no {label} in {found[0]['metric']}"


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_of_a_page_has_values_to_choose_from(world, page):
    for variable in PAGES[page]["variables"]:
        found = world.prometheus.series(on(page, variable["series"]))
        assert found
        assert all(variable["label"] in series["metric"] for series in found)


def test_prometheus_evaluates_every_rule(world):
    rules = [rule for group in world.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == sum(len(group["rules"]) for group in RULES)
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}


def test_every_metric_of_a_rule_or_panel_is_there_with_the_labels_that_it_is_selected_by(world):
    given = {metric for entries in NO_REAL_DATA.values() for metric, _, _ in entries}
    for name, matchers in {use for expression in EXPRESSIONS for use in metrics(expression)}:
        if name.startswith("sluiceway:"):
            assert name in {rule.get("record") for group in RULES for rule in group["rules"]}
            continue
        assert name in given or name.startswith(REAL), f"who exports {name}?"
        candidates = [on(page, name + matchers) for page in PAGES]
        assert any(world.prometheus.series(selector) for selector in candidates), f"nothing is {name}{matchers}"


def test_errors_of_real_requests_are_what_the_objective_is_held_against(world):
    failed = world.prometheus.value('sum(sluiceway_requests_total{code="500"})')
    assert 20 < failed < 80
    ratio = world.prometheus.value('sluiceway:request_errors:ratio_rate1h{model_name="ours"}')
    assert ratio == pytest.approx(failed / 200, rel=0.35)  # of what was counted between two scrapes
    states = {alert["labels"]["alertname"]: alert for alert in world.prometheus.ask("alerts")["alerts"]}
    assert states["SluicewayErrorBudgetBurns"]["state"] == "pending"  # for a minute
    assert "SluicewayLatencyBudgetBurns" not in states
    assert states["SluicewayRolledBack"]["annotations"]["summary"] == "A challenger of ours was rolled back"


def test_a_server_logs_what_it_refuses_as_json_with_the_request_s_id(world):
    url = f"http://{world.second.address}/v1/models/ours:predict"

    def refused():
        answer = httpx.post(url, json={"instances": [3]}, headers={"x-request-id": "r-77"})
        return answer.status_code == 400  # not one of the failures that are injected

    eventually(refused, 5)
    lines = [json.loads(line) for line in world.log.read_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("request") == "r-77"]
    assert line["level"] == "warning"
    assert line["message"].startswith("400: ")
    assert len(lines) < 10  # and nothing of the requests that it has answered
