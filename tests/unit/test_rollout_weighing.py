"""A signal's comparisons weighed together, what they prove at least, and how many requests it takes."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from components.rollout.comparisons import Comparison
from components.rollout.sequential import log_evidence, log_evidence_alone
from components.rollout.weighing import difference_at_least, requests_needed, weigh

LEVEL = math.log(20)
HARMFUL = Comparison("failed", 0.5, 40, 200, 18, 1800, 0.01)
ALIKE = Comparison("slow", 0.5, 2, 200, 18, 1800, 0.01)


def test_a_signals_odds_are_the_average_of_its_comparisons():
    odds = float(log_evidence(40, 200, 18, 1800, 0.01, 0.1))
    both, most = weigh([ALIKE, HARMFUL], 0.1, 0.0)
    assert most is HARMFUL
    assert both == pytest.approx(odds - math.log(2))
    assert weigh([ALIKE], 0.1, 0.0) == (0.0, ALIKE)


def test_requests_that_count_as_a_tenth_prove_less():
    assert weigh([HARMFUL], 0.1, 0.0, discount=10.0)[0] < weigh([HARMFUL], 0.1, 0.0)[0] / 2


def test_the_expected_odds_against_a_limit_are_one_at_the_limit_and_less_below():
    hits = np.arange(41)
    for limit in (0.01, 0.3, 0.9):
        odds = np.exp(log_evidence_alone(hits, 40, limit))
        assert (binom.pmf(hits, 40, limit) * odds).sum() == pytest.approx(1)
        assert (binom.pmf(hits, 40, limit / 2) * odds).sum() < 1


@pytest.mark.parametrize("declared", [0.1, 0.5, 0.0], ids=["as declared", "otherwise", "not declared"])
def test_more_failures_are_found_whatever_split_was_declared(declared):
    rng = np.random.default_rng(3)
    x, y = rng.binomial(2000, 0.05, 100), rng.binomial(18_000, 0.01, 100)
    assert (log_evidence(x, 2000, y, 18_000, 0.01, declared) >= LEVEL).mean() >= 0.95


def test_what_is_proved_at_least_seldom_exceeds_the_true_difference():
    rng = np.random.default_rng(4)
    counts = zip(rng.binomial(400, 0.2, 50), rng.binomial(3600, 0.05, 50), strict=True)
    bounds = [difference_at_least(Comparison("failed", 1.0, x, 400, y, 3600, 0.01), 0.1, LEVEL) for x, y in counts]
    assert np.mean(np.array(bounds) > 0.15) <= 0.06
    assert np.median(bounds) > 0.05


def test_the_requests_needed_find_harm_with_about_the_probability_that_they_promise():
    needed = requests_needed(0.01, 0.04, 0.01, 0.1, 0, LEVEL)
    rng = np.random.default_rng(5)
    x, y = rng.binomial(needed, 0.05, 500), rng.binomial(9 * needed, 0.01, 500)
    assert 0.7 <= (log_evidence(x, needed, y, 9 * needed, 0.01, 0.1) >= LEVEL).mean() <= 0.95
    assert needed < requests_needed(0.01, 0.02, 0.01, 0.1, 0, LEVEL)
