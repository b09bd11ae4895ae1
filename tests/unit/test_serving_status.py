"""The status: conditions from what the supervisor sees."""

from dataclasses import replace

import pytest

from serving.local.revisions import Memory
from serving.local.servers import Server
from serving.local.status import Finding, View, render, stopped

ONE, TWO = "s-predictor-00001", "s-predictor-00002"


def server(tmp_path, revision, ready=True, failure=""):
    made = Server("s", revision, {"model": {"storageUri": "/b"}}, tmp_path / "log")
    made.ready = made.was_ready = ready
    made.failure = failure
    return made


@pytest.fixture
def view(tmp_path):
    """A canary with a tenth of the traffic, all well."""
    return View(
        generation=3,
        memory=Memory(port=8080, created=TWO, ready=TWO, rolledout=ONE),
        goal={ONE: 90, TWO: 10},
        in_force={ONE: 90, TWO: 10},
        servers={ONE: server(tmp_path, ONE), TWO: server(tmp_path, TWO)},
        unhealthy=frozenset(),
        ingress=Finding("True"),
        local={"supervisor": {"pid": 1}, "envoy": {"pid": 2, "admin": None}},
    )


def condition(status, kind="Ready"):
    found = next(c for c in status["conditions"] if c["type"] == kind)
    return found["status"], found.get("reason", "")


def test_all_well_is_ready(view):
    assert condition(render(view, {})) == ("True", "")


def test_a_split_that_envoy_has_not_confirmed_is_on_the_way(view):
    shifting = render(replace(view, in_force={ONE: 100}), {})
    assert condition(shifting) == ("Unknown", "TrafficShifting")
    assert condition(shifting, "PredictorReady") == ("True", "")


def test_a_server_that_failed_before_it_was_ready_is_a_failed_revision(view, tmp_path):
    failed = {**view.servers, TWO: server(tmp_path, TWO, ready=False, failure="it exited with code 1: no")}
    status = render(replace(view, servers=failed), {})
    assert condition(status) == ("False", "RevisionFailed")
    assert status["modelStatus"]["lastFailureInfo"]["message"] == "it exited with code 1: no"


def test_a_server_that_hangs_is_not_ready(view):
    assert condition(render(replace(view, unhealthy=frozenset({ONE})), {})) == ("False", "ServerUnhealthy")


def test_the_time_of_a_condition_moves_only_with_its_status(view):
    before = render(view, {})
    for entry in before["conditions"]:
        entry["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    after = render(replace(view, unhealthy=frozenset({ONE})), before)
    times = {entry["type"]: entry["lastTransitionTime"] for entry in after["conditions"]}
    assert times["IngressReady"] == "2020-01-01T00:00:00Z"
    assert times["Ready"] > "2026"


def test_a_stopped_service_claims_nothing(view):
    status = stopped(render(view, {}), "stopped")
    assert condition(status) == ("False", "Stopped")
    assert status["local"]["servers"] == []
