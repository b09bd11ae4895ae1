"""Contributions of a row against one background row: exact, or from a random permutation and its reverse."""

from functools import cache
from math import factorial

import numpy as np

from serving.explain.game import Floats, Game, Places

EXACT_COLUMNS = 10
"""Up to so many columns every coalition may be evaluated: 1,024 of them."""


def exact_calls(game: Game, against: Places) -> int:
    """How many predictions :func:`exact` asks for, or a little less."""
    return int((1 << game.differs[:, against].sum(axis=2)).sum())


def exact(game: Game, against: Places) -> Floats:
    """Evaluate all coalitions.

    A column that has the background's value changes nothing, so that coalitions that differ in such columns alone are
    evaluated once.

    Args:
        game: at most :data:`EXACT_COLUMNS` columns.
        against: background rows, (k,).

    Returns:
        Contributions (explained, k, columns).

    Raises:
        OutOfTime: the deadline came.
    """
    columns = game.columns
    bits = 1 << np.arange(columns)
    coalitions = np.arange(1 << columns)
    differs = game.differs[:, against] @ bits  # (explained, k) as bit sets
    canonical = coalitions & differs[:, :, np.newaxis]
    needed = (coalitions == canonical) & (coalitions != 0) & (coalitions != differs[:, :, np.newaxis])
    value = np.empty(canonical.shape)
    value[:, :, 0] = game.empty[:, against]  # of equal rows this is the other end, too, and as good
    np.put_along_axis(value, differs[:, :, np.newaxis], game.full[:, np.newaxis, np.newaxis], axis=2)
    row, unit, which = np.nonzero(needed)
    value[needed] = game.values(row, against[unit], lambda part: (which[part, np.newaxis] & bits) > 0)
    value = np.take_along_axis(value, canonical, axis=2)
    gains = [(value[:, :, without | bit] - value[:, :, without]) @ weights for bit, without, weights in _terms(columns)]
    return np.stack(gains, axis=-1)


@cache
def _terms(columns: int) -> list[tuple[int, Places, Floats]]:
    """Shapley's formula by column: its bit, the coalitions without it, and the weight of what it adds to each."""
    coalitions = np.arange(1 << columns)
    sizes = np.array([int(one).bit_count() for one in coalitions])
    share = np.array([factorial(s) * factorial(columns - s - 1) for s in range(columns)]) / factorial(columns)
    bits = [1 << column for column in range(columns)]
    return [(bit, w := coalitions[coalitions & bit == 0], share[sizes[w]]) for bit in bits]


def antithetic_calls(game: Game, against: Places) -> int:
    """How many predictions :func:`antithetic` asks for, or a little more."""
    return 2 * int(game.differs[:, against].sum())


def antithetic(game: Game, against: Places, random: np.random.Generator) -> Floats:
    """Walk from the background row to the explained one, a column at a time, in a random order and in its reverse.

    Permutation sampling is Štrumbelj and Kononenko's (Knowledge and Information Systems 41, 2014); with its reverse a
    permutation is exact where no more than two columns act together (Mitchell et al., JMLR 23, 2022). A step that
    changes nothing is not evaluated.

    Args:
        game: any number of columns.
        against: background rows, (k,).
        random: draws a permutation for each.

    Returns:
        Contributions (explained, k, columns), the mean of both walks.

    Raises:
        OutOfTime: the deadline came.
    """
    units, columns = len(against), game.columns
    one_way = random.permuted(np.tile(np.arange(columns), (units, 1)), axis=1)
    order = np.concatenate([one_way, one_way[:, ::-1]])  # (walks, columns): the column of each step
    back = np.concatenate([against, against])
    step = np.argsort(order, axis=1)  # (walks, columns): the step of each column
    by_step = np.broadcast_to(order, (game.explained, *order.shape))
    moves = np.take_along_axis(game.differs[:, back], by_step, axis=2)  # (explained, walks, steps)
    done = moves.cumsum(axis=2)
    ends = done == done[:, :, -1:]
    row, walk, at = np.nonzero(moves & ~ends)
    value = np.empty((game.explained, 2 * units, columns + 1))
    value[:, :, 0] = game.empty[:, back]
    value[:, :, 1:] = game.full[:, np.newaxis, np.newaxis]
    value[row, walk, at + 1] = game.values(row, back[walk], lambda part: step[walk[part]] <= at[part, np.newaxis])
    # A step that moved nothing has the value of the latest that did.
    latest = np.where(moves, np.arange(1, columns + 1), 0)
    np.maximum.accumulate(latest, axis=2, out=latest)
    value[:, :, 1:] = np.take_along_axis(value, latest, axis=2)
    gains = np.empty((game.explained, 2 * units, columns))
    np.put_along_axis(gains, by_step, np.diff(value, axis=2), axis=2)
    return (gains[:, :units] + gains[:, units:]) / 2
