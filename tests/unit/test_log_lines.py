"""What the log agent makes of each line: manifests/logging/agent/lines.lua, run by LuaJIT as the agent runs it."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

from components.errors import BadInput
from components.step import step

SCRIPT = Path(__file__).resolve().parents[2] / "manifests/logging/agent/lines.lua"
TAG = "kube.var.log.containers.train-x7k2p_kubeflow_main-" + "0123456789abcdef" * 4 + ".log"
KUBERNETES = {
    "namespace_name": "kubeflow",
    "pod_name": "train-x7k2p",
    "container_name": "main",
    "host": "node-1",
    "labels": {"pipeline/runid": "run-77"},
}
LUA = LuaRuntime(unpack_returned_tuples=True)
LUA.execute(SCRIPT.read_text())


def shipped(text, stream="stdout", kubernetes=KUBERNETES):
    """The record of one line, after the filter that reads JSON."""
    record = {"log": text, "stream": stream, "kubernetes": kubernetes}
    if text.startswith("{"):
        record["said"] = json.loads(text)
    _, _, made = LUA.globals().line(TAG, 0, LUA.table_from(record, recursive=True))
    return plain(made)


def plain(value):
    return {key: plain(part) for key, part in value.items()} if hasattr(value, "items") else value


def said_by_a_step(name, labels):
    said = io.StringIO()
    with redirect_stdout(said), step(name) as current:
        current.progress("half of it", rows=10)
        current.fact = "rolled back: more errors"
        current.labels = labels
    return [shipped(line) for line in said.getvalue().splitlines()]


WHO = {"namespace": "kubeflow", "pod": "train-x7k2p", "container": "main", "node": "node-1", "run": "run-77"}


def test_a_step_s_events_keep_step_run_service_level_and_what_was_said():
    started, progress, finished = said_by_a_step("rollout", {"service": "ours", "outcome": "rolled_back"})
    assert started == {**WHO, "stream": "stdout", "level": "info", "step": "rollout", "event": "started"} | {
        "message": "started"
    }
    assert (progress["event"], progress["message"], progress["rows"]) == ("progress", "half of it", 10)
    assert (finished["event"], finished["message"]) == ("finished", "rolled back: more errors")
    assert (finished["service"], finished["outcome"]) == ("ours", "rolled_back")
    assert finished["seconds"] >= 0


def test_a_step_that_failed_is_an_error_with_its_kind(capsys):
    with pytest.raises(SystemExit), step("ingest") as current:
        current.labels = {"service": "ours"}
        raise BadInput("Column age has text.")
    failed = shipped(capsys.readouterr().out.splitlines()[-1])
    assert (failed["event"], failed["level"], failed["kind"]) == ("failed", "error", "BadInput")
    assert (failed["message"], failed["service"]) == ("Column age has text.", "ours")


def test_the_service_of_a_server_is_its_pod_s_and_not_what_it_says_itself():
    labels = {"serving.kserve.io/inferenceservice": "ours"}
    line = json.dumps({"level": "warning", "message": "400: no", "request": "r-1", "service": "other", "time": 1.5})
    made = shipped(line, "stderr", {**KUBERNETES, "labels": labels})
    assert (made["service"], made["level"], made["request"]) == ("ours", "warning", "r-1")
    assert "time" not in made


def test_who_it_was_is_known_from_the_file_when_kubernetes_does_not_answer():
    made = shipped("hello", kubernetes=None)
    assert made["namespace"] == "kubeflow"
    assert made["pod"] == "train-x7k2p"
    assert made["container"] == "main"


@pytest.mark.parametrize(
    ("text", "stream", "level"),
    [
        ("2026-11-24 19:10:35,123 mlflow WARNING slow", "stderr", "warning"),
        ("2026/11/24 19:10:35 INFO mlflow.tracking: run at http://mlflow", "stderr", "info"),
        ("HTTP 500 ERROR in app", "stdout", "error"),
        ("E1124 19:10:36.1 launcher_v2.go:10] no", "stderr", "error"),
        ("I1124 19:10:36.1 launcher_v2.go:10] ok", "stderr", "info"),
        ("Traceback (most recent call last):", "stderr", "error"),
        ("something", "stderr", "warning"),
        ("something", "stdout", "info"),
    ],
)
def test_a_line_of_text_has_the_level_that_it_names(text, stream, level):
    assert shipped(text, stream)["level"] == level


SECRETS = [
    ("token=s3cr3t-value", "token=***"),
    ('{"password": "s3cr3t-value", "user": "me"}', None),
    ("PGPASSWORD=s3cr3t-value", "PGPASSWORD=***"),
    ("postgresql://mlflow:s3cr3t-value@db:5432/mlflow", "postgresql://mlflow:***@db:5432/mlflow"),
    ("Authorization: Basic s3cr3t-value==", "Authorization: Basic ***"),
    ("with Bearer s3cr3t-value", "with Bearer ***"),
    ("https://hooks.slack.com/services/T1/B2/s3cr3tvalue", "https://hooks.slack.com/services/***"),
    ("AWS_SECRET_ACCESS_KEY: s3cr3t-value", "AWS_SECRET_ACCESS_KEY: ***"),
    ("-----BEGIN EC PRIVATE KEY----- s3cr3t-value", "-----BEGIN EC PRIVATE KEY----- ***"),
    ("eyJhbGciOi.eyJzdWIi-s3cr3t.s3cr3t-value", "***"),
]


@pytest.mark.parametrize(("text", "expected"), SECRETS)
def test_a_secret_does_not_leave_the_node(text, expected):
    made = shipped(text)
    assert "s3cr3t" not in json.dumps(made)
    if expected is not None:
        assert made["message"] == expected
    nested = shipped(json.dumps({"sluiceway": "progress", "step": "x", "message": text, "more": {"api_key": "s3cr3t"}}))
    assert "s3cr3t" not in json.dumps(nested)


def test_what_is_no_secret_stays():
    for text in ("max_tokens=100 at http://mlflow.mlflow:5000/#/experiments/1", "key columns: customerID; secretary"):
        assert shipped(text)["message"] == text


VALUES = st.text(max_size=50) | st.integers(-(2**53), 2**53) | st.booleans()


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=300), st.dictionaries(st.text(max_size=20), VALUES))
def test_no_line_stops_the_agent(text, said):
    if text:
        assert shipped("." + text)["level"]
    made = LUA.globals().line(TAG, 0, LUA.table_from({"log": "{}", "stream": "stdout", "said": said}, recursive=True))
    assert made[0] == 2
