"""Faults on purpose: read from the environment, applied to predictions only."""

import asyncio
import time

import pytest

from components.errors import BadInput
from serving.faults import Faults, FaultyApp, from_environment


def statuses(faults, count, path="/v1/models/m:predict", method="POST"):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def run():
        faulty, seen = FaultyApp(app, faults), []

        async def send(message):
            if message["type"] == "http.response.start":
                seen.append(message["status"])

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        for _ in range(count):
            await faulty({"type": "http", "method": method, "path": path}, receive, send)
        return seen

    return asyncio.run(run())


def test_nothing_is_injected_unless_asked_for(monkeypatch):
    monkeypatch.delenv("SLUICEWAY_FAULTS", raising=False)
    assert from_environment() is None


def test_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("SLUICEWAY_FAULTS", "errors=0.3, delay_ms=400,after_requests=300")
    assert from_environment() == Faults(errors=0.3, delay_ms=400, after_requests=300)


@pytest.mark.parametrize("text", ["errors=2", "delay=3", "errors", "errors=x", "delay_ms=-1"])
def test_what_does_not_read_is_refused(monkeypatch, text):
    monkeypatch.setenv("SLUICEWAY_FAULTS", text)
    with pytest.raises(BadInput, match="SLUICEWAY_FAULTS"):
        from_environment()


def test_errors_begin_after_the_given_number_of_predictions():
    assert statuses(Faults(errors=1.0, after_requests=3), 6) == [200, 200, 200, 500, 500, 500]


def test_a_share_of_predictions_fails_the_same_way_each_time():
    first = statuses(Faults(errors=0.3), 1000)
    assert first == statuses(Faults(errors=0.3), 1000)
    assert 250 < first.count(500) < 350


@pytest.mark.parametrize(
    ("path", "method"), [("/v2/models/m/ready", "GET"), ("/metrics", "GET"), ("/v1/models", "GET")]
)
def test_readiness_and_metrics_are_left_alone(path, method):
    assert statuses(Faults(errors=1.0), 2, path, method) == [200, 200]


def test_predictions_of_both_protocols_are_delayed():
    began = time.monotonic()
    statuses(Faults(delay_ms=50), 1)
    statuses(Faults(delay_ms=50), 1, "/v2/models/m/infer")
    assert time.monotonic() - began >= 0.1
