"""Explanations of a request's rows, and the reply that carries them."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from components.errors import BadInput, SluicewayError
from serving.bundle import Model, Predictions
from serving.explain.game import Game
from serving.explain.sampling import End, estimate
from serving.inputs import Columns, coerce

ROWS = 64
"""Most rows of one call."""
PRECISION = 0.01
"""Standard error that is precise enough, as a share of what there is to explain."""


class NoBackground(SluicewayError):
    """The bundle keeps no rows to explain against."""


class Explained(Protocol):
    """A loaded model, such as :class:`serving.server.served.Served`."""

    @property
    def model(self) -> Model:
        """Its bundle."""

    def score_columns(self, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> Predictions:
        """Predict from raw input columns by name, in any thread."""


@dataclass(frozen=True)
class Explanation:
    """What made a row's prediction what it is.

    Attributes:
        of: class whose probability is explained; None for regression.
        base_value: mean prediction of the background rows.
        prediction: of the row; ``base_value`` plus all contributions.
        contributions: by raw input column.
        standard_errors: of the contributions; NaN where they cannot be told.
        permutations: how many orders of the columns were tried; 0 where every coalition of columns was.
        background_rows: how many rows it was explained against.
        ended: ``exact``: nothing is left to do; ``precision``: the errors are small enough; ``seconds``: the time was
            over.
    """

    of: str | None
    base_value: float
    prediction: float
    contributions: dict[str, float]
    standard_errors: dict[str, float]
    permutations: int
    background_rows: int
    ended: End


def explain(
    served: Explained,
    columns: Mapping[str, Sequence[Any] | NDArray[Any]],
    rows: int,
    *,
    seconds: float,
    of: str | None = None,
    precision: float = PRECISION,
    seed: int = 0,
) -> list[Explanation]:
    """Explain predictions of raw rows.

    Args:
        served: the model.
        columns: raw input columns by name, of one length.
        rows: that length.
        seconds: after which it ends; overrun by at most a tenth, or by one call of the model where that is longer.
        of: class to explain; None takes each row's most probable.
        precision: standard error that is precise enough, as a share of what there is to explain of a row; 0 goes on
            until the time is over, unless it can be exact.
        seed: of the permutations.

    Returns:
        One for each row, in order.

    Raises:
        NoBackground: the bundle keeps no rows to explain against.
        BadInput: a column is missing, a value does not fit, there are too many rows, or no such class.
        TooSlow: the time was over before anything could be said.
    """
    deadline = time.monotonic() + seconds
    model = served.model
    background, schema, classes = model.background, model.schema, model.manifest.classes
    if background is None:
        raise NoBackground(
            "This model's bundle has no background rows to explain against: train it again, with "
            "SLUICEWAY_BACKGROUND_ROWS above 0."
        )
    if rows > ROWS:
        raise BadInput(f"There are {rows:,} rows to explain; the most is {ROWS}. Send several requests.")
    chosen = _chosen(of, classes, rows)
    if rows == 0:
        return []
    typed = coerce(columns, schema)
    pool: Columns = {name: np.concatenate([values, background.columns[name]]) for name, values in typed.items()}
    game = Game(served.score_columns, pool, rows, deadline)
    game.begin(chosen)
    found = estimate(game, precision, np.random.default_rng(seed))
    base = game.empty.mean(axis=1)
    return [
        Explanation(
            of=classes[game.chosen[row]] if classes else None,
            base_value=float(base[row]),
            prediction=float(game.full[row]),
            contributions=dict(zip(pool, found.contributions[row].tolist(), strict=True)),
            standard_errors=dict(zip(pool, found.errors[row].tolist(), strict=True)),
            permutations=found.permutations,
            background_rows=found.background,
            ended=found.end,
        )
        for row in range(rows)
    ]


def reply(explanations: Sequence[Explanation]) -> dict[str, Any]:
    """The body of the V1 protocol's reply to ``:explain``: ``{"explanations": [...]}``, one for each instance."""
    return {"explanations": [_told(one) for one in explanations]}


def _told(one: Explanation) -> dict[str, Any]:
    return {
        **({} if one.of is None else {"class": one.of}),
        "base_value": _number(one.base_value),
        "prediction": _number(one.prediction),
        "contributions": {name: _number(value) for name, value in one.contributions.items()},
        "standard_errors": {name: _number(value) for name, value in one.standard_errors.items()},
        "permutations": one.permutations,
        "background_rows": one.background_rows,
        "ended": one.ended,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _chosen(of: str | None, classes: tuple[str, ...], rows: int) -> "NDArray[np.intp] | None":
    if of is None:
        return None
    if of not in classes:
        known = ", ".join(classes) if classes else "none: it predicts a value"
        raise BadInput(f"The model has no class {of!r}; its classes are {known}.")
    return np.full(rows, classes.index(of))
