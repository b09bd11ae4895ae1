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
    deployment: dict = {},  # noqa: B006
    skew_tolerance: float = 1e-4,
    replay_per_second: int = -1,
    wait_seconds: int = 0,
    run_id: str = "",
) -> NamedTuple("Outputs", outcome=str, url=str):  # type: ignore[valid-type] # the form that KFP reads
    """Shift traffic to the challenger in steps while a judge compares it with the champion.

    Ends on a good model however it ends, and goes on where it was when it is tried again.

    Args:
        service: Name of the InferenceService.
        revision: The staged revision; empty when there is nothing to roll out.
        predictions: Held-out rows to replay.
        timeline: Traffic, errors, latency and evidence over time, with each decision.
        evidence: The same as data.
        plan: Steps and margins, for instance {"steps": [10, 50, 100], "min_requests": 200}; see RolloutPlan.
        deployment: Where and how to serve; see Deployment.
        skew_tolerance: Largest difference between an answer to a held-out row and its offline prediction.
        replay_per_second: Held-out rows sent to the service per second while the judge watches; -1 sends 200 on one
            machine, and none on a cluster, where real clients are expected.
        wait_seconds: How long to wait for another rollout of the service to end.
        run_id: The pipeline run that owns this rollout.

    Returns:
        outcome: "promoted", "rolled_back", or "halted" where a person must decide.
        url: The service's address.
    """
    import os
    from pathlib import Path

    from components.rollout.deployment import parse_deployment
    from components.rollout.notify import run_link
    from components.rollout.place import place_for
    from components.rollout.plan import parse_plan
    from components.rollout.report import timeline_page
    from components.rollout.run import Request, roll_out
    from components.rollout.traffic import read_rows
    from components.settings import settings
    from components.step import step

    with step("rollout") as current:
        checked = parse_plan(plan)
        place = place_for(parse_deployment(deployment), checked, service)
        request = Request(
            rollout=os.environ.get("SLUICEWAY_RUN_ID", run_id),
            plan=checked,
            rows=read_rows(Path(predictions.path)),
            classes=tuple(predictions.metadata["classes"]),
            skew_tolerance=skew_tolerance,
            replay_per_second=replay_per_second,
            wait_seconds=wait_seconds,
            link=run_link(settings().ui, run_id),
        )
        result = roll_out(place, request, current.progress)
        record = place.store.load()
        Path(timeline.path).write_text(timeline_page(record), encoding="utf-8")
        Path(evidence.path).write_text(record.model_dump_json(indent=1), encoding="utf-8")
        evidence.metadata.update(outcome=result.outcome, reason=result.reason, sent=result.sent, failed=result.failed)
        current.fact = f"{result.outcome.replace('_', ' ')}: {result.reason}"
        current.labels = {"service": service, "outcome": result.outcome}
    return (result.outcome, result.url)


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def settle(
    model_name: str,
    source_uri: str,
    status: dsl.PipelineTaskFinalStatus,
    deployment: dict = {},  # noqa: B006 - KFP reads the default, nobody mutates it
    run_id: str = "",
) -> None:
    """Leave the service on the last good release, however the run ended.

    Args:
        model_name: Name of the model and service; empty to derive it from the source.
        source_uri: The data source.
        status: How the run ended, given by KFP.
        deployment: Where and how to serve; see Deployment.
        run_id: The pipeline run; another run's rollout is left alone.
    """
    import os

    from components.naming import model_name as derive
    from components.rollout.deployment import parse_deployment
    from components.rollout.place import place_for, store_for
    from components.rollout.settle import settle as run
    from components.step import step

    with step("settle") as current:
        where, service = parse_deployment(deployment), derive(model_name, source_uri)
        owner = os.environ.get("SLUICEWAY_RUN_ID", run_id)
        store = store_for(where, service)
        current.labels = {"service": service}
        settled = run(lambda: place_for(where, None, service), store, owner, wait_seconds=120)
        current.fact = settled.said
        if settled.outcome is not None:
            current.labels["outcome"] = settled.outcome
