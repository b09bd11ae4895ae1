"""Goes over the background rows until the contributions are exact, precise enough, or the time is over."""

import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from components.errors import SluicewayError
from serving.explain.game import Floats, Game, OutOfTime, Places
from serving.explain.methods import EXACT_COLUMNS, antithetic, antithetic_calls, exact, exact_calls

End = Literal["exact", "precision", "seconds"]

EXACT_SHARE = 0.5
"""All coalitions are evaluated where that is expected to take this share of the time at most."""
LEAST_UNITS = 200
"""Background rows, counted in every round, before an error is believed: that of a few is itself uncertain."""
PART_SHARE = 0.2
"""Of the time that is left, what a part of a round is expected to take at most."""
NUMBERS_AT_ONCE = 2_000_000
"""Of one array; a round that needs more is done in parts."""


class TooSlow(SluicewayError):
    """The time was over before anything could be said."""


@dataclass(frozen=True)
class Estimate:
    """Contributions of each explained row.

    Attributes:
        contributions: (explained, columns); a row's sum is its prediction less the mean of the background's.
        errors: their standard errors, (explained, columns); 0 where they are exact, NaN where they cannot be told.
        permutations: evaluated for each row; 0 where every coalition was.
        background: how many background rows were used.
        end: why no more were.
    """

    contributions: Floats
    errors: Floats
    permutations: int
    background: int
    end: End


def estimate(game: Game, precision: float, random: np.random.Generator) -> Estimate:
    """Estimate Shapley values.

    A round takes each background row once, in random order, for all explained rows together; so a whole round has the
    right sum. When the time ends within the first, the sum is mended (:meth:`_Tally.partial`); a later round that is
    not whole is dropped.

    Args:
        game: begun.
        precision: the largest standard error of a row that is precise enough, as a share of what there is to explain:
            its prediction less the mean, or the background's standard deviation where that is larger.
        random: draws permutations and the order of the background.

    Raises:
        TooSlow: there was no time for two background rows.
    """
    wanted = precision * np.maximum(np.abs(game.full - game.empty.mean(axis=1)), game.empty.std(axis=1))
    tally = _Tally(game)
    took = 0.0
    while True:
        began = time.monotonic()
        if tally.rounds and began + took > game.deadline:
            return tally.whole("seconds")
        try:
            tally.round(random)
        except OutOfTime:
            return tally.whole("seconds") if tally.rounds else tally.partial()
        took = time.monotonic() - began
        if not tally.permutations:
            return tally.whole("exact")
        done = tally.whole("precision")
        if tally.rounds * game.background >= LEAST_UNITS and (done.errors <= wanted[:, np.newaxis]).all():
            return done


@dataclass
class _Tally:
    """What is known so far.

    Attributes:
        rounds: how many are whole.
        permutations: evaluated in them, and in the first where it is not.
        mean: of each background row's contributions over the rounds, (explained, background, columns).
        squares: sum of the squared deviations from it.
        used: background rows of the first round, in the order in which they were done.
    """

    game: Game
    rounds: int = 0
    permutations: int = 0
    mean: Floats = field(init=False)
    squares: Floats = field(init=False)
    used: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mean = np.zeros((self.game.explained, self.game.background, self.game.columns))
        self.squares = np.zeros_like(self.mean)

    def round(self, random: np.random.Generator) -> None:
        """Do another.

        Raises:
            OutOfTime: the deadline came; of a first round what was done is kept.
        """
        first, order = self.rounds == 0, random.permutation(self.game.background)
        gains = self.mean if first else np.empty_like(self.mean)
        done = permutations = 0
        while done < len(order):
            rest = order[done:] if done else order[:1]  # the first alone says how long the others will take
            every = first and self._is_for_all_coalitions(rest)
            part = rest[: self._at_once(rest, every)]
            gains[:, part] = exact(self.game, part) if every else antithetic(self.game, part, random)
            permutations += 0 if every else 2 * len(part)
            done += len(part)
            if first:
                self.used += part.tolist()
                self.permutations = permutations
        self.rounds += 1
        if not first:
            self.permutations += permutations
            away = gains - self.mean  # Welford's update
            self.mean += away / self.rounds
            self.squares += away * (gains - self.mean)

    def whole(self, end: End) -> Estimate:
        """After whole rounds: what is left of the error is that of the permutations, within background rows.

        After one round it cannot be told from the variation between background rows, which it then includes.
        """
        background = self.game.background
        if not self.permutations:
            errors = np.zeros_like(self.mean[:, 0])
        elif self.rounds == 1:
            errors = _error_of_mean(self.mean)
        else:
            within = self.squares.sum(axis=1) / (self.rounds - 1)
            errors = np.sqrt(within / self.rounds) / background
        return Estimate(self.mean.mean(axis=1), errors, self.permutations, background, end)

    def partial(self) -> Estimate:
        """Of a first round that was not whole.

        The sum is that of the background rows that were used. The difference to all rows' is shared out by the
        variances of the contributions, which is the likeliest place for it if their errors are independent: a column
        that never contributes still does not.

        Raises:
            TooSlow: it has fewer than two background rows.
        """
        if len(self.used) < 2:
            raise TooSlow(
                f"Explaining {self.game.explained} rows of {self.game.columns} columns takes longer than it may: send "
                "fewer rows, or allow more time."
            )
        gains = self.mean[:, self.used]
        found, errors = gains.mean(axis=1), _error_of_mean(gains)
        lacking = self.game.full - self.game.empty.mean(axis=1) - found.sum(axis=1)
        share = np.square(errors)
        none = share.sum(axis=1) == 0
        share[none] = np.abs(found[none])
        share[share.sum(axis=1) == 0] = 1.0
        share /= share.sum(axis=1, keepdims=True)
        found = found + lacking[:, np.newaxis] * share
        return Estimate(found, errors, self.permutations, len(self.used), "seconds")

    def _is_for_all_coalitions(self, rows: Places) -> bool:
        if self.game.columns > EXACT_COLUMNS:
            return False
        left = self.game.deadline - time.monotonic()
        return exact_calls(self.game, rows) * self.game.seconds_per_row <= EXACT_SHARE * left

    def _at_once(self, rest: Places, every: bool) -> int:
        """Background rows of the next part: few enough that what the deadline cuts off is a small part."""
        each = (1 << self.game.columns) if every else 2 * self.game.columns
        fits = NUMBERS_AT_ONCE // (self.game.explained * each)
        calls = exact_calls(self.game, rest) if every else antithetic_calls(self.game, rest)
        seconds = max(calls * self.game.seconds_per_row / len(rest), 1e-9)
        left = self.game.deadline - time.monotonic()
        return max(1, min(fits, int(PART_SHARE * left / seconds)))


def _error_of_mean(gains: Floats) -> Floats:
    """Standard error of the mean over the units (axis 1) of (explained, units, columns); NaN of a single one."""
    units = gains.shape[1]
    if units < 2:
        return np.full_like(gains[:, 0], np.nan)
    error: Floats = gains.std(axis=1, ddof=1) / np.sqrt(units)
    return error
