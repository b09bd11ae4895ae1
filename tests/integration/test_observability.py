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
POD = {"namespace": "models", "pod": "ours-predictor-00001-deployment-6f7d8c9b4-x2k9p"}
SERVER = {**POD, "container": "kserve-container", "uid": "1"}
STEP = {"namespace": "kubeflow", "pod": "train-and-deploy-x7k2p-1"}
POSTGRES = {"namespace": "mlflow", "persistentvolumeclaim": "data-mlflow-postgresql-0"}
GPU = {"gpu": "0", "UUID": "GPU-1", "device": "nvidia0", "modelName": "NVIDIA L4", "Hostname": "node-1"}
QUOTA = {"namespace": "models", "resourcequota": "sluiceway", "resource": "requests.cpu"}
ENDED = {"step": "rollout", "event": "finished", "kind": "", "service": "ours", "outcome": "rolled_back"}
FAILED = {"step": "ingest", "event": "failed", "kind": "BadInput", "service": "", "outcome": ""}
NO_REAL_DATA = {
    "kube-state-metrics": [
        ("kube_pod_container_status_ready", 1, SERVER),
        ("kube_pod_container_status_restarts_total", 4, SERVER),
        ("kube_pod_container_status_restarts_total", 0, {**STEP, "container": "main"}),
        ("kube_pod_container_status_waiting_reason", 1, {**SERVER, "reason": "CrashLoopBackOff"}),
        ("kube_pod_container_status_terminated_reason", 1, {**STEP, "container": "main", "reason": "OOMKilled"}),
        ("kube_pod_container_status_last_terminated_reason", 1, {**SERVER, "reason": "OOMKilled"}),
        ("kube_pod_container_resource_limits", 2e9, {**SERVER, "resource": "memory", "unit": "byte"}),
        ("kube_pod_status_phase", 1, {**STEP, "phase": "Pending"}),
        ("kube_pod_owner", 1, {**STEP, "owner_kind": "Workflow", "owner_name": "train-and-deploy-x7k2p"}),
        ("kube_deployment_status_replicas_available", 2, {"namespace": "mlflow", "deployment": "mlflow"}),
        ("kube_deployment_status_replicas_available", 1, {"namespace": "models", "deployment": "ours-predictor"}),
        ("kube_deployment_status_replicas_available", 1, {"namespace": "kubeflow", "deployment": "ml-pipeline"}),
        ("kube_deployment_spec_replicas", 2, {"namespace": "mlflow", "deployment": "mlflow"}),
        ("kube_statefulset_status_replicas_ready", 1, {"namespace": "mlflow", "statefulset": "mlflow-postgresql"}),
        ("kube_statefulset_replicas", 1, {"namespace": "mlflow", "statefulset": "mlflow-postgresql"}),
        ("kube_resourcequota", 95, {**QUOTA, "type": "used"}),
        ("kube_resourcequota", 100, {**QUOTA, "type": "hard"}),
    ],
    "the kubelet": [
        ("kubelet_volume_stats_available_bytes", 4e9, POSTGRES),
        ("kubelet_volume_stats_capacity_bytes", 5e9, POSTGRES),
    ],
    "KFP's API server": [
        ("resource_manager_workflow_runs_failed", 1, {"profile": "kubeflow", "workflow": "train-and-deploy-x7k2p"}),
        ("resource_manager_workflow_runs_success", 1, {"profile": "kubeflow", "workflow": "train-and-deploy-b3m9q"}),
    ],
    "Argo's controller": [
        ("argo_workflows_gauge", 1, {"phase": "Running"}),
        ("argo_workflows_count", 1, {"status": "Running"}),
    ],
    "NVIDIA's DCGM exporter": [
        ("DCGM_FI_DEV_GPU_UTIL", 2, {**GPU, **STEP, "container": "main"}),
        ("DCGM_FI_DEV_FB_USED", 4000, {**GPU, **STEP, "container": "main"}),
        ("DCGM_FI_DEV_FB_FREE", 19000, {**GPU, **STEP, "container": "main"}),
        ("DCGM_FI_DEV_POWER_USAGE", 40, {**GPU, **STEP, "container": "main"}),
    ],
    "cert-manager": [
        ("certmanager_certificate_expiration_timestamp_seconds", 2e9, {"namespace": "mlflow", "name": "mlflow-tls"}),
    ],
    # tests/integration/test_observability_logs.py compares them with a real one's, where there is one.
    "Fluent Bit": [
        ("sluiceway_step_events_total", 1, {"namespace": "kubeflow", **ENDED}),
        ("sluiceway_step_events_total", 1, {"namespace": "kubeflow", **FAILED}),
        ("sluiceway_step_seconds_bucket", 1, {"le": "60.0", "namespace": "kubeflow", "step": "rollout"}),
        ("sluiceway_step_seconds_bucket", 1, {"le": "+Inf", "namespace": "kubeflow", "step": "rollout"}),
        ("fluentbit_output_proc_records_total", 5, {"name": "logs"}),
        ("fluentbit_output_dropped_records_total", 0, {"name": "logs"}),
        ("fluentbit_output_retries_total", 0, {"name": "logs"}),
    ],
}
"""By exporter: metric, value and labels, as pods are scraped where labels are honoured (manifests/monitoring)."""


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
