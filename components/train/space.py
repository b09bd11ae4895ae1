"""The plan of a hyperparameter search: its budget, and what it tries."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.errors import BadInput
from components.features.schema import Task
from components.train.contract import Trainer
from components.train.hyperparameters import near

if TYPE_CHECKING:
    import optuna

MOST_TRIALS = 1000


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Dimension(_Frozen):
    """What is tried of one hyperparameter: a range, or a few choices.

    Attributes:
        low: smallest value.
        high: largest value, included.
        log: try as many between 0.001 and 0.01 as between 0.01 and 0.1.
        step: distance between values; whole numbers have 1.
        choices: instead of a range.
        whole: whether values are whole numbers; the hyperparameter says so itself.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = Field(default=None, gt=0)
    choices: tuple[bool | int | float | str | None, ...] | None = None
    whole: bool = False

    @model_validator(mode="after")
    def _range_or_choices(self) -> "Dimension":
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("give low and high, or choices, not both")
            if not self.choices:
                raise ValueError("choices is empty")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be above 0 with log")
        if self.log and self.step is not None:
            raise ValueError("step cannot go with log")
        return self

    def distribution(self) -> "optuna.distributions.BaseDistribution":
        """The dimension in Optuna's terms."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


class SearchPlan(_Frozen):
    """A search.

    Attributes:
        trials: how many at most.
        minutes: how long at most, for each worker; a trial that reports epochs is cut short, another one is not.
        space: what is tried, by hyperparameter.
    """

    trials: int | None = Field(default=None, ge=1, le=MOST_TRIALS)
    minutes: float | None = Field(default=None, gt=0)
    space: dict[str, Dimension] = {}

    @model_validator(mode="after")
    def _has_budget(self) -> "SearchPlan":
        if self.trials is None and self.minutes is None:
            raise ValueError("give trials, minutes or both: a search needs a budget")
        return self


def plan(given: Mapping[str, Any], name: str, trainer: Trainer, task: Task, chosen: Mapping[str, Any]) -> SearchPlan:
    """Read a user's plan, for instance ``{"trials": 30, "space": {"C": {"low": 0.01, "high": 10, "log": true}}}``.

    Args:
        given: ``trials``, ``minutes`` and ``space``; without a space, the trainer's own less what is chosen.
        name: of the trainer.
        trainer: knows its hyperparameters and their defaults.
        task: decides both.
        chosen: hyperparameters that the user has set.

    Raises:
        BadInput: names the field that cannot be used.
    """
    own = {key: value for key, value in trainer.space(task).items() if key not in chosen}
    try:
        read = SearchPlan.model_validate({**given, "space": given.get("space") or own})
    except ValidationError as error:
        raise BadInput(_complaint(error)) from error
    defaults = trainer.parameters(task)
    for key in read.space:
        if key not in defaults:
            raise BadInput(f"The search names {key!r}, but the trainer {name!r} has none{near(key, list(defaults))}.")
        if key in chosen:
            raise BadInput(f"{key!r} is both set by hyperparameters and searched: remove it from one of them.")
    if not read.space:
        raise BadInput(
            f"There is nothing to search: the trainer {name!r} has no space of its own, or all of it is set; give one."
        )
    typed = {key: _typed(key, dimension, defaults[key]) for key, dimension in read.space.items()}
    return read.model_copy(update={"space": typed})


def _typed(key: str, dimension: Dimension, default: Any) -> Dimension:
    """Whole numbers where the hyperparameter counts; KFP passes every number as a double."""
    if isinstance(default, float):
        return dimension.model_copy(update={"whole": False})
    if dimension.choices is not None:
        return dimension.model_copy(update={"choices": tuple(_whole(value) for value in dimension.choices)})
    bounds = [value for value in (dimension.low, dimension.high, dimension.step) if value is not None]
    whole = all(value.is_integer() for value in bounds)
    if isinstance(default, int) and not whole:
        raise BadInput(f"The search's space.{key} must have whole numbers: {key} counts, its default is {default}.")
    return dimension.model_copy(update={"whole": whole})


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        fields = list(Dimension.model_fields if "space" in first["loc"] else SearchPlan.model_fields)
        fields = [field for field in fields if field != "whole"]
        said = f"there is no such field{near(str(first['loc'][-1]), fields)}"
    return f"The search plan cannot be used: {where + ': ' if where else ''}{said}."
