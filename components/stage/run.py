"""Staging: the challenger runs beside the live service, without traffic, until it has proved itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.errors import SluicewayError
from components.rollout import ledger as ledgers
from components.rollout.document import inference_service
from components.rollout.ledger import Ledger, Phase, Release
from components.rollout.run import roll_back
from components.rollout.targets.single_machine import SingleMachine
from components.rollout.traffic import read_rows
from components.settings import settings
from components.stage.skew import Skew, check_skew, smoke_test

_SKEW_ROWS = 500


@dataclass(frozen=True)
class Champion:
    """The registered version that has the alias ``champion``."""

    version: str
    uri: str


@dataclass(frozen=True)
class Staged:
    """The challenger, ready and checked; ``revision`` is empty when it is the champion that serves already."""

    revision: str
    url: str
    skew: Skew


def run(
    home: Path,
    service: str,
    version: str,
    model_uri: str,
    predictions: Path,
    classes: tuple[str, ...],
    env: dict[str, str],
    tolerance: float,
    champion: Champion | None,
    run_id: str,
    say: Callable[[str], None],
) -> Staged:
    """Start the version with no traffic, smoke-test it and compare its predictions over HTTP with the offline ones.

    Args:
        home: local state.
        service: the InferenceService's name.
        version: the registered model version.
        model_uri: where its bundle lies.
        predictions: test rows with offline predictions.
        classes: class labels in the order of the probabilities.
        env: environment of the model server.
        tolerance: largest difference of a prediction; see :func:`components.stage.skew.check_skew`.
        champion: the version that serves, or should; None before the first.
        run_id: the pipeline run, kept in the ledger.
        say: told of progress.

    Raises:
        Busy: another rollout of this service is at work.
        NotReady: the server did not become ready.
        SkewFound: a prediction over HTTP differs.
    """
    with ledgers.owned(home / "locks" / f"{service}.rollout", f"run {run_id}", f"service {service}"):
        target = SingleMachine(home, service)
        document = inference_service(service, model_uri, version, env, settings().port)
        release = Release(version=version, uri=model_uri, document=document)
        rows = read_rows(predictions, _SKEW_ROWS)
        ledger = _begin(home, service, run_id, release, champion, target, say)
        if ledger.candidate is None:
            return Staged("", target.url(), check_skew(target.url(), service, rows, classes, tolerance))
        try:
            revision, url = target.stage(release)
            say(f"{revision} is ready with no traffic")
            smoke_test(url, service)
            skew = check_skew(url, service, rows, classes, tolerance)
        except SluicewayError as error:
            roll_back(home, ledger, str(error))
            raise
        ledger.phase = Phase.STAGED
        ledger.note("staged", 0, revision=revision, rows=skew.rows, max_abs=skew.max_abs)
        ledgers.save(home, ledger)
        return Staged(revision, url, skew)


def _begin(
    home: Path,
    service: str,
    run_id: str,
    release: Release,
    champion: Champion | None,
    target: SingleMachine,
    say: Callable[[str], None],
) -> Ledger:
    """See to it that the champion serves, then name the candidate; none when it is the champion itself."""
    ledger = ledgers.load(home, service)
    if champion is None:
        ledger.stable = None
    elif ledger.stable is None or ledger.stable.version != champion.version:
        document = inference_service(service, champion.uri, champion.version, {}, settings().port)
        ledger.stable = Release(version=champion.version, uri=champion.uri, document=document)
    if ledger.stable is not None and not target.live():
        say(f"starting the champion, version {ledger.stable.version}")
        target.serve(ledger.stable)
    ledger.run_id, ledger.events = run_id, []
    if ledger.stable is not None and ledger.stable.version == release.version:
        ledger.candidate, ledger.phase = None, Phase.SETTLED
    else:
        ledger.candidate, ledger.phase = release, Phase.STAGING
    ledgers.save(home, ledger)
    return ledger
