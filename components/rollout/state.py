"""Where a rollout stands, and what to do next: ``decide`` is pure, effects live in the target."""

from dataclasses import dataclass
from enum import StrEnum

from components.rollout.judge import Finding, Verdict
from components.rollout.plan import RolloutPlan


class Do(StrEnum):
    """What to do next."""

    HOLD = "hold"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"


@dataclass(frozen=True)
class Action:
    """The next thing to do and why."""

    do: Do
    reason: str
    weight: int = 0


def decide(weight: int, elapsed: float, verdict: Verdict, plan: RolloutPlan) -> Action:
    """Decide from the weight in force, the seconds spent in this step and the judge's verdict."""
    if verdict.finding is Finding.HARM:
        return Action(Do.ROLL_BACK, verdict.reason)
    if verdict.finding is Finding.OK and elapsed >= plan.min_seconds:
        later = [step for step in plan.steps if step > weight]
        if later:
            return Action(Do.ADVANCE, verdict.reason, later[0])
        return Action(Do.PROMOTE, verdict.reason)
    if elapsed >= plan.max_seconds:
        return Action(Do.ROLL_BACK, f"no clear verdict within {plan.max_seconds:.0f} s: {verdict.reason}")
    return Action(Do.HOLD, verdict.reason)
