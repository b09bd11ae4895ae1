"""Staging: the challenger runs beside the live service, without traffic, until it has proved itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.errors import Busy, Changed, SluicewayError
from components.rollout.halted import refuse_halted
from components.rollout.ledger import Ledger, Phase
from components.rollout.place import Place
from components.rollout.release import Release
from components.rollout.run import conclude
from components.rollout.settle import finish
from components.rollout.state import Action, Do
from components.rollout.store import Ownership
from components.rollout.targets.target import Target
from components.rollout.traffic import Rows, read_rows
from components.stage.load import Load, LoadResult, load_test
from components.stage.skew import Skew, check_skew, smoke_test

_SKEW_ROWS = 500
_UNTIL_ROLLOUT = 15 * 60.0
"""Seconds that the service stays this run's while the next step's pod is on its way."""


@dataclass(frozen=True)
class Request:
    """What to stage.

    Attributes:
        run_id: the pipeline run; the same for every retry of it.
        candidate: the challenger as it will be served.
        champion: the version that serves, or should; None before the first.
        predictions: test rows with offline predictions.
        classes: class labels in the order of the probabilities.
        tolerance: largest difference of a prediction; see :func:`components.stage.skew.check_skew`.
        load: what the staged server must withstand.
        wait_seconds: how long to wait for another rollout of the service to end.
    """

    run_id: str
    candidate: Release
    champion: Release | None
    predictions: Path
    classes: tuple[str, ...]
    tolerance: float
    load: Load
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class Staged:
    """The challenger, ready and checked; ``revision`` is empty when there is nothing to roll out."""

    revision: str
    url: str
    skew: Skew | None
    load: LoadResult | None = None

    def fact(self) -> str:
        """The one thing worth knowing."""
        if self.skew is None:
            return "an earlier try has rolled it out already"
        said = (
            f"{self.revision or 'the champion'} answers {self.skew.rows} test rows as offline "
            f"(largest difference {self.skew.max_abs:.1e})"
        )
        return (
            f"{said}; p99 {self.load.p99_ms:.0f} ms at {self.load.sent_per_second:.0f} requests/s"
            if self.load
            else said
        )


def run(place: Place, request: Request, say: Callable[[str], None]) -> Staged:
    """Start the version with no traffic and prove it: in the staging namespace first where there is one.

    A smoke test, its predictions over HTTP against the offline ones, and the expected load. Tried again, it does what
    is left: nothing after a rollout, all of it when the challenger has not been proved, whatever the reason was.

    Raises:
        Busy: another rollout of this service is at work, or the champion has changed since this run began.
        BadInput: the place cannot do a canary.
        NotReady: the server did not become ready.
        SkewFound: a prediction over HTTP differs.
        TooSlow: it does not meet the latency that was asked for.
    """
    refuse_halted(place.store)
    place.target.check()
    with place.store.owned(request.run_id, request.wait_seconds, say) as ownership:
        place.guard.ownership = ownership
        refuse_halted(place.store)
        earlier = place.store.load()
        if earlier.run_id == request.run_id and (
            earlier.outcome == "promoted" or (earlier.outcome and earlier.revision)
        ):
            return Staged("", place.target.url(), None)
        if earlier.phase is not Phase.SETTLED and earlier.run_id != request.run_id:
            say(f"an earlier run left its rollout unfinished: {finish(lambda: place, place.store, ownership)}")
        rows = read_rows(request.predictions, _SKEW_ROWS)
        ledger = _begin(place, request, say)
        if ledger.candidate is None:
            url = place.target.url()
            return Staged("", url, check_skew(url, ledger.service, rows, request.classes, request.tolerance))
        return _prove(place, request, ledger, rows, ownership, say)


def _prove(
    place: Place, request: Request, ledger: Ledger, rows: Rows, ownership: Ownership, say: Callable[[str], None]
) -> Staged:
    try:
        if place.staging is not None:
            _in_staging(place.staging, request, ledger.service, rows, say)
        staged = place.target.stage(request.candidate)
        say(f"{staged.revision} is ready with no traffic")
        skew, load = _checked(staged.url, request, ledger.service, rows, say)
    except SluicewayError as error:
        conclude(place, ledger, ownership, Action(Do.ROLL_BACK, str(error)), say)
        raise
    ledger.phase, ledger.revision = Phase.STAGED, staged.revision
    ledger.note("staged", 0, revision=staged.revision, rows=skew.rows, max_abs=skew.max_abs)
    place.store.save(ledger)
    ownership.hand_over(_UNTIL_ROLLOUT)
    return Staged(staged.revision, staged.url, skew, load)


def _in_staging(target: Target, request: Request, service: str, rows: Rows, say: Callable[[str], None]) -> None:
    """Prove the same bundle in the staging namespace, and leave nothing of ours behind there."""
    target.check()
    ours = True
    try:
        target.deploy(request.candidate)
        say("ready in the staging namespace")
        _checked(target.url(), request, service, rows, say)
    except Changed:  # somebody else's service of this name stands there
        ours = False
        raise
    finally:
        if ours:
            target.remove()


def _checked(
    url: str, request: Request, service: str, rows: Rows, say: Callable[[str], None]
) -> tuple[Skew, LoadResult]:
    smoke_test(url, service)
    skew = check_skew(url, service, rows, request.classes, request.tolerance)
    load = load_test(url, service, rows, request.load)
    say(f"p99 {load.p99_ms:.0f} ms at {load.sent_per_second:.0f} requests/s")
    return skew, load


def _begin(place: Place, request: Request, say: Callable[[str], None]) -> Ledger:
    """See to it that the champion serves, then name the candidate; none when it is the champion itself."""
    before, champion = place.store.load(), request.champion
    ledger = Ledger(service=before.service, run_id=request.run_id, deployment=place.deployment)
    ledger.stable = _stable(before, request)
    if ledger.stable is not None and not place.target.live():
        say(f"starting the champion, version {ledger.stable.version}")
        place.target.deploy(ledger.stable)
    if champion is not None and champion.version == request.candidate.version:
        ledger.end("promoted", "this model is the champion already and keeps serving")
    else:
        ledger.candidate, ledger.phase = request.candidate, Phase.STAGING
    place.store.save(ledger)
    return ledger


def _stable(before: Ledger, request: Request) -> Release | None:
    """The last good release: as it is served, where the record knows it.

    Raises:
        Busy: another run has made another version the champion since this run began, so that the gate has compared
            with a model that is no longer served.
    """
    champion, served = request.champion, before.stable
    if served is not None and (champion is None or served.version != champion.version):
        from components.register import registry

        now = registry.champion(before.service)
        if now is not None and now.version == served.version:
            raise Busy(
                f"Version {served.version} has become the champion of {before.service} since this run began, and the "
                f"gate compared with {f'version {champion.version}' if champion else 'none'}: run again."
            )
    if champion is None:
        return None
    return served if served is not None and served.version == champion.version else champion
