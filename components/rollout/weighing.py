"""How strongly a signal's comparisons speak, how much larger a share is at least, and how many requests it takes."""

import math
from collections.abc import Sequence
from functools import lru_cache

from components.rollout.comparisons import Comparison
from components.rollout.sequential import log_evidence, log_evidence_alone

_POWER_SIGMAS = 0.8416
"""A normal variable is above minus this with a probability of 80 %."""
_COUNTS = tuple(round(20 * 1.2**step) for step in range(64))


def weigh(
    compared: Sequence[Comparison], share: float, level: float, discount: float = 1.0
) -> tuple[float, Comparison]:
    """The log of a signal's e-value, the average of its comparisons', and the comparison that speaks most.

    Comparisons whose shares as observed are within the margin are left out: there no bet has won, so that they could
    add nothing to speak of. With none left the log is 0 and the comparison is the one nearest to its margin.

    Args:
        compared: at least one.
        share: the challenger's share of both versions' requests; 0 for not known.
        level: the log evidence that decides; below it the result may be an upper bound.
        discount: so many requests count as one, where they do not speak for themselves (Kish's design effect).
    """
    beyond = [one for one in compared if one.excess() > 0]
    if not beyond:
        return 0.0, max(compared, key=Comparison.excess)
    import numpy as np
    from scipy.special import logsumexp

    rows = [(one.canary_hits, one.canary_n, one.stable_hits, one.stable_n, one.margin) for one in beyond]
    x, n, y, k, margin = np.array(rows, dtype=float).T
    x, n, y, k = (counts / discount for counts in (x, n, y, k))
    each = log_evidence(x, n, y, k, margin, share, level) if k.any() else log_evidence_alone(x, n, margin)
    each = each + np.log([one.part for one in beyond])
    return max(float(logsumexp(each)), 0.0), beyond[int(each.argmax())]


def difference_at_least(compared: Comparison, share: float, level: float, discount: float = 1.0) -> float:
    """The largest margin that the evidence proves to be exceeded: a lower bound that holds at any time."""
    import numpy as np

    counts = (compared.canary_hits, compared.canary_n, compared.stable_hits, compared.stable_n)
    x, n, y, k = (count / discount for count in counts)
    low, high = compared.margin, compared.canary_share() - compared.stable_share()
    for _ in range(2):
        tried = np.linspace(low, high, 17)
        found = log_evidence(x, n, y, k, tried, share, level) if k else log_evidence_alone(x, n, tried)
        last = int(np.flatnonzero(found >= level).max(initial=0))
        low, high = float(tried[last]), float(tried[min(last + 1, 16)])
    return low


def requests_needed(
    stable_share: float, above: float, margin: float, share: float, stable_n: float, level: float
) -> int:
    """How many of the challenger's requests it takes to find such shares with a probability of about 80 %.

    The evidence is computed, by its upper bound, for the challenger's count that is exceeded with that probability (by
    the normal approximation), and for the champion's expected count.

    Args:
        stable_share: the champion's.
        above: how far the challenger's is above it.
        margin: how far it may be.
        share: the challenger's share of both versions' requests; 0 for not known, then it is taken to be a half.
        stable_n: requests of the champion where that number is fixed; 0 where it grows with the challenger's; negative
            for no champion.
        level: the log evidence that decides.
    """
    return _needed(_rounded(stable_share), above, margin, round(share, 3), _rounded(stable_n), round(level, 3))


@lru_cache(maxsize=4096)
def _needed(s: float, above: float, margin: float, share: float, stable_n: float, level: float) -> int:
    import numpy as np

    c = min(s + above, 1.0)
    n = np.array(_COUNTS, dtype=float)
    x = np.clip(n * c - _POWER_SIGMAS * np.sqrt(n * c * (1 - c)), 0, n)
    if stable_n < 0:
        evidence = log_evidence_alone(x, n, margin)
    else:
        k = np.full_like(n, stable_n) if stable_n else n * ((1 - share) / share if 0 < share < 1 else 1.0)
        evidence = log_evidence(x, n, k * s, k, margin, share, math.inf)
    enough = np.flatnonzero(evidence >= level)
    return _COUNTS[int(enough[0])] if len(enough) else _COUNTS[-1]


def _rounded(value: float) -> float:
    """To one digit, so that the same few answers are looked up again and again."""
    return float(f"{value:.1g}") if math.isfinite(value) else 0.0
