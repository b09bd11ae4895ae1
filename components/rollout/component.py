"""The KFP faces of the rollout and of its exit handler."""

from typing import NamedTuple

from kfp import dsl

from components.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def rollout(
    service: str,
    revision: str,
    predictions: dsl.Input[dsl.Dataset],
    timeline: dsl.Output[dsl.HTML],
    evidence: dsl.Output[dsl.Artifact],
    plan: dict = {},  # noqa: B006 - KFP reads the default, nobody mutates it
    replay_per_second: int = 200,
) -> NamedTuple("Outputs", outcome=str, url=str):  # type: ignore[valid-type] # the form that KFP reads
    """Shift traffic to the challenger in steps while a judge compares it with the champion.

    Args:
        service: Name of the InferenceService.
        revision: The staged revision; empty when the challenger is the champion already.
        predictions: Held-out rows to replay.
        timeline: Traffic, errors and latency over time, with each decision.
        evidence: The same as data.
        plan: Steps and margins, for instance {"steps": [10, 50, 100], "min_requests": 200}; see RolloutPlan.
        replay_per_second: Held-out rows sent per second while the judge watches; 0 where real clients suffice.

    Returns:
        outcome: "promoted" or "rolled_back".
        url: The service's address.
    """
    import shutil
    from pathlib import Path

    from components.rollout import ledger
    from components.rollout.plan import parse_plan
    from components.rollout.report import timeline_page
    from components.rollout.run import replay_and_roll_out
    from components.settings import settings
    from components.step import step

    with step("rollout") as current:
        home = settings().home
        result = replay_and_roll_out(
            home, service, parse_plan(plan), revision, Path(predictions.path), replay_per_second, current.progress
        )
        record = ledger.load(home, service)
        Path(timeline.path).write_text(timeline_page(record), encoding="utf-8")
        shutil.copyfile(ledger.path(home, service), evidence.path)
        evidence.metadata.update(outcome=result.outcome, reason=result.reason, sent=result.sent, failed=result.failed)
        current.fact = f"{result.outcome.replace('_', ' ')}: {result.reason}"
    return (result.outcome, result.url)


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def settle(model_name: str, source_uri: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Leave the service on the last good release, however the run ended.

    Args:
        model_name: Name of the model and service; empty to derive it from the source.
        source_uri: The data source.
        status: How the run ended, given by KFP.
    """
    from components.naming import model_name as derive
    from components.rollout.settle import settle as run
    from components.settings import settings
    from components.step import step

    with step("settle") as current:
        current.fact = run(settings().home, derive(model_name, source_uri))
