"""The story in four acts, as `make demo` plays it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from pipelines import demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
CLIENT_REQUESTS = 2000


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Every act, played once."""
    home = tmp_path_factory.mktemp("home")
    before = os.environ.get("SLUICEWAY_HOME")
    os.environ["SLUICEWAY_HOME"] = str(home)
    try:
        yield demo.play_all(Console(width=200), CLIENT_REQUESTS)
    finally:
        os.environ.pop("SLUICEWAY_HOME")
        if before is not None:
            os.environ["SLUICEWAY_HOME"] = before


def test_the_first_champion_goes_straight_to_100_percent(played):
    first = played[0]
    assert (first.result.state, first.champion_version) == ("promoted", "1")
    assert [entry["percent"] for entry in first.result.traffic] == [100]


def test_a_better_challenger_is_promoted_without_a_failed_request(played):
    second = played[1]
    assert (second.result.state, second.champion_version) == ("promoted", "2")
    assert second.requests >= CLIENT_REQUESTS
    assert second.failures == ()


def test_the_measured_split_is_within_the_binomial_interval_of_each_weight(played):
    splits = played[1].splits
    assert [split.weight for split in splits] == [10, 50, 100]
    assert all(split.requests >= 50 for split in splits)
    # A fair split misses a 99 % interval once in a hundred times: one step may, if it is still within 99.99 %.
    missed = [split for split in splits if not split.holds()]
    assert len(missed) <= 1
    assert all(split.holds(confidence=0.9999) for split in missed), missed


def test_corrupted_labels_are_stopped_at_the_gate_with_reasons(played):
    third = played[2]
    assert (third.result.state, third.result.exit_code, third.champion_version) == ("blocked", 3, "2")
    failed = [check for check in third.result.decision["checks"] if not check["passed"]]
    assert failed
    assert all(check["reason"] for check in failed)
    assert third.result.model_version == ""


@pytest.mark.parametrize(("act", "signal"), [(3, "failed"), (4, "p95")])
def test_a_challenger_that_fails_live_is_rolled_back(played, act, signal):
    last = played[act]
    assert (last.result.state, last.result.exit_code, last.champion_version) == ("rolled_back", 4, "2")
    assert [entry["percent"] for entry in last.result.traffic if entry["percent"]] == [100]
    assert signal in last.result.steps["rollout"].fact


def test_every_report_is_one_page_that_needs_no_network(played):
    for one in played:
        text = Path(one.result.report).read_text()
        assert "http-equiv" not in text
        for loader in ("<script", "<link", "<img", "@import", "url("):
            assert loader not in text, loader
        for heading in ("The road", "The gate's decision", "Parameters"):
            assert heading in text
    assert "The canary" in Path(played[1].result.report).read_text()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium is installed")
def test_chromium_draws_the_canary_of_the_second_act(played, tmp_path):
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-sync",
    ]
    page = Path(played[1].result.report).as_uri()
    drawn = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path}", "--dump-dom", page],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert drawn.count("<polyline") >= 5
    for label in ("10 %", "50 %", "100 %", "promoted"):
        assert f">{label}</text>" in drawn
