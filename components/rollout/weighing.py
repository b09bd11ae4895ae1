"""How strongly a signal's comparisons speak, how much larger a share is at least, and how many requests it takes."""

import math
from collections.abc import Sequence
from functools import lru_cache

from components.rollout.comparisons import Comparison
from components.rollout.sequential import log_evidence, log_evidence_alone

_POWER_SIGMAS = 0.8416
"""A normal variable is above minus this with a probability of 80 %."""
_COUNTS = tuple(round(20 * 1.2**step) for step in range(64))


def weigh(compared: Sequence[Comparison], share: float, level: float) -> tuple[float, Comparison]:
    """The log of a signal's e-value, the average of its comparisons', and the comparison that speaks most.

    Args:
        compared: at least one.
        share: the challenger's share of both versions' requests; 0 for not known.
        level: the log evidence that decides; below it the result may be an upper bound.
    """
    import numpy as np
    from scipy.special import logsumexp

    rows = [(c.canary_hits, c.canary_n, c.stable_hits, c.stable_n, c.margin) for c in compared]
    x, n, y, k, margin = np.array(rows, dtype=float).T
    alone = not k.any()
    each = log_evidence_alone(x, n, margin) if alone else log_evidence(x, n, y, k, margin, share, level)
    each = each + np.log([c.part for c in compared])
    return float(logsumexp(each)), compared[int(each.argmax())]


def difference_at_least(compared: Comparison, share: float, level: float) -> float:
    """The largest margin that the evidence proves to be exceeded: a lower bound that holds at any time."""
    import numpy as np

    x, n, y, k = compared.canary_hits, compared.canary_n, compared.stable_hits, compared.stable_n
    low, high = compared.margin, compared.canary_share() - compared.stable_share()
    for _ in range(2):
        tried = np.linspace(low, high, 17)
        found = log_evidence(x, n, y, k, tried, share, level) if k else log_evidence_alone(x, n, tried)
        last = int(np.flatnonzero(found >= level).max(initial=0))
        low, high = float(tried[last]), float(tried[min(last + 1, 16)])
    return low


def requests_needed(
    stable_share: float, canary_share: float, margin: float, share: float, stable_n: float, level: float
) -> int:
    """How many of the challenger's requests it takes to find such shares with a probability of about 80 %.

    The evidence is computed for the challenger's count that is exceeded with that probability (by the normal
    approximation), and for the champion's expected count.

    Args:
        stable_share: the champion's.
        canary_share: the challenger's.
        margin: what it may be above the champion's.
        share: the challenger's share of both versions' requests; 0 for not known, then it is taken to be a half.
        stable_n: requests of the champion where that number is fixed; 0 where it grows with the challenger's; negative
            for no champion.
        level: the log evidence that decides.
    """
    return _needed(_two_digits(stable_share), canary_share, margin, share, _two_digits(stable_n), round(level, 3))


@lru_cache(maxsize=4096)
def _needed(s: float, c: float, margin: float, share: float, stable_n: float, level: float) -> int:
    import numpy as np

    n = np.array(_COUNTS, dtype=float)
    x = np.clip(n * c - _POWER_SIGMAS * np.sqrt(n * c * (1 - c)), 0, n)
    if stable_n < 0:
        evidence = log_evidence_alone(x, n, margin)
    else:
        k = np.full_like(n, stable_n) if stable_n else n * ((1 - share) / share if 0 < share < 1 else 1.0)
        evidence = log_evidence(x, n, k * s, k, margin, share, level)
    enough = np.flatnonzero(evidence >= level)
    return _COUNTS[int(enough[0])] if len(enough) else _COUNTS[-1]


def _two_digits(value: float) -> float:
    """Rounded, so that the same few answers are looked up again and again."""
    return float(f"{value:.2g}") if math.isfinite(value) else 0.0
