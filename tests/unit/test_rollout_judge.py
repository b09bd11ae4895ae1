"""The judge on counts and on simulated traffic: it finds harm, and it does not find what is not there."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.rollout.evidence import Arm, Context, Observation, Worse
from components.rollout.judge import Finding, judge
from components.rollout.plan import Business, RolloutPlan, Slo
from components.rollout.shift import count_values, offline_counts
from components.rollout.traffic import Rows
from tests.bench.judge import rollouts
from tests.bench.judge_traffic import BINS, EDGES, Replayed, Version, World

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


# Whole rollouts, judged after every scrape


@pytest.mark.parametrize("world", [World(), World(bursts=True)], ids=["steady", "bursts"])
def test_equal_versions_are_promoted_and_seldom_rolled_back(world):
    ends = rollouts(world, 30, seed=1)
    assert share(ends, Finding.HARM) <= 1 / 30
    assert share(ends, Finding.OK) >= 0.9


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (Version(errors=0.05), "errors"),
        (Version(median_ms=160), "latency"),
        (Version(tail=2.0), "latency"),
        (Version(mean=0.55), "predictions"),
    ],
    ids=["errors 1 to 5 %", "latency doubled", "p99 doubled", "predictions shifted"],
)
def test_harm_is_found_and_its_signal_named(version, name):
    ends = rollouts(World(canary=version), 20, seed=2)
    assert share(ends, Finding.HARM) >= 0.95
    assert {found for end in ends for found in end.signals} == {name}


def test_models_that_differ_live_as_they_did_offline_are_not_rolled_back():
    index = [stability(*Replayed.draw(np.random.default_rng(seed), 90).offline()) for seed in range(9)]
    assert np.median(index) > 0.5  # by the usual rule, 0.25 is an alarm
    ends = rollouts(World(requests=50, rows=90), 20, seed=3)
    assert share(ends, Finding.HARM) <= 0.05


def test_the_same_models_would_be_harm_had_they_agreed_offline():
    stable, canary = Replayed.draw(np.random.default_rng(7), 90).offline()
    ours, theirs = ({bin_: times * n for bin_, n in counts.items()} for times, counts in ((300, stable), (30, canary)))
    seen = both(arm(2700, 27, predictions=theirs), arm(27_000, 270, predictions=ours))
    assert judge(seen, PLAN, Context(10, Arm(), stable, canary)).finding is Finding.OK
    assert judge(seen, PLAN, Context(10, Arm(), stable, stable)).finding is Finding.HARM


def stability(stable, canary):
    """The usual index: sum of the differences of the shares times the logarithm of their ratio."""
    s, c = (np.array([*counts.values()]) + 0.5 for counts in (stable, canary))
    s, c = s / s.sum(), c / c.sum()
    return float(((c - s) * np.log(c / s)).sum())


# What is not known is not health


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


def test_requests_that_could_not_have_shown_harm_are_unclear():
    verdict = judge(both(arm(40), arm(360)), RolloutPlan(min_requests=20), TEN)
    assert verdict.finding is Finding.UNCLEAR
    assert "can show harm" in verdict.reason


def test_more_than_the_margin_but_unproved_does_not_advance():
    verdict = judge(both(arm(1000, 23)), PLAN, TEN)
    assert verdict.finding is Finding.UNCLEAR
    assert "2.3%" in verdict.reason
    assert "not proved" in verdict.reason


def test_a_service_that_counts_no_predictions_is_judged_on_the_rest():
    seen = both(arm(2000, 20, predictions={}), arm(18_000, 180, predictions={}))
    assert judge(seen, PLAN, TEN).finding is Finding.OK


# First deployment, and the last step


def test_a_first_deployment_is_held_against_the_margins_themselves():
    def found(errors, **more):
        return judge(Observation(canary=arm(2000, errors, **more)), PLAN, Context(100)).finding

    assert found(0) is Finding.OK
    assert found(30) is Finding.UNCLEAR
    assert found(100) is Finding.HARM
    assert found(0, restarts=2) is Finding.HARM
    assert found(0, compared=500, mismatched=100) is Finding.HARM


def test_with_all_traffic_the_challenger_is_compared_with_the_champion_before_the_step():
    before = Context(100, arm(18_000, 900))
    assert judge(Observation(canary=arm(4000, 200)), PLAN, before).finding is Finding.OK
    assert judge(Observation(canary=arm(4000, 1200)), PLAN, before).finding is Finding.HARM
    assert judge(Observation(canary=arm(4000, 200)), PLAN, Context(100)).finding is Finding.HARM


def test_a_short_burst_proves_nothing_against_a_champion_of_another_time():
    before = Context(100, arm(18_000, 180))
    burst = arm(400, 24)
    assert judge(both(burst), PLAN, TEN).finding is Finding.HARM
    assert judge(Observation(canary=burst), PLAN, before).finding is Finding.UNCLEAR


# Signals of their own


@pytest.mark.parametrize(
    ("canary", "stable", "harm"), [(2, 0, True), (1, 0, False), (3, 2, False), (5, 3, True), (0, 4, False)]
)
def test_restarts_beyond_the_champions_are_counted(canary, stable, harm):
    seen = both(arm(2000, 20, restarts=canary), arm(18_000, 180, restarts=stable))
    verdict = judge(seen, PLAN, TEN)
    assert (verdict.finding is Finding.HARM) == harm
    assert f"restarted {canary} times" in signal(verdict, "restarts").reason


def test_answers_unlike_the_offline_predictions_are_harm_unless_the_champions_are_so_too():
    ours = arm(18_000, 180, compared=500)
    assert judge(both(arm(2000, 20, compared=500, mismatched=60), ours), PLAN, TEN).finding is Finding.HARM
    assert judge(both(arm(2000, 20, compared=500), ours), PLAN, TEN).finding is Finding.OK
    alike = both(arm(2000, 20, compared=500, mismatched=60), replace(ours, mismatched=60))
    assert signal(judge(alike, PLAN, TEN), "mismatches").finding is not Finding.HARM


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


# For all counts


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 5000),
    failed=st.floats(0, 1),
    more=st.floats(0, 1),
    stable=st.integers(0, 20_000),
    stable_failed=st.floats(0, 0.3),
    weight=st.sampled_from([10, 50, 100]),
)
def test_more_failures_of_the_challenger_never_make_harm_into_health(n, failed, more, stable, stable_failed, weight):
    errors = math.floor(n * failed)
    seen = [
        Observation(arm(stable, math.floor(stable * stable_failed)), arm(n, count))
        for count in (errors, errors + math.floor((n - errors) * more))
    ]
    before, after = (judge(one, PLAN, Context(weight)).finding for one in seen)
    order = [Finding.OK, Finding.UNCLEAR, Finding.HARM]
    assert order.index(after) >= order.index(before)


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


# Predictions as the live metric counts them


def test_offline_predictions_are_counted_in_the_bins_of_each_versions_metric():
    rows = Rows(({},) * 3, ((0.9, 0.1), (0.2, 0.8), (0.6, 0.4)), ((0.5, 0.5), (0.4, 0.6), (0.7, 0.3)))
    stable, canary = offline_counts(rows, {"0.5": 7.0, "inf": 3.0}, {"0.2": 1.0, "0.5": 1.0, "inf": 1.0})
    assert stable == {"0.5": 2.0, "inf": 1.0}
    assert canary == {"0.2": 1.0, "0.5": 1.0, "inf": 1.0}


def test_offline_predictions_of_classes_are_counted_by_the_most_likely_label():
    rows = Rows(({},) * 2, ((0.1, 0.7, 0.2), (0.1, 0.2, 0.7)), ((0.8, 0.1, 0.1), (0.1, 0.2, 0.7)))
    stable, canary = offline_counts(rows, {"2": 1.0, "10": 1.0, "1": 5.0})
    assert stable == {"1": 1.0, "2": 0.0, "10": 1.0}
    assert canary == {"1": 0.0, "2": 1.0, "10": 1.0}


def test_without_the_champions_offline_predictions_nothing_is_expected():
    rows = Rows(({},), ((0.1, 0.9),))
    assert offline_counts(rows, {"0.5": 1.0, "inf": 1.0}) == ({}, {})


def test_other_bin_edges_are_brought_to_the_champions():
    rng = np.random.default_rng(6)
    here, there = [60, 90, 110, 130, 150, 170, 190, 220], [65, 95, 118, 133, 149, 166, 188, 215]
    stable = arm(9000, 90, predictions=count_values(rng.normal(150, 50, 9000), here))
    same = arm(1000, 10, predictions=count_values(rng.normal(150, 50, 1000), there))
    moved = arm(1000, 10, predictions=count_values(rng.normal(200, 50, 1000), there))
    assert signal(judge(both(same, stable), PLAN, TEN), "predictions").finding is Finding.OK
    assert signal(judge(both(moved, stable), PLAN, TEN), "predictions").finding is Finding.HARM
