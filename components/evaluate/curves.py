"""What the plots show: ROC, calibration and confusion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluate.metrics import Floats, Ranking

_POINTS = 100


@dataclass(frozen=True)
class Roc:
    """A ROC curve of at most a hundred points, thresholds falling; every number is finite."""

    false_positive_rate: list[float]
    true_positive_rate: list[float]
    thresholds: list[float]


@dataclass(frozen=True)
class Confusion:
    """Counts, rows are true classes and columns predicted ones."""

    classes: list[str]
    counts: list[list[int]]


def roc(positive: NDArray[np.bool_], score: Floats) -> Roc:
    """The ROC curve, thinned evenly along its length.

    It starts at (0, 0), whose threshold is just above the highest score: KFP cannot hold infinity.
    """
    thresholds, alarms, hits = Ranking(positive, score).thresholds()
    thresholds = np.r_[thresholds[0] + 1e-6, thresholds]
    alarms, hits = np.r_[0.0, alarms], np.r_[0.0, hits]
    along = alarms + hits
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], _POINTS)).clip(0, len(along) - 1))
    return Roc(alarms[kept].tolist(), hits[kept].tolist(), thresholds[kept].tolist())


def calibration(positive: NDArray[np.bool_], score: Floats, bins: int = 10) -> list[tuple[float, float]]:
    """Mean predicted probability and observed share, in bins of equal numbers of rows."""
    order = np.argsort(score, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [(float(score[part].mean()), float(positive[part].mean())) for part in parts]


def confusion(target: NDArray[Any], scores: Floats, classes: Sequence[str]) -> Confusion:
    """True against most probable class."""
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (target, scores.argmax(axis=1)), 1)
    return Confusion(list(classes), counts.tolist())
