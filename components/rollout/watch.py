"""One step under the judge's eyes: look, count, judge and decide, again and again, until something is to be done."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from components.errors import SignalsLost, Unreachable
from components.rollout.evidence import Arm, Context, Observation
from components.rollout.freeze import frozen_until
from components.rollout.judge import Finding, Verdict, judge
from components.rollout.ledger import Ledger
from components.rollout.place import Place
from components.rollout.shift import offline_counts
from components.rollout.state import Action, Do, Situation, decide
from components.rollout.targets.target import Sight

if TYPE_CHECKING:
    from components.rollout.run import Request
    from components.rollout.shadow import Shadow

Note = Callable[..., None]

_SAVE_SECONDS = 5.0
_SAMPLES_PER_STEP = 200


class Watch:
    """What is kept from look to look, and from step to step."""

    def __init__(
        self,
        place: Place,
        ledger: Ledger,
        request: "Request",
        note: Note,
        keep: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            place: where the service runs.
            ledger: the record; evidence and times are kept in it.
            request: the plan and the rows.
            note: adds an event to the record and saves it.
            keep: saves the record, where it can be reached.
            say: told what a person at a terminal should know.
        """
        assert place.source is not None
        self._place, self._source, self._ledger, self._request = place, place.source, ledger, request
        self._note, self._keep, self._say = note, keep, say
        self._plan = request.plan
        self._sight: Sight | None = None
        self._down_since: float | None = None
        self._abort_by = self._promote_by = ""
        self._frozen = ""
        self._lost = ""
        self._away = False

    def step(self, weight: int) -> Action:
        """Watch one step until it is decided.

        Raises:
            Changed: the service is gone, or not this rollout's any more.
            Lost: another owner has taken over.
        """
        self._look()
        carried = self._ledger.seen  # what an earlier try of this step had seen
        with self._counting() as counted:
            last = saved = sampled = time.monotonic()
            while True:
                time.sleep(self._plan.interval_seconds or self._source.interval_seconds)
                now = time.monotonic()
                self._pass(now - last)
                last = now
                self._ledger.seen = carried + counted()
                verdict = self._judged()
                self._listen()
                self._look()
                if now - sampled >= self._ledger.step_seconds / _SAMPLES_PER_STEP:
                    self._sample(weight, verdict)
                    sampled = now
                action = decide(self._situation(weight, verdict, now), self._plan)
                if action.do is not Do.HOLD:
                    checks = [_row(asdict(check)) for check in verdict.checks]
                    self._note("verdict", weight, action=action.do, reason=action.reason, checks=checks)
                    return action
                if now - saved >= _SAVE_SECONDS:
                    self._keep()
                    saved = now

    @contextmanager
    def _counting(self) -> Iterator[Callable[[], Observation]]:
        """Count from here on: what clients send, and what is sent to both versions beside that."""
        source, sight = self._source, self._sight
        revisions = (sight.stable.revision, sight.canary.revision) if sight else ("", self._ledger.revision)
        addresses = (sight.stable.url, sight.canary.url) if sight else ("", "")
        began = self._try(lambda: self._begin(*revisions))
        seen = Observation()

        def counted() -> Observation:
            nonlocal began, seen
            if began is None:  # the source was away when the step began: it is counted from when it came back
                began = self._try(lambda: self._begin(*revisions))
            elif (found := self._try(source.seen)) is not None:
                seen = found
            return seen + shadow.counts(source.sees_direct) if shadow else seen

        with self._shadow(*addresses) as shadow:
            yield counted

    def _shadow(self, stable: str, canary: str) -> "AbstractContextManager[Shadow | None]":
        """Held-out rows to both versions, where the plan asks for them."""
        request, per_second = self._request, self._plan.shadow_per_second
        if not per_second:
            return nullcontext()
        from components.rollout.shadow import Shadow

        rows, tolerance = request.rows, request.skew_tolerance
        return Shadow(self._ledger.service, rows, request.classes, stable, canary, per_second, tolerance)

    def _begin(self, stable: str, canary: str) -> bool:
        ledger = self._ledger
        if stable and not ledger.baseline.requests:  # else an earlier try of this step has taken it
            ledger.baseline = self._source.baseline(stable)
        self._source.begin(stable, canary)
        return True

    def _try(self, ask: Callable[[], Any]) -> Any:
        """Ask the source; None where it does not answer, which is never taken for health."""
        try:
            answer = ask()
        except SignalsLost as error:
            if not self._lost:
                self._note("signals lost", self._ledger.weight, reason=str(error))
                self._say(str(error))
            self._lost = str(error)
            return None
        if self._lost:
            self._note("signals back", self._ledger.weight)
            self._lost = ""
        return answer

    def _judged(self) -> Verdict:
        ledger, seen = self._ledger, self._ledger.seen
        live = seen.stable.predictions or ledger.baseline.predictions
        stable, canary = offline_counts(self._request.rows, live, seen.canary.predictions, self._request.classes)
        verdict = judge(seen, self._plan, Context(ledger.weight, ledger.baseline, stable, canary))
        if self._lost and verdict.finding is Finding.OK:
            return replace(verdict, finding=Finding.UNCLEAR, reason=self._lost)
        return verdict

    def _look(self) -> None:
        """Look at the servers; where the API server is away, what was seen last does not count any more."""
        ledger = self._ledger
        assert ledger.candidate is not None
        try:
            self._sight = self._place.target.look(ledger.stable, ledger.candidate, ledger.weight)
        except Unreachable as error:
            if not self._away:
                self._note("place lost", ledger.weight, reason=str(error))
                self._say(str(error))
            self._sight, self._away = None, True
        else:
            if self._away:
                self._note("place back", ledger.weight)
            self._away = False
        if self._sight is not None and not self._sight.canary.ready:
            self._down_since = self._down_since or time.monotonic()
        else:
            self._down_since = None

    def _listen(self) -> None:
        """Take up what people ask, and whether a freeze is in force."""
        ledger, command = self._ledger, None
        with suppress(Unreachable):  # it is read with the next look
            command = self._place.store.command()
            if command is not None:
                self._place.store.clear()
        if command is not None:
            self._note("command", ledger.weight, command=command.what, by=command.by)
            if command.what == "abort":
                self._abort_by = command.by
            elif command.what == "promote":
                self._promote_by = command.by
            elif bool(ledger.paused_by) != (command.what == "pause"):
                ledger.paused_by = command.by if command.what == "pause" else ""
                self._note(f"{command.what}d", ledger.weight, by=command.by)
                self._say(f"{command.what}d by {command.by}")
        until = frozen_until(self._plan.freeze, datetime.now(UTC))
        frozen = until.isoformat(timespec="minutes") if until else ""
        if bool(frozen) != bool(self._frozen):
            self._note("frozen" if frozen else "thawed", ledger.weight, until=frozen)
            self._say(f"frozen until {frozen}" if frozen else "the freeze is over")
        self._frozen = frozen

    def _pass(self, seconds: float) -> None:
        """Time that was measured by a clock that never goes back; what is paused or frozen does not count."""
        self._ledger.total_seconds += seconds
        if not self._ledger.paused_by and not self._frozen:
            self._ledger.step_seconds += seconds

    def _situation(self, weight: int, verdict: Verdict, now: float) -> Situation:
        return Situation(
            weight=weight,
            step_seconds=self._ledger.step_seconds,
            total_seconds=self._ledger.total_seconds,
            verdict=verdict,
            sight=self._sight,
            first=self._ledger.stable is None,
            down_seconds=now - self._down_since if self._down_since is not None else 0.0,
            paused_by=self._ledger.paused_by,
            frozen_until=self._frozen,
            abort_by=self._abort_by,
            promote_by=self._promote_by,
        )

    def _sample(self, weight: int, verdict: Verdict) -> None:
        seen = self._ledger.seen
        checks = [_row(asdict(check)) for check in verdict.checks]
        self._ledger.note("sample", weight, stable=_arm(seen.stable), canary=_arm(seen.canary), checks=checks)


def _arm(arm: Arm) -> dict[str, float | int | None]:
    row: dict[str, float | int | None] = {"requests": arm.requests, "errors": arm.errors, "restarts": arm.restarts}
    for name, q in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        row[name] = _number(arm.latency_quantile(q))
    return row


def _row(check: dict[str, Any]) -> dict[str, Any]:
    """A check as JSON carries it, whose numbers have no NaN."""
    return {key: _number(value) if isinstance(value, float) else value for key, value in check.items()}


def _number(value: float) -> float | None:
    return round(value, 5) if abs(value) < float("inf") else None
