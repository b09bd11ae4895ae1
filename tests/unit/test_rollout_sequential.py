"""The tests behind the judge: valid at any time, whatever the order, and worth their requests."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from components.rollout import sequential
from components.rollout.sequential import log_evidence, log_evidence_alone, null_rate

ALPHA = 0.05
counts = st.integers(0, 400)


def crossed(canary, stable, n, k, margin, share, alpha=ALPHA):
    """Share of streams whose evidence reaches ``1 / alpha`` at any look; cumulative counts of (streams, looks)."""
    level = math.log(1 / alpha)
    evidence = log_evidence(canary.cumsum(1), n.cumsum(1), stable.cumsum(1), k.cumsum(1), margin, share, level)
    return (evidence >= level).any(axis=1).mean()


@pytest.mark.parametrize(
    ("rate", "margin", "share", "declared"),
    [(0.01, 0.01, 0.1, 0.1), (0.3, 0.0, 0.5, 0.5), (0.05, 0.01, 0.3, 0.0), (0.2, 0.15, 0.1, 0.5)],
)
def test_a_version_just_at_its_margin_is_seldom_found_harmful_however_often_one_looks(rate, margin, share, declared):
    rng = np.random.default_rng(1)
    shape = (300, 60)
    n = rng.binomial(100, share, shape)
    canary, stable = rng.binomial(n, rate + margin), rng.binomial(100 - n, rate)
    assert crossed(canary, stable, n, 100 - n, margin, declared) <= ALPHA + 0.03


def test_bursts_that_hit_both_versions_raise_no_alarm():
    rng = np.random.default_rng(2)
    n = rng.binomial(100, 0.1, (300, 60))
    rate = np.where(rng.random(n.shape) < 0.1, 0.5, 0.01)
    assert crossed(rng.binomial(n, rate), rng.binomial(100 - n, rate), n, 100 - n, 0.0, 0.1) <= ALPHA + 0.03


@pytest.mark.parametrize(
    ("rate", "margin", "share"), [(0.0, 0.0, 0.1), (0.1, 0.02, 0.1), (0.5, 0.0, 0.5), (0.9, 0.05, 0.0)]
)
def test_the_expected_e_value_is_at_most_one_by_enumeration(rate, margin, share):
    """Exactly, over all outcomes of 9 and 14 requests."""
    x, y = np.meshgrid(np.arange(10), np.arange(15), indexing="ij")
    chance = binom.pmf(x, 9, rate + margin) * binom.pmf(y, 14, rate)
    e_values = np.exp(log_evidence(x, 9, y, 14, margin, share, needed=-math.inf))
    assert (chance * e_values).sum() <= 1 + 1e-9
    alone = np.exp(log_evidence_alone(np.arange(10), 9, rate + margin))
    assert (binom.pmf(np.arange(10), 9, rate + margin) * alone).sum() <= 1 + 1e-9


@pytest.mark.parametrize(
    ("x", "n", "y", "k", "margin"), [(25, 300, 30, 2700, 0.01), (60, 100, 35, 100, 0.0), (9, 40, 0, 360, 0.01)]
)
def test_the_evidence_is_the_least_over_all_rates_of_the_champion(x, n, y, k, margin):
    supposed = np.linspace(1e-9, 1 - margin - 1e-9, 20_001)
    least = sequential._wealth(supposed, *(np.float64(value) for value in (x, n, y, k, margin)), 0.1).min()
    assert log_evidence(x, n, y, k, margin, 0.1) == pytest.approx(least, abs=0.01)


def test_half_a_hit_counts_for_less_than_its_wealth():
    scores, limit = np.array([0.0, 0.3, 0.7, 1.0, 0.55, 0.9]), 0.2
    bets = sequential._bets(np.array(limit))
    weights = np.exp(sequential._log_weights())
    wealth = (weights * np.prod(1 + bets * (scores[:, None] - limit), axis=0)).sum()
    assert np.exp(log_evidence_alone(scores.sum(), len(scores), limit)) <= wealth


@given(counts, counts, counts, counts, st.sampled_from([0.0, 0.01, 0.15]))
def test_the_rate_of_the_null_is_the_likeliest(x, more, y, others, margin):
    n, k = x + more, y + others

    def surprise(u):
        c = u + margin
        return -sum(hits * math.log(p) for hits, p in ((x, c), (more, 1 - c), (y, u), (others, 1 - u)) if hits)

    if n + k:
        best = minimize_scalar(surprise, bounds=(1e-9, 1 - margin - 1e-9), method="bounded", options={"xatol": 1e-10})
        ours = float(np.clip(null_rate(float(x), float(n), float(y), float(k), margin), 1e-9, 1 - margin - 1e-9))
        assert surprise(ours) <= best.fun + 1e-5


@given(counts, counts, counts, counts, st.sampled_from([0.1, 0.5, 0.0]))
def test_more_failures_never_weaken_the_evidence(x, more, y, others, share):
    n, k = x + more + 1, y + others
    fewer, one_more = (max(float(log_evidence(hits, n, y, k, 0.01, share)), 0.0) for hits in (x, x + 1))
    assert one_more >= fewer - 0.01


@pytest.mark.parametrize("share", [0.1, 0.0])
def test_extreme_counts_stay_finite(share):
    billion = 1e9
    assert abs(log_evidence(0, 0, 0, 0, 0.01, share)) < 1e-9
    assert log_evidence(0.01 * billion, billion, 0.01 * billion, 9 * billion, 0.01, share) < 0
    assert log_evidence(billion, billion, 0, 9 * billion, 0.01, share) > 1000
    assert log_evidence(billion, billion, 9 * billion, 9 * billion, 0.01, share) < 0
    assert np.isfinite(log_evidence(20, 20, 0, 0, 0.0, share))
    assert log_evidence(0.03 * billion, billion, 0.01 * billion, 9 * billion, 0.01, share) > 1000
    assert log_evidence_alone(billion, billion, 0.0) > 1000


def test_a_champion_that_is_not_seen_proves_nothing():
    assert log_evidence(20, 20, 0, 0, 0.01, 0.1, math.log(1 / ALPHA)) < math.log(1 / ALPHA)


def test_fewer_requests_are_needed_than_by_universal_inference():
    """Wasserman, Ramdas and Balakrishnan (2020): a Beta mixture over the largest likelihood of the null."""
    from scipy.special import betaln

    rng = np.random.default_rng(3)
    n = np.arange(40, 1600, 40)
    k = 9 * n
    x = np.cumsum(rng.binomial(40, 0.05, (60, len(n))), axis=1)
    y = np.cumsum(rng.binomial(360, 0.01, (60, len(n))), axis=1)
    ours = log_evidence(x, n, y, k, 0.01, 0.1, 6.0)
    u = np.clip(null_rate(*(np.broadcast_arrays(*(np.asarray(v, float) for v in (x, n, y, k, 0.01))))), 1e-12, 0.99)
    null = x * np.log(u + 0.01) + (n - x) * np.log1p(-u - 0.01) + y * np.log(u) + (k - y) * np.log1p(-u)
    theirs = sum(betaln(a + 0.5, b - a + 0.5) - betaln(0.5, 0.5) for a, b in ((x, n), (y, k))) - null
    needed = [np.median(n[(evidence >= 6.0).argmax(axis=1)]) for evidence in (ours, theirs)]
    assert needed[0] < 0.7 * needed[1]
