"""The judge on simulated traffic: it finds harm, and it does not find what is not there."""

import math

import numpy as np
import pytest

from components.rollout.evidence import Arm, Observation
from components.rollout.judge import (
    Finding,
    difference_lower_bound,
    judge,
    requests_for_look,
    wilson,
)
from components.rollout.plan import RolloutPlan
from components.rollout.shift import count_values, expected_shift, stability
from components.rollout.traffic import Rows

PLAN = RolloutPlan()
EDGES = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, math.inf)


def arm(rng, requests, error_rate=0.0, latency_ms=8.0, mean=0.5):
    took = rng.lognormal(math.log(latency_ms), 0.4, requests)
    scores = np.clip(rng.normal(mean, 0.15, requests), 0, 0.999)
    bins = np.bincount((scores * 20).astype(int), minlength=20)
    return Arm(
        requests=requests,
        errors=int(rng.binomial(requests, error_rate)),
        latency={edge: float((took <= edge).sum()) for edge in EDGES},
        predictions={f"{i / 20}": float(count) for i, count in enumerate(bins)},
    )


def first_verdict(rng, stable=None, canary=None, looks=6):
    """Judge at each look until something is clear; traffic is 10 % to the challenger."""
    seen = Observation(Arm(), Arm())
    for look in range(1, looks + 1):
        more = requests_for_look(look) - seen.canary.requests
        seen = Observation(
            add(seen.stable, arm(rng, 9 * more, **(stable or {}))), add(seen.canary, arm(rng, more, **(canary or {})))
        )
        verdict = judge(seen, PLAN, look)
        if verdict.finding is not Finding.UNCLEAR:
            return verdict, seen.canary.requests
    return verdict, seen.canary.requests


def add(a, b):
    return Arm(
        a.requests + b.requests,
        a.errors + b.errors,
        {k: a.latency.get(k, 0) + v for k, v in b.latency.items()},
        {k: a.predictions.get(k, 0) + v for k, v in b.predictions.items()},
    )


def test_equal_versions_are_seldom_rolled_back():
    rng = np.random.default_rng(0)
    findings = [first_verdict(rng, {"error_rate": 0.01}, {"error_rate": 0.01})[0].finding for _ in range(400)]
    assert findings.count(Finding.HARM) <= 400 * PLAN.slo.false_rollback_rate + 4
    assert findings.count(Finding.OK) > 300


@pytest.mark.parametrize(
    ("canary", "signal"),
    [
        ({"error_rate": 0.15}, "errors"),
        ({"latency_ms": 120.0}, "latency"),
        ({"mean": 0.75}, "predictions"),
    ],
)
def test_a_worse_challenger_is_found_and_the_reason_names_the_signal(canary, signal):
    rng = np.random.default_rng(1)
    verdicts = [first_verdict(rng, {}, canary)[0] for _ in range(60)]
    assert sum(v.finding is Finding.HARM for v in verdicts) >= 57
    harmful = next(v for v in verdicts if v.finding is Finding.HARM)
    assert [c.signal for c in harmful.checks if c.finding is Finding.HARM] == [signal]
    assert harmful.reason in {c.reason for c in harmful.checks if c.signal == signal}


def test_a_broken_challenger_is_found_at_the_first_look():
    verdict, requests = first_verdict(np.random.default_rng(2), {}, {"error_rate": 1.0})
    assert (verdict.finding, requests) == (Finding.HARM, 25)


def test_no_traffic_is_not_evidence_of_health():
    seen = Observation(Arm(requests=1000), Arm())
    assert judge(seen, PLAN, 1).finding is Finding.UNCLEAR


def test_a_version_over_its_margin_but_unproven_does_not_advance():
    seen = Observation(
        Arm(requests=1800, latency={math.inf: 1800}), Arm(requests=200, errors=4, latency={math.inf: 200})
    )
    verdict = judge(seen, PLAN, 4)
    assert verdict.finding is Finding.UNCLEAR
    assert "2.0%" in verdict.reason


def test_a_first_deployment_is_judged_on_its_own_errors():
    alone = Observation(Arm(), Arm(requests=200, errors=30, latency={math.inf: 200}))
    assert judge(alone, PLAN, 4).finding is Finding.HARM
    clean = Observation(Arm(), Arm(requests=200, latency={math.inf: 200}))
    assert judge(clean, PLAN, 4).finding is Finding.OK


def test_wilson_interval_agrees_with_published_values():
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I: 81/263 gives 0.2553 to 0.3662.
    low, high = wilson(81, 263, 1.959964)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_difference_bound_agrees_with_published_values():
    # Newcombe (1998), Statistics in Medicine 17:873-890, table II, method 10: 56/70 - 48/80 gives 0.0524 below.
    assert round(difference_lower_bound(56, 70, 48, 80, 0.025), 4) == 0.0524


def test_shift_is_zero_for_equal_shares_and_unknown_without_predictions():
    counts = {str(i): 100.0 for i in range(10)}
    index, p_value = stability(counts, counts)
    assert (round(index, 6), round(p_value, 6)) == (0.0, 1.0)
    assert math.isnan(stability({}, counts)[0])


def test_the_p_value_is_that_of_the_chi_squared_homogeneity_test():
    from scipy.stats import chi2_contingency

    stable, canary = {"a": 120.0, "b": 300.0, "c": 80.0}, {"a": 45.0, "b": 60.0, "c": 20.0}
    expected = chi2_contingency([list(stable.values()), list(canary.values())]).pvalue
    assert stability(stable, canary)[1] == pytest.approx(expected)


def test_counts_by_other_bin_edges_are_brought_to_the_stable_versions():
    rng = np.random.default_rng(0)
    stable = count_values(rng.normal(150, 50, 4000), [60, 90, 110, 130, 150, 170, 190, 220])
    same = count_values(rng.normal(150, 50, 2000), [65, 95, 118, 133, 149, 166, 188, 215])
    moved = count_values(rng.normal(200, 50, 2000), [110, 140, 160, 180, 200, 220, 240, 260])
    assert stability(stable, same)[0] < 0.02
    assert stability(stable, moved)[0] > 0.25


def test_a_shift_that_the_gate_has_seen_offline_is_no_harm():
    rng = np.random.default_rng(3)
    seen = Observation(arm(rng, 3600), arm(rng, 400, mean=0.65))
    assert judge(seen, PLAN, 5).finding is Finding.HARM
    assert judge(seen, PLAN, 5, expected_shift=1.0).finding is Finding.OK


def test_the_expected_shift_is_what_the_versions_differ_by_offline():
    rng = np.random.default_rng(4)
    champion = [(1 - p, p) for p in rng.beta(2, 2, 500)]
    sharper = [(1 - p, p) for p in rng.beta(0.3, 0.3, 500)]
    live = count_values([p for _, p in champion], [i / 10 for i in range(1, 10)])
    same = Rows(({},) * 500, tuple(champion), tuple(champion))
    other = Rows(({},) * 500, tuple(sharper), tuple(champion))
    assert expected_shift(same, live) == 0
    assert expected_shift(other, live) > 0.25
    assert expected_shift(Rows(({},) * 500, tuple(sharper)), live) == 0


def test_the_expected_shift_of_many_classes_goes_by_the_predicted_label():
    by_label = {"0": 40.0, "1": 30.0, "2": 30.0}
    champion = ((0.8, 0.1, 0.1),) * 40 + ((0.1, 0.8, 0.1),) * 30 + ((0.1, 0.1, 0.8),) * 30
    unsure = ((0.4, 0.3, 0.3),) * 40 + ((0.3, 0.4, 0.3),) * 30 + ((0.3, 0.3, 0.4),) * 30
    only_first = ((0.8, 0.1, 0.1),) * 100
    assert expected_shift(Rows(({},) * 100, unsure, champion), by_label) == 0
    assert expected_shift(Rows(({},) * 100, only_first, champion), by_label) > 0.25
