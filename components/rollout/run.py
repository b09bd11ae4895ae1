"""The rollout: shift, watch, judge, then promote or roll back.

Every effect is written to the ledger before it is made, so that a process killed anywhere in between is settled by
:mod:`components.rollout.settle` to one of two states: the champion as before, or the challenger promoted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from components.errors import NotReady
from components.register import registry
from components.rollout import ledger as ledgers
from components.rollout.evidence import Arm
from components.rollout.judge import Finding, Verdict, judge, requests_for_look
from components.rollout.ledger import Ledger, Phase, Release
from components.rollout.plan import RolloutPlan
from components.rollout.shift import expected_shift
from components.rollout.state import Action, Do, decide
from components.rollout.targets.single_machine import SingleMachine
from components.rollout.traffic import Replay, Rows, read_rows

Outcome = Literal["promoted", "rolled_back"]
Say = Callable[[str], None]

_SAMPLE_SECONDS = 0.25


@dataclass(frozen=True)
class Result:
    """How a rollout ended; ``sent`` and ``failed`` count the replayed requests."""

    outcome: Outcome
    reason: str
    url: str
    sent: int = 0
    failed: int = 0


def replay_and_roll_out(
    home: Path, service: str, plan: RolloutPlan, revision: str, predictions: Path, per_second: int, say: Say
) -> Result:
    """Roll out while held-out rows are replayed to the service; see :func:`roll_out`."""
    rows = read_rows(predictions)
    with Replay(SingleMachine(home, service).url(), service, rows.instances, per_second) as replay:
        result = roll_out(home, service, plan, revision, rows, say)
    return replace(result, sent=replay.sent, failed=replay.failed)


def roll_out(home: Path, service: str, plan: RolloutPlan, revision: str, rows: Rows, say: Say) -> Result:
    """Take the staged candidate through the plan's steps.

    Args:
        home: local state.
        service: the InferenceService's name.
        plan: steps and margins.
        revision: the staged revision, empty when the candidate is the champion that is live already.
        rows: held-out rows with both versions' offline predictions, for the shift that is to be expected.
        say: told of each step.

    Raises:
        Busy: another rollout of this service is at work.
    """
    with ledgers.owned(home / "locks" / f"{service}.rollout", "a rollout", f"service {service}"):
        ledger = ledgers.load(home, service)
        target = SingleMachine(home, service)
        if ledger.candidate is None:
            return Result("promoted", "this model is the champion already and keeps serving", target.url())
        ledger.phase = Phase.SHIFTING
        ledgers.save(home, ledger)
        action = _Walk(home, ledger, ledger.candidate, target, plan, revision, rows).to_the_end(say)
        if action.do is Do.PROMOTE:
            promote(home, ledger, action.reason)
            return Result("promoted", action.reason, target.url())
        roll_back(home, ledger, action.reason)
        return Result("rolled_back", action.reason, target.url())


@dataclass(frozen=True)
class _Walk:
    """The candidate's way through the steps, up to the action that ends it."""

    home: Path
    ledger: Ledger
    candidate: Release
    target: SingleMachine
    plan: RolloutPlan
    revision: str
    rows: Rows

    def to_the_end(self, say: Say) -> Action:
        steps = self.plan.steps if self.ledger.stable else (100,)
        action = Action(Do.ADVANCE, "staged and checked", steps[0])
        while action.do is Do.ADVANCE:
            try:
                if self.ledger.stable is not None:  # a first release has all traffic already
                    self.target.shift(self.candidate, action.weight)
            except NotReady as error:
                return Action(Do.ROLL_BACK, str(error))
            self._note("shift", action.weight, reason=action.reason)
            say(f"{action.weight} % to the challenger")
            action = self._watch(action.weight)
        return action

    def _watch(self, weight: int) -> Action:
        """Watch one step until it is decided."""
        start, began, look = self.target.observe(self.revision), time.monotonic(), 1
        verdict = Verdict(Finding.UNCLEAR, (), "no requests yet")
        while True:
            time.sleep(_SAMPLE_SECONDS)
            seen = self.target.observe(self.revision).since(start)
            requests = seen.canary.requests
            if requests >= requests_for_look(look):
                verdict = judge(seen, self.plan, look, expected_shift(self.rows, seen.stable.predictions))
                look += 1
            elif not verdict.checks:
                verdict = replace(verdict, reason=f"{requests} of {self.plan.min_requests} requests so far")
            self.ledger.note("sample", weight, stable=_arm(seen.stable), canary=_arm(seen.canary))
            action = decide(weight, time.monotonic() - began, verdict, self.plan)
            if action.do is not Do.HOLD:
                self._note("verdict", weight, action=action.do, reason=action.reason, checks=_rows(verdict))
                return action

    def _note(self, what: str, weight: int, **seen: Any) -> None:
        self.ledger.note(what, weight, **seen)
        ledgers.save(self.home, self.ledger)


def promote(home: Path, ledger: Ledger, reason: str) -> None:
    """Make the candidate the champion: all traffic first, then the alias."""
    assert ledger.candidate is not None
    candidate = ledger.candidate
    ledger.phase = Phase.PROMOTING
    ledgers.save(home, ledger)
    SingleMachine(home, ledger.service).serve(candidate)
    ledger.note("promoted", 100, reason=reason, version=candidate.version)
    registry.promote(ledger.service, candidate.version)
    ledger.phase, ledger.stable, ledger.candidate = Phase.SETTLED, candidate, None
    ledgers.save(home, ledger)


def roll_back(home: Path, ledger: Ledger, reason: str) -> None:
    """Give the traffic back to the last good release, or end a service that never had one."""
    assert ledger.candidate is not None
    candidate, target = ledger.candidate, SingleMachine(home, ledger.service)
    if ledger.stable is not None:
        target.serve(ledger.stable)
    else:
        target.remove()
    ledger.note("rolled back", 0, reason=reason, version=candidate.version)
    registry.reject(ledger.service, candidate.version, reason)
    ledger.phase, ledger.candidate = Phase.SETTLED, None
    ledgers.save(home, ledger)


def _arm(arm: Arm) -> dict[str, float | int | None]:
    p95 = arm.latency_quantile(0.95)
    return {"requests": arm.requests, "errors": arm.errors, "p95_ms": None if p95 != p95 else round(p95, 3)}


def _rows(verdict: Verdict) -> list[dict[str, object]]:
    def number(value: float) -> float | None:
        return None if value != value else round(value, 5)

    return [
        {
            "signal": c.signal,
            "stable": number(c.stable),
            "canary": number(c.canary),
            "bound": number(c.bound),
            "limit": c.limit,
            "finding": c.finding,
            "reason": c.reason,
        }
        for c in verdict.checks
    ]
