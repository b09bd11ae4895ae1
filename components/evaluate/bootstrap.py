"""Bootstrap distributions of metrics, paired between models: each resample takes the same rows for all of them.

Percentile intervals: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluate.decision import Interval
from components.evaluate.metrics import NAMES, Floats, metrics
from components.features.schema import Task

CONFIDENCE = 0.95
_BATCH_VALUES = 2_000_000  # weights held at once: 16 MB of doubles
_MOST_VALUES = 200_000_000  # rows times resamples in all: seconds; intervals of large tables need fewer resamples
_FEWEST_DRAWS = 200
_DEFINED = 0.95  # share of resamples that must define a metric


@dataclass(frozen=True)
class Distribution:
    """A metric of one model.

    Attributes:
        value: on all rows.
        draws: on each resample, ``(resamples,)``; NaN where a resample does not define it.
    """

    value: float
    draws: Floats

    def interval(self) -> Interval:
        """Of the value."""
        return percentile_interval(self.draws)

    def minus(self, other: "Distribution") -> "Distribution":
        """The paired difference."""
        return Distribution(self.value - other.value, self.draws - other.draws)


def percentile_interval(draws: Floats) -> Interval:
    """The middle ``CONFIDENCE`` of the draws; no interval where too many resamples do not define the metric."""
    defined = draws[np.isfinite(draws)]
    if not len(defined) or len(defined) < _DEFINED * len(draws):
        return Interval()
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(low=float(low), high=float(high))


def draws_for(rows: int, asked: int) -> int:
    """How many resamples to take: as many as asked, fewer on tables so large that the work would take minutes."""
    return min(asked, max(_FEWEST_DRAWS, _MOST_VALUES // max(rows, 1)))


def bootstrap(
    task: Task, target: NDArray[np.generic], models: Sequence[Floats], draws: int, seed: int
) -> list[dict[str, Distribution]]:
    """The distribution of every metric for every model, over the same resamples.

    Args:
        task: decides the metrics.
        target: class index or value, ``(rows,)``.
        models: scores of each model: probabilities ``(rows, classes)`` or values ``(rows,)``.
        draws: resamples.
        seed: of the resamples.

    Returns:
        Distributions by metric, for each model in turn.
    """
    measures = [dict(metrics(task, target, scores)) for scores in models]
    ones = np.ones((1, len(target)))
    drawn: list[dict[str, list[Floats]]] = [{name: [] for name in NAMES[task]} for _ in models]
    for weights in resamples(len(target), draws, seed):
        for functions, into in zip(measures, drawn, strict=True):
            for name, function in functions.items():
                into[name].append(function(weights))
    return [
        {
            name: Distribution(float(function(ones)[0]), np.concatenate(into[name]) if into[name] else np.empty(0))
            for name, function in functions.items()
        }
        for functions, into in zip(measures, drawn, strict=True)
    ]


def resamples(rows: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn, ``(some draws, rows)`` at a time."""
    random = np.random.default_rng(seed)
    batch = max(1, _BATCH_VALUES // rows)
    for first in range(0, draws, batch):
        count = min(batch, draws - first)
        picks = random.integers(rows, size=(count, rows), dtype=np.int32)
        picks = picks + rows * np.arange(count)[:, None]
        yield np.bincount(picks.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)
