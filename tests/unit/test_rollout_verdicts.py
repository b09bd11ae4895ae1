"""Verdicts on given counts: what is not known is not health, and nothing but the counts matters."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.rollout.evidence import Arm, Context, Observation, Worse
from components.rollout.judge import Finding, judge
from components.rollout.plan import Business, RolloutPlan, Slo
from components.rollout.shift import offline_counts
from components.rollout.traffic import Rows
from tests.bench.judge_traffic import BINS, EDGES, Version

PLAN = RolloutPlan()
TEN = Context(10)
NAMES = tuple(str(edge) for edge in BINS)


def arm(requests, errors=0, version=None, **more):
    """Counts just as expected of a version."""
    version = version or Version()
    latency = dict(zip(EDGES, np.round(requests * np.cumsum(version.slow())).tolist(), strict=True))
    predictions = dict(zip(NAMES, (requests * version.predicted()).tolist(), strict=True))
    return Arm(**{"requests": requests, "errors": errors, "latency": latency, "predictions": predictions} | more)


def both(canary, stable=None, **more):
    return Observation(stable or arm(18_000, 180), canary, **more)


def signal(verdict, name):
    return next(check for check in verdict.checks if check.signal == name)


def share(ends, finding):
    return sum(end.finding is finding for end in ends) / len(ends)


@pytest.mark.parametrize(
    ("canary", "stable"),
    [
        (Arm(), arm(18_000)),
        (arm(2000), Arm()),
        (arm(2000, latency={}), arm(18_000)),
        (arm(2000), arm(18_000, latency={})),
        (arm(2000, latency=dict.fromkeys(EDGES, 0.0)), arm(18_000)),
        (arm(2000, latency={3.0: 500.0, 7.0: 2000.0}), arm(18_000)),
        (arm(2000, latency=dict.fromkeys(EDGES, math.nan)), arm(18_000)),
        (arm(2000, predictions={}), arm(18_000)),
        (arm(2000, predictions=dict.fromkeys(NAMES, 0.0)), arm(18_000)),
        (arm(2000, predictions=dict.fromkeys(NAMES, math.nan)), arm(18_000)),
        (arm(2000, predictions={"yes": 900.0, "no": 1100.0}), arm(18_000)),
    ],
    ids=[
        "no challenger",
        "no champion",
        "no latency",
        "no latency of the champion",
        "latency of nothing",
        "other edges",
        "latency not a number",
        "predictions missing",
        "predictions of nothing",
        "predictions not a number",
        "labels against bins",
    ],
)
def test_what_is_missing_is_unclear_and_never_health(canary, stable):
    assert judge(Observation(canary=canary, stable=stable), PLAN, TEN).finding is Finding.UNCLEAR


def test_both_versions_as_expected_are_health():
    verdict = judge(both(arm(2000, 20)), PLAN, TEN)
    assert (verdict.finding, verdict.reason) == (Finding.OK, "no harm in 2,000 requests")


def test_too_few_requests_are_unclear_and_the_reason_counts_them():
    verdict = judge(both(arm(2000)), RolloutPlan(min_requests=2001), TEN)
    assert (verdict.finding, verdict.reason) == (Finding.UNCLEAR, "2,000 of 2,001 requests so far")


@pytest.mark.parametrize(
    ("canary", "stable", "harm"), [(2, 0, True), (1, 0, False), (3, 2, False), (5, 3, True), (0, 4, False)]
)
def test_restarts_beyond_the_champions_are_counted(canary, stable, harm):
    seen = both(arm(2000, 20, restarts=canary), arm(18_000, 180, restarts=stable))
    verdict = judge(seen, PLAN, TEN)
    assert (verdict.finding is Finding.HARM) == harm
    assert f"restarted {canary} times" in signal(verdict, "restarts").reason


def test_shadow_requests_that_nobody_answered_are_unclear():
    verdict = judge(both(arm(2000, 20)), RolloutPlan(shadow_per_second=1), TEN)
    assert verdict.finding is Finding.UNCLEAR
    assert "mismatches" in verdict.reason


def test_the_business_metric_is_harm_when_proved_health_when_shown_and_else_unclear():
    slo = Slo(business=Business(query='x{revision="{revision}"}', lowest=0, highest=10, margin=0.5))
    plan = RolloutPlan(slo=slo)

    def found(windows, loss):
        check = signal(judge(both(arm(2000, 20), business=Worse(windows, windows * loss)), plan, TEN), "business")
        return check.finding

    assert found(0, 0.0) is Finding.UNCLEAR
    assert found(2, 0.0) is Finding.UNCLEAR
    assert found(500, 0.0) is Finding.OK
    assert found(500, -0.5) is Finding.OK
    assert found(500, 0.3) is Finding.HARM
    assert found(500, 0.07) is Finding.UNCLEAR


def test_the_evidence_in_a_check_is_what_decided():
    verdict = judge(both(arm(400, 24)), PLAN, TEN)
    check = signal(verdict, "errors")
    assert check.evidence >= check.decides == pytest.approx(math.log10(4 / 0.01))
    assert check.limit < check.bound < 0.05
    assert verdict.reason == check.reason
    assert "6.0% of the challenger's, 1.0% of the champion's" in check.reason


@settings(max_examples=5, deadline=None)
@given(st.permutations([(100, 1), (500, 40), (2000, 20), (0, 0), (4000, 39), (900, 30)]))
def test_a_verdict_depends_on_the_counts_alone_and_not_on_the_looks_before(looks):
    found = {look: repr(judge(both(arm(*look)), PLAN, TEN)) for look in looks}
    assert found == {look: repr(judge(both(arm(*look)), PLAN, TEN)) for look in reversed(looks)}
    assert found == FIRST


FIRST = {
    look: repr(judge(both(arm(*look)), PLAN, TEN))
    for look in ((100, 1), (500, 40), (2000, 20), (0, 0), (4000, 39), (900, 30))
}


@pytest.mark.parametrize("weight", [10, 100])
def test_a_thousand_million_requests_are_judged_as_any_others(weight):
    def found(canary, stable):
        with np.errstate(all="raise", under="ignore"):
            seen = Observation(arm(stable[0], stable[1]) if weight < 100 else Arm(), arm(*canary))
            return judge(seen, PLAN, Context(weight, arm(*stable)))

    many = 10**9
    assert found((many, many // 100), (9 * many, 9 * many // 100)).finding is Finding.OK
    assert found((many, many), (9 * many, 9 * many)).finding is Finding.OK
    assert found((many, many), (9 * many, 0)).finding is Finding.HARM
    assert found((many, 0), (9 * many, 9 * many)).finding is Finding.OK
    assert all(math.isfinite(check.evidence) for check in found((many, many), (9 * many, 0)).checks)


def test_without_the_champions_offline_predictions_nothing_is_expected():
    rows = Rows(({},), ((0.1, 0.9),))
    assert offline_counts(rows, {"0.5": 1.0, "inf": 1.0}) == ({}, {})
