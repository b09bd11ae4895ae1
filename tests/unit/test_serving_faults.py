"""Faults on purpose: read from the environment, applied to predictions only."""

import asyncio
import time

import pytest

from components.errors import BadInput
from serving.faults import Faults, Injected, Injector, from_environment


def statuses(faults, count):
    async def run():
        injector, seen = Injector(faults), []
        for _ in range(count):
            try:
                await injector.strike()
            except Injected:
                seen.append(500)
            else:
                seen.append(200)
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


def test_predictions_are_delayed():
    began = time.monotonic()
    statuses(Faults(delay_ms=50), 2)
    assert time.monotonic() - began >= 0.1
