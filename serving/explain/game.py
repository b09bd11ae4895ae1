"""Evaluates coalitions: rows that have some columns of an explained row and the others of a background row."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.background import same
from serving.inputs import Columns

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Score = Callable[[Columns], Floats]

MOST_ROWS = 8_192
MOST_VALUES = 1_000_000
"""Of one call of the model; a wide table's call has fewer rows."""
CALL_SHARE = 0.1
"""Of the time that is left, what one call of the model may take, so that the end is not overrun by more."""


class OutOfTime(Exception):
    """The deadline came in the middle of an evaluation."""


@dataclass
class Game:
    """Explained rows against background rows.

    Attributes:
        score: the model: typed columns to one number per row; probabilities (n, k) or values (n,).
        pool: by column, values of the explained rows, then those of the background rows.
        explained: how many rows of the pool are explained.
        deadline: on the clock of ``time.monotonic``; no evaluation begins after it.
        chosen: by explained row, which column of the probabilities is explained; set by :func:`begin`.
        full: predictions of the explained rows, (explained,).
        empty: predictions of the background rows, of what is explained of each row: (explained, background).
        differs: where a column of a row differs from that of a background row: (explained, background, columns).
        seconds_per_row: of the latest call of the model.
    """

    score: Score
    pool: Columns
    explained: int
    deadline: float
    chosen: NDArray[np.intp] = field(init=False)
    full: Floats = field(init=False)
    empty: Floats = field(init=False)
    differs: NDArray[np.bool_] = field(init=False)
    seconds_per_row: float = 0.0

    @property
    def columns(self) -> int:
        """How many columns play."""
        return len(self.pool)

    @property
    def background(self) -> int:
        """How many background rows there are."""
        return len(self.empty[0])

    def begin(self, chosen: Places | None) -> None:
        """Predict the explained rows and the background.

        Args:
            chosen: column of the probabilities to explain, per row; None takes the most probable class.
        """
        began = time.monotonic()
        scores = self.score(self.pool)
        self.seconds_per_row = (time.monotonic() - began) / len(scores)
        rows = self.explained
        if scores.ndim == 1:
            scores = scores[:, np.newaxis]
        self.chosen = scores[:rows].argmax(axis=1) if chosen is None else chosen
        self.full = scores[np.arange(rows), self.chosen]
        self.empty = scores[rows:, self.chosen].T.copy()
        self.differs = np.stack([~same(v[:rows, None], v[None, rows:]) for v in self.pool.values()], axis=-1)

    def values(self, rows: Places, against: Places, plays: "Callable[[slice], NDArray[np.bool_]]") -> Floats:
        """Predict coalitions.

        Args:
            rows: explained row of each coalition, (n,).
            against: background row of each, (n,).
            plays: says of a slice of them which columns are the explained row's, (size of the slice, columns).

        Returns:
            What is explained of the predictions, (n,).

        Raises:
            OutOfTime: the deadline came before all were predicted.
        """
        made = np.empty(len(rows))
        start = 0
        while start < len(rows):
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise OutOfTime
            part = slice(start, start + self._at_once(left))
            made[part] = self._call(rows[part], against[part], plays(part))
            start = part.stop
        return made

    def _at_once(self, left: float) -> int:
        most = max(1, min(MOST_ROWS, MOST_VALUES // self.columns))
        return max(1, min(most, int(CALL_SHARE * left / max(self.seconds_per_row, 1e-9))))

    def _call(self, rows: Places, against: Places, plays: NDArray[np.bool_]) -> Floats:
        began = time.monotonic()
        away = against + self.explained
        taken = (np.where(plays[:, place], rows, away) for place in range(self.columns))
        scores = self.score({name: values[take] for (name, values), take in zip(self.pool.items(), taken, strict=True)})
        self.seconds_per_row = (time.monotonic() - began) / len(rows)
        return scores if scores.ndim == 1 else scores[np.arange(len(rows)), self.chosen[rows]]
