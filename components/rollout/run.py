"""The rollout: shift, watch, judge, then promote or roll back.

Every effect is written to the record before it is made, so that a process killed anywhere in between is gone on with
by a retry of the same run, or settled by :mod:`components.rollout.settle`. Only the owner of the service acts.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from components.errors import Busy, Changed, Lost, NotReady, Unreachable
from components.register import registry
from components.rollout.evidence import Arm, Observation
from components.rollout.ledger import Ledger, Outcome, Phase
from components.rollout.notify import Notifier
from components.rollout.place import Place
from components.rollout.plan import RolloutPlan
from components.rollout.state import Action, Do
from components.rollout.store import Ownership
from components.rollout.traffic import Replay, Rows
from components.rollout.watch import Watch
from components.settings import settings

Say = Callable[[str], None]

_PATIENCE_SECONDS = 15 * 60.0
_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Request:
    """What to roll out.

    Attributes:
        rollout: the run that asks; the same for every retry of it.
        plan: steps and margins.
        rows: held-out rows with both versions' offline predictions.
        classes: class labels in the order of the offline probabilities; empty for regression.
        skew_tolerance: largest difference between an answer and the offline prediction.
        replay_per_second: held-out rows sent to the service while the judge watches; -1 goes by the place.
        wait_seconds: how long to wait for another rollout of the service to end.
        link: the run's page, for messages.
    """

    rollout: str
    plan: RolloutPlan
    rows: Rows
    classes: Sequence[str] = ()
    skew_tolerance: float = 1e-4
    replay_per_second: int = -1
    wait_seconds: float = 0.0
    link: str = ""


@dataclass(frozen=True)
class Result:
    """How a rollout ended; ``sent`` and ``failed`` count the replayed requests."""

    outcome: Outcome
    reason: str
    url: str
    sent: int = 0
    failed: int = 0


def roll_out(place: Place, request: Request, say: Say) -> Result:
    """Take the staged candidate through the plan's steps, or go on where an earlier try of the same run was.

    Args:
        place: where the service runs.
        request: what to do.
        say: told of each step.

    Raises:
        Busy: another rollout of this service is at work, or was staged since.
        Lost: the right to act ran out again and again.
        Unreachable: the place or the registry stayed away for a quarter of an hour; a retry goes on.
    """
    began = time.monotonic()
    while True:
        try:
            return _owned(place, request, say)
        except (Lost, Unreachable) as error:
            # The right ran out, or something was away. Own it anew and go on where it was; another owner's is Busy.
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise
            say(f"trying again: {error}")
            time.sleep(_PAUSE_SECONDS)


def _owned(place: Place, request: Request, say: Say) -> Result:
    rate = place.replay_per_second if request.replay_per_second < 0 else request.replay_per_second
    with place.store.owned(request.rollout, request.wait_seconds, say) as ownership:
        place.guard.ownership = ownership
        ledger = place.store.load()
        if ledger.run_id != request.rollout:
            raise Busy(f"Run {ledger.run_id} has staged service {ledger.service} since this run did: run again.")
        if ledger.outcome is not None:  # a retry, or there was nothing to roll out
            return Result(ledger.outcome, ledger.reason, place.target.url())
        replay = Replay(place.target.url(), ledger.service, request.rows.instances, rate)
        with Notifier(settings().webhook, say, link=request.link) as notifier, replay:
            _Rollout(place, ledger, ownership, notifier, say).through(request)
            notifier.note(ledger)
            place.store.save(ledger)
        assert ledger.outcome is not None
        return Result(ledger.outcome, ledger.reason, place.target.url(), replay.sent, replay.failed)


@dataclass(frozen=True)
class _Rollout:
    """A rollout at work."""

    place: Place
    ledger: Ledger
    ownership: Ownership
    notifier: Notifier
    say: Say

    def through(self, request: Request) -> None:
        """To the end: promoted, rolled back or halted."""
        ledger = self.ledger
        if ledger.phase is Phase.PROMOTING:
            self.finish(Action(Do.PROMOTE, ledger.reason))
        elif ledger.phase is Phase.ROLLING_BACK:
            self.finish(Action(Do.ROLL_BACK, ledger.reason))
        else:
            self.finish(self._walk(request))

    def _walk(self, request: Request) -> Action:
        ledger, plan = self.ledger, request.plan
        steps = plan.steps if ledger.stable else (100,)
        if ledger.phase is Phase.SHIFTING:
            self._note(
                "taken over", ledger.weight, by=request.rollout, reason="an earlier try of this step ended early"
            )
            action = Action(Do.ADVANCE, "going on where an earlier try was", ledger.weight)
            ledger.total_seconds += max(0.0, time.time() - ledger.saved)  # a clock set back takes nothing away
        else:
            self.place.store.clear()
            action = Action(Do.ADVANCE, "staged and checked", steps[0])
        watch = Watch(self.place, ledger, request, self._note, self.keep, self.say)
        while action.do is Do.ADVANCE:
            try:
                self._step(action)
                action = watch.step(ledger.weight)
            except NotReady as error:
                action = Action(Do.ROLL_BACK, str(error))
            except Changed as error:
                action = Action(Do.HALT, str(error))
        return action

    def _step(self, action: Action) -> None:
        """Move the traffic; the record says so first."""
        ledger = self.ledger
        if ledger.phase is not Phase.SHIFTING or ledger.weight != action.weight:
            ledger.phase, ledger.weight = Phase.SHIFTING, action.weight
            ledger.step_seconds, ledger.seen, ledger.baseline = 0.0, Observation(), Arm()
            self.place.store.save(ledger)
        assert ledger.candidate is not None
        if ledger.stable is not None:  # a first release has all traffic already
            self.ownership.check()
            self.place.target.shift(ledger.candidate, action.weight)
        self._note("shift", action.weight, reason=action.reason)
        self.place.target.tell("CanaryShifted", f"{action.weight} % to version {ledger.candidate.version}")
        self.say(f"{action.weight} % to the challenger")

    def finish(self, action: Action) -> None:
        """Make the decision true."""
        try:
            if action.do is Do.PROMOTE:
                self._promote(action.reason)
            elif action.do is Do.ROLL_BACK:
                self._roll_back(action.reason)
            else:
                self._halt(action.reason)
        except Changed as error:
            self._halt(str(error))

    def _promote(self, reason: str) -> None:
        """Make the candidate the champion: all traffic first, then the alias."""
        ledger = self.ledger
        assert ledger.candidate is not None
        candidate = ledger.candidate
        self._enter(Phase.PROMOTING, reason)
        try:
            self.place.target.promote(candidate)
        except NotReady as error:
            # The challenger was judged good and may be all that is left: taking it away would be the greater risk.
            self._halt(f"the promotion did not complete: {error}")
            return
        registry.promote(ledger.service, candidate.version)
        ledger.weight = 100
        ledger.end("promoted", reason)
        self._note("promoted", 100, reason=reason, version=candidate.version)
        self.place.target.tell("Promoted", f"Version {candidate.version} has all traffic: {reason}")

    def _roll_back(self, reason: str) -> None:
        """Give the traffic back to the last good release, or end a service that never had one."""
        ledger = self.ledger
        assert ledger.candidate is not None
        candidate = ledger.candidate
        self._enter(Phase.ROLLING_BACK, reason)
        if ledger.stable is None:
            self.place.target.remove()
        else:
            try:
                self.place.target.roll_back(ledger.stable, candidate)
            except NotReady as error:
                self._halt(f"the rollback ({reason}) did not complete: {error}")
                return
        registry.reject(ledger.service, candidate.version, reason)
        ledger.weight = 0
        ledger.end("rolled_back", reason)
        self._note("rolled back", 0, reason=reason, version=candidate.version)
        self.place.target.tell("RolledBack", f"Version {candidate.version} was taken away: {reason}", warning=True)

    def _halt(self, reason: str) -> None:
        """Leave everything as it is, for a person to decide."""
        self.ledger.end("halted", reason)
        self._note("halted", self.ledger.weight, reason=reason)
        self.place.target.tell("RolloutHalted", f"A person must decide: {reason}", warning=True)

    def _enter(self, phase: Phase, reason: str) -> None:
        self.ledger.phase, self.ledger.reason = phase, reason
        self.place.store.save(self.ledger)
        self.ownership.check()

    def _note(self, what: str, weight: int, **seen: Any) -> None:
        self.notifier.tell(self.ledger, self.ledger.note(what, weight, **seen))
        self.keep()

    def keep(self) -> None:
        """Save what was seen, or with the next save where the record cannot be reached: nothing is done by it."""
        with suppress(Unreachable):
            self.place.store.save(self.ledger)


def conclude(place: Place, ledger: Ledger, ownership: Ownership, action: Action, say: Say = lambda _text: None) -> None:
    """End a rollout that nobody watches any more: promote or roll back, and record it.

    Raises:
        NotReady: neither could be completed; the record says that it was halted.
    """
    place.guard.ownership = ownership
    with Notifier(settings().webhook, say) as notifier:
        _Rollout(place, ledger, ownership, notifier, say).finish(action)
    if ledger.outcome == "halted":
        raise NotReady(f"The rollout of {ledger.service} could not be ended: {ledger.reason}.")
