"""What a rollout means to do and what it must not break: frozen, checked at the edge."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.parameters import parsed
from components.rollout.freeze import Freeze

LONGEST_SECONDS = 6 * 24 * 60 * 60
"""The longest that a plan may give a rollout: less than the time after which its pod is ended."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Business(_Frozen):
    """A measure of the product, such as the share of offers accepted, that the challenger must not harm.

    Attributes:
        query: PromQL that gives one number; ``{service}``, ``{namespace}``, ``{revision}`` and ``{window}`` are filled
            in, the last as a PromQL duration.
        better: which way is good.
        lowest: least value that the query can give.
        highest: greatest value that it can give.
        margin: how much worse the challenger may be, in the query's unit.
        window_seconds: the stretch of time that one value is about; one is taken per stretch, so that they are apart.
    """

    query: str
    better: Literal["higher", "lower"] = "higher"
    lowest: float = 0.0
    highest: float = 1.0
    margin: float = Field(default=0.02, ge=0)
    window_seconds: float = Field(default=60, gt=0)

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if not self.lowest < self.highest:
            raise ValueError(f"lowest ({self.lowest}) must be below highest ({self.highest})")
        if "{revision}" not in self.query:
            raise ValueError("the query must name {revision}, or both versions would get the same value")
        return self


class Slo(_Frozen):
    """How much worse than the champion the challenger may be before that counts as harm.

    Attributes:
        error_rate_margin: allowed increase of the share of failed requests.
        latency_quantile: the quantile of latency that is shown; every quantile is held against the two limits below.
        latency_ratio: allowed increase of each quantile, as a factor.
        latency_slack_ms: increase of each quantile that is never harm, in milliseconds.
        slow_share_margin: share of requests by which those that are slower may be more than these limits allow.
        prediction_shift: by how much the share of predictions below any edge of the live metric's bins (Kolmogorov's
            distance), or of any label, may differ between the two versions beyond how it differed on the held-out
            rows. A share that a person can picture and, unlike a stability index, not biased by small counts; an index
            of 0.25 between normal distributions is a distance of 0.2, one of 0.1 is 0.13.
        mismatch_margin: largest share of answers to held-out rows that differ from the offline prediction.
        restarts: restarts of the challenger's server in one step, beyond the champion's, that are too many.
        business: a measure of the product; None for none.
        false_rollback_rate: chance, over a whole step and however often the judge looks, to roll back a version that
            is within every margin.
    """

    error_rate_margin: float = Field(default=0.01, ge=0, le=1)
    latency_quantile: float = Field(default=0.95, gt=0, lt=1)
    latency_ratio: float = Field(default=1.5, ge=1)
    latency_slack_ms: float = Field(default=50, ge=0)
    slow_share_margin: float = Field(default=0.001, ge=0, le=1)
    prediction_shift: float = Field(default=0.15, gt=0, lt=1)
    mismatch_margin: float = Field(default=0.01, ge=0, le=1)
    restarts: int = Field(default=2, ge=1)
    business: Business | None = None
    false_rollback_rate: float = Field(default=0.01, gt=0, lt=1)


class RolloutPlan(_Frozen):
    """The steps of a rollout.

    Attributes:
        steps: traffic shares of the challenger in percent, rising, ending at 100.
        min_requests: requests that the challenger must have answered in a step before it may advance.
        min_seconds: shortest time per step.
        max_seconds: longest time per step that counts; pauses and freezes do not.
        max_total_seconds: longest time for all steps together, by the clock; pauses and freezes count.
        max_down_seconds: how long the challenger may be without a server that is ready before it is rolled back.
        on_unclear: what to do when a step's time is over without a verdict, for want of traffic or of signals:
            "roll_back", or "halt" and leave the weights for a person to decide.
        shadow_per_second: held-out rows sent per second to both versions directly, beside the live traffic, whose
            answers are compared with the offline predictions; for services with little traffic of their own.
        interval_seconds: time between two looks; 0 goes by the source of the signals.
        freeze: times in which no step is taken; the judge watches on and may roll back.
        slo: the margins.
    """

    steps: tuple[int, ...] = (10, 50, 100)
    min_requests: int = Field(default=200, ge=20)
    min_seconds: float = Field(default=1, ge=0)
    max_seconds: float = Field(default=120, gt=0)
    max_total_seconds: float = Field(default=24 * 60 * 60, gt=0, le=LONGEST_SECONDS)
    max_down_seconds: float = Field(default=30, gt=0)
    on_unclear: Literal["roll_back", "halt"] = "roll_back"
    shadow_per_second: float = Field(default=0, ge=0)
    interval_seconds: float = Field(default=0, ge=0)
    freeze: tuple[Freeze, ...] = ()
    slo: Slo = Slo()

    @model_validator(mode="after")
    def _steps_rise_to_100(self) -> Self:
        rising = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if not self.steps or not rising or self.steps[0] <= 0 or self.steps[-1] != 100:
            raise ValueError(f"steps must rise from above 0 to 100, for instance [10, 50, 100]; got {list(self.steps)}")
        return self

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds ({self.min_seconds:g}) is above max_seconds ({self.max_seconds:g})")
        return self


def parse_plan(plan: dict[str, Any]) -> RolloutPlan:
    """Read a plan given as a parameter.

    Raises:
        BadInput: a step or margin is out of range or unknown; names it.
    """
    return parsed(RolloutPlan, plan, "The rollout plan", whole="steps")
