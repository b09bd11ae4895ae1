"""Metrics of a prediction, for many weightings of the rows at once.

Every metric takes weights of shape ``(draws, rows)``; a row of ones is the plain metric, bootstrap counts are
resamples. They agree with ``sklearn.metrics`` given the same ``sample_weight``.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.features.schema import Task

Floats = NDArray[np.float64]

HIGHER_IS_BETTER = {
    "roc_auc": True,
    "average_precision": True,
    "accuracy": True,
    "f1": True,
    "log_loss": False,
    "brier": False,
    "rmse": False,
    "mae": False,
    "r2": True,
}
RELATIVE = {"rmse", "mae", "log_loss"}
PRIMARY: dict[Task, str] = {"binary": "roc_auc", "multiclass": "roc_auc", "regression": "rmse"}
NAMES: dict[Task, tuple[str, ...]] = {
    "binary": ("roc_auc", "average_precision", "log_loss", "brier", "accuracy", "f1"),
    "multiclass": ("roc_auc", "log_loss", "accuracy", "f1"),
    "regression": ("rmse", "mae", "r2"),
}

_SMALL = np.finfo(np.float64).eps


def measure(task: Task, target: NDArray[Any], scores: Floats) -> dict[str, float]:
    """Every metric of the task on all rows.

    Args:
        task: decides which metrics; see ``NAMES``. Of several classes, ``roc_auc`` is the plain mean over classes of
            one against the rest, and ``f1`` the plain mean over classes.
        target: class index or value, ``(rows,)``.
        scores: probabilities ``(rows, classes)``, or values ``(rows,)``.

    Returns:
        Values by name; NaN where a metric is not defined on these rows, for instance an AUC of one class.
    """
    ones = np.ones((1, len(target)))
    return {name: float(metric(ones)[0]) for name, metric in metrics(task, target, scores)}


def metrics(task: Task, target: NDArray[Any], scores: Floats) -> list[tuple[str, Callable[[Floats], Floats]]]:
    """The metrics of the task as functions of weights ``(draws, rows)``, giving ``(draws,)``."""
    if not np.isfinite(scores).all():
        return [(name, lambda weights: np.full(len(weights), np.nan)) for name in NAMES[task]]
    if task == "regression":
        return list(_regression(np.asarray(target, np.float64), scores))
    return list(_classification(np.asarray(target, np.int64), scores, binary=task == "binary"))


def _classification(
    target: NDArray[np.int64], scores: Floats, binary: bool
) -> Iterator[tuple[str, Callable[[Floats], Floats]]]:
    classes = scores.shape[1]
    hits = np.equal(target[:, None], np.arange(classes)[None, :])
    shown = np.arange(1, 2) if binary else np.arange(classes)
    curves = [Ranking(hits[:, index], scores[:, index]) for index in shown]
    yield "roc_auc", lambda weights: np.mean([curve.roc_auc(weights) for curve in curves], axis=0)
    if binary:
        yield "average_precision", curves[0].average_precision
    probability = np.clip(scores[np.arange(len(target)), target], _SMALL, 1.0)
    yield "log_loss", _mean_of(-np.log(probability / np.maximum(scores.sum(axis=1), _SMALL)))
    if binary:
        yield "brier", _mean_of((scores[:, 1] - target) ** 2)
    guess = scores.argmax(axis=1)
    yield "accuracy", _mean_of((guess == target).astype(np.float64))
    guesses = np.equal(guess[:, None], np.arange(classes)[None, :])
    yield "f1", lambda weights: _f1(weights, hits[:, shown], guesses[:, shown])


def _regression(target: Floats, scores: Floats) -> Iterator[tuple[str, Callable[[Floats], Floats]]]:
    squares = (scores - target) ** 2
    yield "rmse", lambda weights: np.sqrt(_mean_of(squares)(weights))
    yield "mae", _mean_of(np.abs(scores - target))
    centred = target - target.mean()  # keeps the variance's two terms of one size

    def r2(weights: Floats) -> Floats:
        variance = _mean_of(centred**2)(weights) - _mean_of(centred)(weights) ** 2
        return 1.0 - _mean_of(squares)(weights) / np.where(variance > 0, variance, np.nan)

    yield "r2", r2


def _mean_of(per_row: Floats) -> Callable[[Floats], Floats]:
    def mean(weights: Floats) -> Floats:
        means: Floats = weights @ per_row / weights.sum(axis=1)
        return means

    return mean


def _f1(weights: Floats, hits: NDArray[np.bool_], guesses: NDArray[np.bool_]) -> Floats:
    """Plain mean of 2 TP / (2 TP + FP + FN) over the columns that are there or guessed; 0 where none is."""
    both = weights @ (hits & guesses).astype(np.float64)
    total = weights @ hits.astype(np.float64) + weights @ guesses.astype(np.float64)
    there = np.maximum((total > 0).sum(axis=1), 1)
    f1: Floats = (2 * both / np.where(total > 0, total, 1.0)).sum(axis=1) / there
    return f1


class Ranking:
    """Rows sorted by score once, so that any weighting of them is a cumulative sum."""

    def __init__(self, positive: NDArray[np.bool_], score: Floats) -> None:
        """Sort the rows; those of equal score are one group.

        Args:
            positive: whether a row is of the class, ``(rows,)``, at least one row.
            score: higher means more likely of the class, ``(rows,)``.
        """
        self._order = np.argsort(score, kind="stable")
        self._positive = positive[self._order]
        ranked = score[self._order]
        self._starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        self._scores = ranked[self._starts]

    def roc_auc(self, weights: Floats) -> Floats:
        """Chance that a positive outranks a negative, ties counting half (Mann-Whitney U); NaN without either."""
        positives, negatives = self._groups(weights)
        below = np.cumsum(negatives, axis=1) - negatives
        wins = (positives * (below + negatives / 2)).sum(axis=1)
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        auc: Floats = wins / np.where(pairs > 0, pairs, np.nan)
        return auc

    def average_precision(self, weights: Floats) -> Floats:
        """Sum over thresholds of precision times the step in recall, as scikit-learn defines it."""
        positives, negatives = self._groups(weights)
        positives, negatives = positives[:, ::-1], negatives[:, ::-1]
        found = np.cumsum(positives, axis=1)
        taken = found + np.cumsum(negatives, axis=1)
        precision = found / np.where(taken > 0, taken, 1.0)
        total = positives.sum(axis=1)
        average: Floats = (precision * positives).sum(axis=1) / np.where(total > 0, total, np.nan)
        return average

    def thresholds(self) -> tuple[Floats, Floats, Floats]:
        """Score, false positive rate and true positive rate at each group, highest score first."""
        positives, negatives = self._groups(np.ones((1, len(self._order))))
        hits, alarms = np.cumsum(positives[0, ::-1]), np.cumsum(negatives[0, ::-1])
        return self._scores[::-1], alarms / max(alarms[-1], 1.0), hits / max(hits[-1], 1.0)

    def _groups(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weight of positives and of negatives per group, ``(draws, groups)``."""
        ranked = weights[:, self._order]
        return (
            np.add.reduceat(ranked * self._positive, self._starts, axis=1),
            np.add.reduceat(ranked * ~self._positive, self._starts, axis=1),
        )
