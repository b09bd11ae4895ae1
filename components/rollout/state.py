"""Where a rollout stands, and what to do next: ``decide`` is pure, effects live in the target."""

from dataclasses import dataclass
from enum import StrEnum

from components.rollout.judge import Finding, Verdict
from components.rollout.plan import RolloutPlan
from components.rollout.targets.target import Copies, Sight


class Do(StrEnum):
    """What to do next."""

    HOLD = "hold"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"
    HALT = "halt"


@dataclass(frozen=True)
class Action:
    """The next thing to do and why."""

    do: Do
    reason: str
    weight: int = 0


@dataclass(frozen=True)
class Situation:
    """Everything that a decision is taken from.

    Attributes:
        weight: the challenger's share of the traffic in force, in percent.
        step_seconds: time in this step that counts: not paused, not frozen.
        total_seconds: time since the first step began.
        verdict: what the judge says of this step.
        sight: both versions' servers; None while the place cannot be asked.
        first: whether this is a first deployment, with no champion to go back to.
        down_seconds: how long the challenger has had no server that is ready.
        paused_by: who paused the rollout; empty when nobody has.
        frozen_until: when the freeze ends that is in force; empty when there is none.
        abort_by: who asked to roll back; empty when nobody has.
        promote_by: who asked to skip the steps that are left; empty when nobody has.
    """

    weight: int
    step_seconds: float
    total_seconds: float
    verdict: Verdict
    sight: Sight | None
    first: bool = False
    down_seconds: float = 0.0
    paused_by: str = ""
    frozen_until: str = ""
    abort_by: str = ""
    promote_by: str = ""


def decide(now: Situation, plan: RolloutPlan) -> Action:
    """Decide what to do next.

    What protects the clients comes first: a person's change is respected, then harm is ended, paused or not. Then
    the longest time, which nothing outlasts, then what a person asks, then the plan.
    """
    return _stopped(now, plan) or _over(now, plan) or _asked(now) or _next(now, plan)


def _stopped(now: Situation, plan: RolloutPlan) -> Action | None:
    if now.sight is not None and now.sight.changed:
        return Action(Do.HALT, f"somebody else has changed the service: {now.sight.changed}")
    if now.abort_by:
        return _back(now, f"aborted by {now.abort_by}")
    if now.verdict.finding is Finding.HARM:
        return _back(now, now.verdict.reason)
    if now.down_seconds >= plan.max_down_seconds:
        trouble = now.sight.canary.trouble if now.sight is not None else ""
        return _back(
            now, f"no server of the challenger was ready for {now.down_seconds:.0f} s: {trouble or 'no reason'}"
        )
    return None


def _asked(now: Situation) -> Action | None:
    if not now.promote_by:
        return None
    if now.sight is None or not _can_take_all(now.sight.canary):
        return Action(Do.HOLD, f"{now.promote_by} asked to promote, but the challenger's servers are not all ready")
    return Action(Do.PROMOTE, f"promoted by {now.promote_by} before the judge was done")


def _over(now: Situation, plan: RolloutPlan) -> Action | None:
    if now.total_seconds >= plan.max_total_seconds:
        return _give_up(now, plan, f"the whole rollout took longer than {plan.max_total_seconds:.0f} s")
    return None


def _next(now: Situation, plan: RolloutPlan) -> Action:
    if now.paused_by:
        return Action(Do.HOLD, f"paused by {now.paused_by}")
    if now.frozen_until:
        return Action(Do.HOLD, f"frozen until {now.frozen_until}")
    ready = now.sight is not None and _can_take_all(now.sight.canary)
    if now.verdict.finding is Finding.OK and now.step_seconds >= plan.min_seconds and ready:
        later = [step for step in plan.steps if step > now.weight]
        if later:
            return Action(Do.ADVANCE, now.verdict.reason, later[0])
        return Action(Do.PROMOTE, now.verdict.reason)
    if now.step_seconds >= plan.max_seconds:
        return _give_up(now, plan, f"no clear verdict within {plan.max_seconds:.0f} s: {now.verdict.reason}")
    return Action(Do.HOLD, now.verdict.reason if ready else "waiting for the challenger's servers")


def _give_up(now: Situation, plan: RolloutPlan, reason: str) -> Action:
    return _back(now, reason) if plan.on_unclear == "roll_back" else Action(Do.HALT, reason)


def _back(now: Situation, reason: str) -> Action:
    """Roll back, unless the challenger is the only one that can answer: never onto a champion that is sick."""
    sight = now.sight
    if sight is not None and not now.first and sight.canary.ready and _sick(sight.stable):
        why = sight.stable.trouble or "none of its servers is ready"
        return Action(Do.HALT, f"would roll back ({reason}), but the champion could not take the traffic: {why}")
    return Action(Do.ROLL_BACK, reason)


def _sick(copies: Copies) -> bool:
    """Scaled to zero is not sick: the first request starts a server."""
    return copies.wanted > 0 and copies.ready == 0


def _can_take_all(copies: Copies) -> bool:
    return copies.ready >= max(copies.wanted, 1)
