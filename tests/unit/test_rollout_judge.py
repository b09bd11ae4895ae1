"""The judge: it finds harm, it does not find what is not there, and it calls nothing healthy that it has not seen."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.rollout.evidence import Arm, Context, Observation, Worse
from components.rollout.judge import Finding, judge
from components.rollout.plan import Business, RolloutPlan, Slo
from components.rollout.shift import count_values, offline_counts
from components.rollout.traffic import Rows
from tests.bench import judge_flagger
from tests.bench.judge import rollouts
from tests.bench.judge_traffic import Replayed, Version, World

PLAN = RolloutPlan()
EDGES = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, math.inf)
BINS = [i / 10 for i in range(1, 10)]
BEFORE = Context(weight=10)


def arm(requests, errors=0, median_ms=80.0, mean=0.4, seed=0, **more):
    """The counts of so many requests, as near to their distributions as whole numbers come."""
    rng = np.random.default_rng(seed)
    took = rng.lognormal(math.log(median_ms), 0.5, requests)
    return Arm(
        requests=requests,
        errors=errors,
        latency={edge: float((took <= edge).sum()) for edge in EDGES},
        predictions=count_values(rng.beta(5 * mean, 5 - 5 * mean, requests), BINS),
        **more,
    )


def seen(canary, stable=None, **more):
    return Observation(stable or arm(9 * canary.requests, seed=1), canary, **more)


def check(verdict, signal):
    return next(one for one in verdict.checks if one.signal == signal)


def ends(finding, found):
    return sum(end.finding is finding for end in found)


def test_equal_versions_are_promoted():
    found = rollouts(World(), 30, seed=0)
    assert ends(Finding.OK, found) == 30


@pytest.mark.parametrize(
    ("canary", "signal"),
    [
        (Version(errors=0.05), "errors"),
        (Version(median_ms=160), "latency"),
        (Version(tail=2.0), "latency"),
        (Version(mean=0.55), "predictions"),
    ],
    ids=["errors of 5 %", "all twice as slow", "p99 doubled", "predictions shifted"],
)
def test_a_worse_challenger_is_found_by_its_signal(canary, signal):
    found = rollouts(World(canary=canary), 20, seed=1)
    assert ends(Finding.HARM, found) >= 19
    assert all(signal in end.signals for end in found if end.finding is Finding.HARM)


def test_bursts_that_hit_both_versions_are_nobodys_fault():
    assert ends(Finding.HARM, rollouts(World(bursts=True), 30, seed=2)) == 0


def test_ninety_rows_sent_over_and_over_are_not_taken_for_a_shift():
    """Happened: a linear champion and a boosted challenger of one quality, index 0.85, p = 4e-9, rolled back."""
    found = rollouts(World(requests=50, rows=90), 20, seed=3)
    assert ends(Finding.HARM, found) == 0
    assert ends(Finding.OK, found) == 20


def test_what_the_models_differ_by_offline_is_needed_for_that():
    rng = np.random.default_rng(4)
    replayed = [Replayed.draw(rng, 90) for _ in range(20)]
    blamed = 0
    for one in replayed:
        stable, canary = one.traffic(rng, 200, 0.1, 100)
        observed = Observation(stable.arm(0, 99), canary.arm(0, 99))
        strict = PLAN.model_copy(update={"slo": Slo(prediction_shift=0.02)})
        known = Context(10, Arm(), *one.offline())
        blamed += check(judge(observed, strict, BEFORE), "predictions").finding is Finding.HARM
        assert check(judge(observed, strict, known), "predictions").finding is not Finding.HARM
    assert blamed > 10


def test_bins_that_differ_between_the_versions_are_compared_where_both_have_edges():
    rng = np.random.default_rng(5)
    edges = [60, 90, 110, 130, 150, 170, 190, 220], [65, 95, 118, 133, 149, 166, 188, 215]
    stable = replace(arm(9000), predictions=count_values(rng.normal(150, 50, 9000), edges[0]))
    same, moved = (count_values(rng.normal(mean, 50, 1000), edges[1]) for mean in (150, 200))
    equal = judge(Observation(stable, replace(arm(1000), predictions=same)), PLAN, BEFORE)
    assert check(equal, "predictions").finding is Finding.OK
    shifted = judge(Observation(stable, replace(arm(1000), predictions=moved)), PLAN, BEFORE)
    assert check(shifted, "predictions").finding is Finding.HARM


def test_a_label_that_is_predicted_more_often_is_found():
    labels = {"cat": 4000.0, "dog": 3000.0, "owl": 2000.0}
    stable = replace(arm(9000), predictions=labels)
    likewise, other = {"cat": 440.0, "dog": 340.0, "owl": 220.0}, {"cat": 200.0, "dog": 200.0, "owl": 600.0}
    assert judge(Observation(stable, replace(arm(1000), predictions=likewise)), PLAN, BEFORE).finding is Finding.OK
    verdict = judge(Observation(stable, replace(arm(1000), predictions=other)), PLAN, BEFORE)
    assert verdict.finding is Finding.HARM
    assert "more predictions of owl: 60.0% of the challenger's, 22.2% of the champion's" in verdict.reason


def test_a_broken_challenger_is_found_within_ten_requests():
    verdict = judge(seen(arm(10, errors=10)), PLAN, BEFORE)
    assert verdict.finding is Finding.HARM
    assert "100.0% of the challenger's" in verdict.reason
    assert check(verdict, "errors").bound > PLAN.slo.error_rate_margin


def test_no_traffic_is_not_evidence_of_health():
    assert judge(seen(Arm(), arm(1000)), PLAN, BEFORE).finding is Finding.UNCLEAR
    assert judge(Observation(), PLAN, Context()).finding is Finding.UNCLEAR
    assert judge(Observation(), PLAN, Context(baseline=arm(1000))).finding is Finding.UNCLEAR


def test_a_champion_that_is_not_seen_beside_the_challenger_is_not_taken_for_none():
    verdict = judge(Observation(Arm(), arm(2000)), PLAN, BEFORE)
    assert verdict.finding is Finding.UNCLEAR
    assert "champion" in verdict.reason


@pytest.mark.parametrize("lost", ["latency", "predictions"])
def test_a_signal_that_only_one_version_has_is_never_taken_for_health(lost):
    verdict = judge(seen(replace(arm(2000), **{lost: {}})), PLAN, BEFORE)
    assert (verdict.finding, check(verdict, lost).finding) == (Finding.UNCLEAR, Finding.UNCLEAR)


def test_a_service_that_counts_no_predictions_is_judged_without_them():
    bare = [replace(one, predictions={}) for one in (arm(18000, seed=1), arm(2000))]
    verdict = judge(Observation(*bare), PLAN, BEFORE)
    assert verdict.finding is Finding.OK
    assert "neither version" in check(verdict, "predictions").reason


def test_min_requests_is_not_enough_when_they_could_not_have_shown_harm():
    verdict = judge(seen(arm(200)), PLAN, BEFORE)
    assert verdict.finding is Finding.UNCLEAR
    unclear = [one for one in verdict.checks if one.finding is Finding.UNCLEAR]
    assert all(f"200 of about {one.requests}" in one.reason for one in unclear)
    assert judge(seen(arm(max(one.requests for one in unclear))), PLAN, BEFORE).finding is Finding.OK


def test_a_version_over_its_margin_but_unproved_does_not_advance():
    verdict = judge(seen(arm(600, errors=20), arm(5400, errors=27)), PLAN, BEFORE)
    assert verdict.finding is Finding.UNCLEAR
    assert "3.3% of the challenger's, 0.5% of the champion's" in verdict.reason
    assert 0 < check(verdict, "errors").evidence < check(verdict, "errors").decides


def test_slower_within_ratio_or_slack_is_no_harm():
    quick = judge(seen(arm(2000, median_ms=18), arm(18000, median_ms=10, seed=1)), PLAN, BEFORE)
    assert check(quick, "latency").finding is Finding.OK
    by_half = judge(seen(arm(4000, median_ms=115), arm(36000, seed=1)), PLAN, Context(10, arm(9000, seed=2)))
    assert check(by_half, "latency").finding is Finding.OK


def test_a_first_deployment_is_held_against_the_margins_themselves():
    verdict = judge(Observation(Arm(), arm(400, errors=40)), PLAN, Context(weight=100))
    assert verdict.finding is Finding.HARM
    assert "no champion to compare with" in verdict.reason
    assert judge(Observation(Arm(), arm(400)), PLAN, Context(weight=100)).finding is Finding.OK
    assert judge(Observation(Arm(), arm(400)), PLAN, Context()).finding is Finding.OK


def test_with_all_traffic_the_challenger_is_compared_with_the_champion_before():
    before = Context(weight=100, baseline=arm(9000, errors=270, seed=1))
    assert judge(Observation(Arm(), arm(2000, errors=60)), PLAN, before).finding is Finding.OK
    assert judge(Observation(Arm(), arm(2000, errors=400)), PLAN, before).finding is Finding.HARM


def test_with_all_traffic_a_short_burst_proves_nothing():
    before = Context(weight=100, baseline=arm(9000, errors=90, seed=1))
    verdict = judge(Observation(Arm(), arm(200, errors=12)), PLAN, before)
    assert verdict.finding is Finding.UNCLEAR
    beside = judge(Observation(arm(9000, errors=90, seed=1), arm(200, errors=12)), PLAN, BEFORE)
    assert check(beside, "errors").evidence > check(verdict, "errors").evidence


def test_answers_unlike_the_offline_predictions_are_harm():
    compared = {"compared": 500, "mismatched": 0}
    equal = judge(seen(arm(2000, **compared), arm(18000, seed=1, **compared)), PLAN, BEFORE)
    assert (equal.finding, check(equal, "mismatches").finding) == (Finding.OK, Finding.OK)
    worse = seen(arm(2000, compared=500, mismatched=60), arm(18000, seed=1, **compared))
    assert check(judge(worse, PLAN, BEFORE), "mismatches").finding is Finding.HARM
    asked = PLAN.model_copy(update={"shadow_per_second": 10})
    assert check(judge(seen(arm(2000)), asked, BEFORE), "mismatches").finding is Finding.UNCLEAR


def test_restarts_beyond_the_champions_are_harm():
    assert judge(seen(arm(20, restarts=2)), PLAN, BEFORE).finding is Finding.HARM
    both = seen(arm(2000, restarts=2), arm(18000, seed=1, restarts=1))
    assert judge(both, PLAN, BEFORE).finding is Finding.OK


def test_a_business_metric_that_falls_is_harm():
    slo = Slo(business=Business(query='accepted{revision="{revision}"}', margin=0.1))
    plan = PLAN.model_copy(update={"slo": slo})

    def at(windows, loss):
        return judge(seen(arm(2000), business=Worse(windows, windows * loss)), plan, BEFORE)

    assert check(at(0, 0.0), "business").finding is Finding.UNCLEAR
    assert at(40, 0.0).finding is Finding.OK
    assert at(40, 0.2).finding is Finding.UNCLEAR
    assert at(40, 0.8).finding is Finding.HARM
    assert "0.8 worse on average over 40 windows" in at(40, 0.8).reason


def test_a_billion_requests_and_nothing_but_errors_are_no_trouble():
    billion = dict.fromkeys(EDGES, 1e9)
    bins = {**{str(edge): 1e8 for edge in BINS}, "inf": 1e8}
    large = Arm(10**9, 10**7, billion, bins)
    assert judge(Observation(large, large), PLAN, BEFORE).finding is Finding.OK
    failing = replace(large, errors=10**9)
    assert judge(Observation(large, failing), PLAN, BEFORE).finding is Finding.HARM
    assert judge(Observation(failing, failing), PLAN, BEFORE).finding is Finding.OK


@given(st.integers(0, 300), st.integers(0, 2700))
def test_more_errors_never_make_a_verdict_milder(mine, others):
    order = [Finding.OK, Finding.UNCLEAR, Finding.HARM]
    fewer, more = (
        check(judge(seen(replace(_ALL, errors=errors), replace(_OTHERS, errors=others)), PLAN, BEFORE), "errors")
        for errors in (mine, mine + 20)
    )
    assert order.index(more.finding) >= order.index(fewer.finding)


_ALL, _OTHERS = arm(1000), arm(9000, seed=1)
small = st.integers(0, 50)
arms = st.builds(
    Arm,
    requests=small,
    errors=small,
    latency=st.dictionaries(st.sampled_from(EDGES), st.integers(1, 50).map(float)),
    predictions=st.dictionaries(st.sampled_from(["a", "b"]), small.map(float)),
    restarts=small,
    compared=small,
    mismatched=small,
)
observations = st.builds(Observation, arms, arms, st.builds(Worse, small, st.just(0.5)))


@given(observations, observations)
def test_a_step_that_was_interrupted_is_judged_on_the_sum_of_its_stretches(first, second):
    both = first + second
    assert both + Observation() == both
    assert (second + first).canary.requests == both.canary.requests
    assert both.since(first).stable.requests == second.stable.requests
    assert both.since(first).business == second.business


def test_a_resumed_step_gives_the_verdict_of_one_that_was_not_killed():
    parts = [seen(arm(300, errors=2, seed=s), arm(2700, errors=27, seed=9 + s)) for s in range(3)]
    whole = parts[0] + parts[1] + parts[2]
    # In words: from Python 3.13 on, what holds a NaN is not equal to itself.
    assert repr(judge(parts[2] + (parts[1] + parts[0]), PLAN, BEFORE)) == repr(judge(whole, PLAN, BEFORE))


def test_offline_predictions_are_counted_by_each_versions_own_bins():
    champion, challenger = ((0.3, 0.7), (0.95, 0.05)), ((0.4, 0.6), (0.0, 1.0))
    live = {"0.1": 0.0, "0.5": 0.0, "0.9": 0.0, "+Inf": 0.0}
    stable, canary = offline_counts(Rows(({},) * 2, challenger, champion), live, {"0.65": 9.0, "+Inf": 1.0})
    assert stable == {"0.1": 1.0, "0.5": 0.0, "0.9": 1.0, "+Inf": 0.0}
    assert canary == {"0.65": 1.0, "+Inf": 1.0}


def test_offline_predictions_of_many_classes_are_counted_by_label():
    champion, challenger = ((0.8, 0.1, 0.1), (0.1, 0.8, 0.1)), ((0.8, 0.1, 0.1), (0.1, 0.1, 0.8))
    rows = Rows(({},) * 2, challenger, champion)
    live = {"2": 5.0, "10": 5.0, "9": 5.0}
    assert offline_counts(rows, live) == ({"2": 1.0, "9": 1.0, "10": 0.0}, {"2": 1.0, "9": 0.0, "10": 1.0})
    assert offline_counts(rows, live, classes=["9", "2", "10"])[0] == {"9": 1.0, "2": 1.0, "10": 0.0}
    assert offline_counts(rows, {"2": 5.0}) == ({}, {})
    assert offline_counts(Rows(({},), ((0.5, 0.5),)), live) == ({}, {})


def test_flaggers_rule_rolls_back_a_minute_after_its_count_is_full():
    broken = World(canary=Version(errors=1.0))
    outcome = judge_flagger.run(np.random.default_rng(0), broken, 50, 20)
    assert outcome.rolled_back(10).all()
    assert np.median(outcome.requests_until(10)) == pytest.approx(11 * 60 * 50 * 0.05, rel=0.1)
    healthy = judge_flagger.run(
        np.random.default_rng(0), World(World().requests, Version(errors=0), Version(errors=0)), 50, 20
    )
    assert not healthy.rolled_back(1).any()
