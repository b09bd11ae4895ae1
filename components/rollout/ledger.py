"""What a rollout has done so far, so that a killed run is gone on with by a retry, or settled by the next.

It is never kept in the InferenceService itself, whose metadata propagates to the pods and restarts them.
"""

import time
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.rollout.deployment import Deployment
from components.rollout.evidence import Arm, Observation
from components.rollout.release import Release

Outcome = Literal["promoted", "rolled_back", "halted"]


class Phase(StrEnum):
    """How far the rollout is; anything but ``SETTLED`` and ``HALTED`` that outlives its run must be settled."""

    SETTLED = "settled"
    STAGING = "staging"
    STAGED = "staged"
    SHIFTING = "shifting"
    PROMOTING = "promoting"
    ROLLING_BACK = "rolling back"
    HALTED = "halted"


class Event(BaseModel):
    """One entry of the timeline; counts are since the step began, latency in milliseconds."""

    model_config = ConfigDict(extra="allow")

    time: float
    what: str
    weight: int


class Ledger(BaseModel):
    """The record of the newest rollout of one service.

    Attributes:
        service: the InferenceService's name.
        run_id: the run that owns the rollout; a retried step of it goes on where it was.
        phase: how far it is.
        stable: the last good release; None before the first.
        candidate: the release on trial; None when settled.
        deployment: where and how it is served; None before it was.
        revision: what the challenger is called where it runs.
        weight: the share of the traffic that was last asked for, in percent.
        step_seconds: time spent in this step that counts: not paused, not frozen.
        total_seconds: time since the first step began, by the clock.
        seen: what was counted in this step.
        baseline: the champion's counts before this step.
        paused_by: who paused it; empty when it is not.
        outcome: how it ended; None while it goes on.
        reason: why, one sentence.
        saved: when it was written last, in seconds since the epoch.
        events: the timeline of this rollout.
    """

    service: str
    run_id: str = ""
    phase: Phase = Phase.SETTLED
    stable: Release | None = None
    candidate: Release | None = None
    deployment: Deployment | None = None
    revision: str = ""
    weight: int = 0
    step_seconds: float = 0.0
    total_seconds: float = 0.0
    seen: Observation = Observation()
    baseline: Arm = Arm()
    paused_by: str = ""
    outcome: Outcome | None = None
    reason: str = ""
    saved: float = 0.0
    events: list[Event] = []

    def note(self, what: str, weight: int, **seen: Any) -> Event:
        """Add an event to the timeline."""
        event = Event.model_validate({"time": time.time(), "what": what, "weight": weight, **seen})
        self.events.append(event)
        return event

    def end(self, outcome: Outcome, reason: str) -> None:
        """Close the rollout: a halted one keeps its candidate, for a person to decide about."""
        self.outcome, self.reason = outcome, reason
        if outcome == "halted":
            self.phase = Phase.HALTED
            return
        if outcome == "promoted" and self.candidate is not None:
            self.stable = self.candidate
        self.phase, self.candidate = Phase.SETTLED, None
