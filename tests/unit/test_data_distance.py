import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from pipelines.data.distance import jensen_shannon, population_stability

counts = st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(any)


@settings(deadline=None)
@given(counts, counts)
def test_the_distance_is_scipys(before, after):
    assert jensen_shannon(before, after) == pytest.approx(jensenshannon(before, after, base=2), abs=1e-6)


def test_distributions_that_share_nothing_are_one_apart_and_equal_ones_nothing():
    assert jensen_shannon([3, 0], [0, 5]) == pytest.approx(1)
    assert jensen_shannon([1, 3], [2, 6]) == pytest.approx(0, abs=1e-7)
    assert population_stability([1, 3], [2, 6]) == 0


def test_the_stability_index_is_the_formula_and_an_empty_bin_is_no_infinity():
    worked = (0.6 - 0.5) * math.log(0.6 / 0.5) + (0.4 - 0.5) * math.log(0.4 / 0.5)
    assert population_stability([50, 50], [6, 4]) == pytest.approx(worked)
    assert population_stability([1, 0, 0], [0, 1, 0]) == pytest.approx(2 * 0.9999 * math.log(1e4), rel=1e-3)
