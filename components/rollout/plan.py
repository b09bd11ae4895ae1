"""What a rollout means to do and what it must not break: frozen, checked at the edge."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.errors import BadInput


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Slo(_Frozen):
    """How much worse than the champion the challenger may be before that counts as harm.

    Attributes:
        error_rate_margin: allowed increase of the share of failed requests.
        latency_ratio: allowed increase of the champion's 95th percentile, as a factor.
        latency_slack_ms: increase of the 95th percentile that is never harm, in milliseconds.
        slow_share_margin: allowed increase of the share of requests slower than that limit.
        prediction_shift: largest population stability index between the two versions' predictions.
        false_rollback_rate: chance, per step, to roll back a version that is within every margin.
    """

    error_rate_margin: float = Field(default=0.01, ge=0, le=1)
    latency_ratio: float = Field(default=1.5, ge=1)
    latency_slack_ms: float = Field(default=50, ge=0)
    slow_share_margin: float = Field(default=0.05, ge=0, le=1)
    prediction_shift: float = Field(default=0.25, gt=0)
    false_rollback_rate: float = Field(default=0.01, gt=0, lt=1)


class RolloutPlan(_Frozen):
    """The steps of a rollout.

    Attributes:
        steps: traffic shares of the challenger in percent, rising, ending at 100.
        min_requests: requests that the challenger must have answered in a step before it may advance.
        min_seconds: shortest time per step.
        max_seconds: longest time per step; without a clear verdict by then the rollout rolls back.
        slo: the margins.
    """

    steps: tuple[int, ...] = (10, 50, 100)
    min_requests: int = Field(default=200, ge=20)
    min_seconds: float = Field(default=1, ge=0)
    max_seconds: float = Field(default=120, gt=0)
    slo: Slo = Slo()

    @model_validator(mode="after")
    def _steps_rise_to_100(self) -> Self:
        rising = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if not self.steps or not rising or self.steps[0] <= 0 or self.steps[-1] != 100:
            raise ValueError(f"steps must rise from above 0 to 100, for instance [10, 50, 100]; got {list(self.steps)}")
        return self


def parse_plan(plan: dict[str, Any]) -> RolloutPlan:
    """Read a plan given as a parameter.

    Raises:
        BadInput: a step or margin is out of range or unknown; names it.
    """
    try:
        return RolloutPlan.model_validate(plan)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "steps"
        raise BadInput(f"The rollout plan is wrong at {where}: {first['msg']}.") from error
