"""Two versions' predictions as counts by bin or label, and how large their shares below each edge or of each label are.

Bins are named by their upper edge and are not cumulative; the last edge is infinite. Labels are anything else.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.rollout.traffic import Rows


def offline_counts(
    rows: Rows, live: Mapping[str, float], canary: Mapping[str, float] | None = None, classes: Sequence[str] = ()
) -> tuple[dict[str, float], dict[str, float]]:
    """Count both versions' offline predictions of the held-out rows as the live metric counts them.

    Args:
        rows: with the predictions of both versions.
        live: the champion's live counts, for the bins or labels only.
        canary: the challenger's live counts, where its bins are not the champion's.
        classes: labels in the order of the probability columns; by default the live labels in their natural order.

    Returns:
        The champion's and the challenger's counts; both empty where the predictions, bins or labels are not known.
    """
    if not rows.champion or not rows.predictions or not live:
        return {}, {}
    both = ((rows.champion, live), (rows.predictions, canary or live))
    if _binned(live):
        counted = [_by_bin([scores[-1] for scores in predictions], bins) for predictions, bins in both]
    else:
        counted = [_by_label(predictions, classes or _natural(labels)) for predictions, labels in both]
    return (counted[0], counted[1]) if all(counted) else ({}, {})


def count_values(values: Sequence[float], edges: Sequence[float]) -> dict[str, float]:
    """Count values by the upper edge of their bin, as the server's histogram does.

    Args:
        values: predictions.
        edges: upper edges, ascending; values above the last count under ``inf``.
    """
    import numpy as np

    bins = np.bincount(np.searchsorted(np.asarray(edges, dtype=float), values, side="left"), minlength=len(edges) + 1)
    return {str(edge): float(count) for edge, count in zip([*edges, math.inf], bins, strict=True)}


@dataclass(frozen=True)
class Part:
    """A part of all predictions, such as those of at most 0.4, in words and as both versions' counts of it."""

    what: str
    stable: float
    canary: float


def parts(stable: Mapping[str, float], canary: Mapping[str, float]) -> list[Part]:
    """The parts whose shares are compared: at most each edge of the champion's, or each label.

    Which they are depends on the names of the bins alone, never on the counts. Where the challenger's bins differ, its
    counts lie evenly within a bin; edges beyond the outermost ones of either are left out.
    """
    if _binned(stable) != _binned(canary):
        return []
    if not _binned(stable):
        return [Part(f"predictions of {k}", stable.get(k, 0), canary.get(k, 0)) for k in sorted({*stable, *canary})]
    ours, theirs = _cumulative(stable), _cumulative(canary)
    finite = [edge for edge in theirs if math.isfinite(edge)]
    return [
        Part(f"predictions of at most {edge:g}", ours[edge], _below(theirs, edge))
        for edge in ours
        if math.isfinite(edge) and finite and finite[0] <= edge <= finite[-1]
    ]


def _binned(counts: Mapping[str, float]) -> bool:
    return any(key.lower().lstrip("+") == "inf" for key in counts)


def _cumulative(bins: Mapping[str, float]) -> dict[float, float]:
    total, cumulative = 0.0, {}
    for edge, count in sorted((float(key), count) for key, count in bins.items()):
        total += count
        cumulative[edge] = total
    return cumulative


def _below(cumulative: Mapping[float, float], value: float) -> float:
    """How many of the counted values are at most ``value``, which is from the first edge to the last finite one."""
    low, count = -math.inf, 0.0
    for edge, total in cumulative.items():
        if value <= edge:
            return total if value == edge else count + (total - count) * (value - low) / (edge - low)
        low, count = edge, total
    return count


def _natural(labels: Mapping[str, float]) -> list[str]:
    """Classes are in ascending order, numbers by value."""
    try:
        return sorted(labels, key=float)
    except ValueError:
        return sorted(labels)


def _by_bin(values: Sequence[float], bins: Mapping[str, float]) -> dict[str, float]:
    names = sorted(bins, key=float)
    counts = count_values(values, [float(name) for name in names[:-1]])
    return dict(zip(names, counts.values(), strict=True))


def _by_label(predictions: Sequence[Sequence[float]], classes: Sequence[str]) -> dict[str, float]:
    if not predictions or len(classes) != len(predictions[0]):
        return {}
    found = Counter(max(range(len(scores)), key=scores.__getitem__) for scores in predictions)
    return {name: float(found[i]) for i, name in enumerate(classes)}
