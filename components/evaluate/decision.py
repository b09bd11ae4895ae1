"""The decision contract: ``decision.json``, which registration and rollout refuse to go without."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from components.errors import BadInput

FILE = "decision.json"


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


# JSON has no NaN: a value that could not be computed is null, and a check on it fails.
Number = Annotated[float | None, BeforeValidator(_finite)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Frozen):
    """A confidence interval; null where it could not be computed."""

    low: Number = None
    high: Number = None


class Measured(_Frozen):
    """One metric on the test split.

    Attributes:
        value: the challenger's.
        interval: of the value.
        champion: the champion's on the same rows; null when there is none.
        difference: challenger minus champion, paired over rows.
        higher_is_better: which way is good.
    """

    value: Number
    interval: Interval
    champion: Number = None
    difference: Interval | None = None
    higher_is_better: bool


class Check(_Frozen):
    """One reason to pass or to stop.

    Attributes:
        name: what was checked.
        passed: false also when it could not be checked.
        value: what was measured.
        threshold: what it was held against.
        interval: the confidence interval that the check looked at, where there is one.
        champion: the champion's value, where it matters.
        reason: one sentence with the numbers.
    """

    name: str
    passed: bool
    value: Number = None
    threshold: Number = None
    interval: Interval | None = None
    champion: Number = None
    reason: str


class Decision(_Frozen):
    """What the gate decided, and about which model.

    Attributes:
        passed: every check passed.
        recipe_digest: the model that was judged.
        bundle_digest: sha256 of its ``bundle.json``, which holds the digest of every other file.
        data_version: the data it was trained and judged on.
        champion_version: the version it was compared with; empty when there was none.
        primary_metric: the metric that the floor and the comparison go by.
        confidence: of every interval.
        bootstrap: resamples behind the intervals.
        seed: of the resamples.
        rows: rows of the test split.
        metrics: by name.
        checks: all of them, in the order they were made.
    """

    version: Literal[1] = 1
    passed: bool
    recipe_digest: str
    bundle_digest: str
    data_version: str
    champion_version: str = ""
    primary_metric: str
    confidence: float
    bootstrap: int
    seed: int
    rows: int
    metrics: dict[str, Measured]
    checks: tuple[Check, ...]

    @classmethod
    def read(cls, path: Path) -> "Decision":
        """Read a decision from the file, or from the folder that holds it.

        Raises:
            BadInput: there is none, or it is not valid.
        """
        path = path / FILE if path.is_dir() else path
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BadInput(f"There is no decision at {path}: run the evaluate step first.") from error
        except ValueError as error:
            first = str(error).splitlines()[0]
            raise BadInput(f"{path} is not a decision ({first}): run the evaluate step again.") from error

    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)
