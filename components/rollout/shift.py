"""How far two versions' predictions are apart, from their counts by bin or label."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from components.rollout.traffic import Rows


def count_values(values: Sequence[float], edges: Sequence[float]) -> dict[str, float]:
    """Count values by the upper edge of their bin, as the server's histogram does.

    Args:
        values: predictions.
        edges: upper edges, ascending; values above the last count under ``inf``.
    """
    import numpy as np

    bins = np.bincount(np.searchsorted(np.asarray(edges, dtype=float), values, side="left"), minlength=len(edges) + 1)
    return {str(edge): float(count) for edge, count in zip([*edges, math.inf], bins, strict=True)}


def stability(stable: Mapping[str, float], canary: Mapping[str, float]) -> tuple[float, float]:
    """Population stability index between two sets of counts, and the p-value of a chi-squared homogeneity test.

    The index is the symmetrised Kullback-Leibler divergence of the shares. Counts by different bin edges are first
    brought to the stable version's, linearly within a bin. Bins with under 5 counts expected in either arm are
    merged into the next, as the chi-squared approximation asks.

    Returns:
        Index and p-value; (NaN, 1) when an arm has no predictions.
    """
    from scipy.special import chdtrc  # a fifth of the import time of scipy.stats

    total_stable, total_canary = sum(stable.values()), sum(canary.values())
    if not total_stable or not total_canary:
        return math.nan, 1.0
    merged = _merge(_align(stable, canary), min(total_stable, total_canary) / (total_stable + total_canary))
    if len(merged) < 2:
        return 0.0, 1.0
    index = chi_squared = 0.0
    for s, c in merged:
        share_s, share_c = (s + 0.5) / (total_stable + 1), (c + 0.5) / (total_canary + 1)
        index += (share_c - share_s) * math.log(share_c / share_s)
        for count, total in ((s, total_stable), (c, total_canary)):
            expected = (s + c) * total / (total_stable + total_canary)
            chi_squared += (count - expected) ** 2 / expected
    return index, float(chdtrc(len(merged) - 1, chi_squared))


def expected_shift(rows: Rows, live: Mapping[str, float]) -> float:
    """The stability index between both versions' offline predictions of the held-out rows.

    Args:
        rows: with the predictions of both versions.
        live: the stable version's live counts, for the bins: by upper edge, the last infinite, or by label.

    Returns:
        The index; 0 where the champion's predictions or its bins are not known.
    """
    if not rows.champion or not live:
        return 0.0
    if len(rows.predictions[0]) > 2:  # counted by label: which class is most probable
        champion, challenger = (
            Counter(str(max(range(len(scores)), key=scores.__getitem__)) for scores in predictions)
            for predictions in (rows.champion, rows.predictions)
        )
        return stability(champion, challenger)[0]
    edges = sorted(float(key) for key in live)
    last = [[scores[-1] for scores in predictions] for predictions in (rows.champion, rows.predictions)]
    return stability(count_values(last[0], edges[:-1]), count_values(last[1], edges[:-1]))[0]


def _merge(pairs: Sequence[tuple[float, float]], smaller_share: float) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    s = c = 0.0
    for more_s, more_c in pairs:
        s, c = s + more_s, c + more_c
        if (s + c) * smaller_share >= 5:
            merged.append((s, c))
            s = c = 0.0
    if merged and s + c:
        merged[-1] = (merged[-1][0] + s, merged[-1][1] + c)
    return merged


def _align(stable: Mapping[str, float], canary: Mapping[str, float]) -> list[tuple[float, float]]:
    try:
        edges = sorted(float(key) for key in stable)
        theirs = sorted((float(key), count) for key, count in canary.items())
    except ValueError:  # counts by label
        return [(stable.get(k, 0.0), canary.get(k, 0.0)) for k in sorted(set(stable) | set(canary))]
    finite = [edge for edge, _ in theirs if math.isfinite(edge)]
    # How the counts of an outer, open bin lie is unknown: where possible only edges that both cover are compared.
    edges = [edge for edge in edges if finite and finite[0] <= edge <= finite[-1]] or edges
    edges = [*(edge for edge in edges if math.isfinite(edge)), math.inf]
    ours = sorted((float(key), count) for key, count in stable.items())
    return [
        (_count_below(high, ours) - _count_below(low, ours), _count_below(high, theirs) - _count_below(low, theirs))
        for low, high in pairwise([-math.inf, *edges])
    ]


def _count_below(edge: float, bins: Sequence[tuple[float, float]]) -> float:
    total, low = 0.0, -math.inf
    for high, count in bins:
        if high > edge:
            inside = (edge - low) / (high - low) if math.isfinite(low) and math.isfinite(high) and edge > low else 0.0
            return total + inside * count
        total, low = total + count, high
    return total
