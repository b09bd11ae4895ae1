"""How far two distributions are apart, from the counts of the same bins."""

import math
from collections.abc import Sequence

_EMPTY = 1e-4
"""The share that stands for an empty bin in the population stability index, whose logarithm knows no zero."""


def jensen_shannon(before: Sequence[float], after: Sequence[float]) -> float:
    """The Jensen-Shannon distance: the square root of the divergence in bits, a metric from 0 (equal) to 1 (disjoint).

    ``sqrt(H((p + q) / 2) - (H(p) + H(q)) / 2)`` with Shannon's entropy ``H`` to base 2. J. Lin, "Divergence measures
    based on the Shannon entropy", IEEE Transactions on Information Theory 37(1), 1991, eq. 4.1; that its root is a
    metric: D. M. Endres and J. E. Schindelin, IEEE Transactions on Information Theory 49(7), 2003.

    Args:
        before: counts or shares of the bins, not all zero; as many as ``after``.
        after: those of the other distribution.
    """
    p, q = _shares(before), _shares(after)
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return math.sqrt(max(0.0, _entropy(middle) - (_entropy(p) + _entropy(q)) / 2))


def population_stability(before: Sequence[float], after: Sequence[float]) -> float:
    """The population stability index ``sum((q - p) * ln(q / p))``, from 0; above 0.25 is commonly called a shift.

    N. Siddiqi, "Credit Risk Scorecards", Wiley 2006, chapter on scorecard monitoring; it is the symmetric divergence
    of H. Jeffreys (1946). An empty bin counts as a share of 0.0001.

    Args:
        before: counts or shares of the bins, not all zero; as many as ``after``.
        after: those of the other distribution.
    """
    pairs = zip(_shares(before), _shares(after), strict=True)
    filled = ((max(p, _EMPTY), max(q, _EMPTY)) for p, q in pairs if p or q)
    return sum((q - p) * math.log(q / p) for p, q in filled)


def _shares(counts: Sequence[float]) -> list[float]:
    total = math.fsum(counts)
    return [count / total for count in counts]


def _entropy(shares: Sequence[float]) -> float:
    return -math.fsum(share * math.log2(share) for share in shares if share > 0)
