"""The KFP face of staging."""

from kfp import dsl

from components.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def stage(
    service: str,
    version: str,
    model_uri: str,
    predictions: dsl.Input[dsl.Dataset],
    skew: dsl.Output[dsl.Metrics],
    lineage: dict = {},  # noqa: B006 - KFP reads the default, nobody mutates it
    champion_version: str = "",
    champion_uri: str = "",
    deployment: dict = {},  # noqa: B006
    server_env: dict = {},  # noqa: B006
    skew_tolerance: float = 1e-4,
    load: dict = {},  # noqa: B006
    plan: dict = {},  # noqa: B006
    wait_seconds: int = 0,
    run_id: str = "",
) -> str:
    """Start the challenger beside the live service with no traffic and check what it answers.

    Args:
        service: Name of the InferenceService.
        version: Registered model version to stage.
        model_uri: Where its bundle lies.
        predictions: Test rows with their offline predictions.
        skew: Largest difference between predictions over HTTP and offline, and latency under load.
        lineage: What the version was made from; kept with the service.
        champion_version: Version that serves now; empty before the first.
        champion_uri: Where its bundle lies.
        deployment: Where and how to serve, for instance {"namespace": "models"}; see Deployment.
        server_env: Environment variables of the model server.
        skew_tolerance: Largest absolute difference of a prediction that is allowed.
        load: What it must withstand, for instance {"requests_per_second": 50, "p99_ms": 100}; see Load.
        plan: The rollout's plan, of which the signals are checked here.
        wait_seconds: How long to wait for another rollout of the service to end.
        run_id: The pipeline run that owns this rollout.

    Returns:
        The challenger's revision; empty when there is nothing to roll out.
    """
    import os
    from pathlib import Path

    from components.rollout.deployment import parse_deployment
    from components.rollout.place import place_for
    from components.rollout.plan import parse_plan
    from components.rollout.releases import release
    from components.stage.load import parse_load
    from components.stage.run import Request, run
    from components.step import step

    with step("stage") as current:
        where = parse_deployment(deployment)
        run_id = os.environ.get("SLUICEWAY_RUN_ID", run_id)
        staged = run(
            place_for(where, parse_plan(plan), service),
            Request(
                run_id=run_id,
                candidate=release(service, version, model_uri, where, server_env, lineage),
                champion=release(service, champion_version, champion_uri, where, {}) if champion_version else None,
                predictions=Path(predictions.path),
                classes=tuple(predictions.metadata["classes"]),
                tolerance=skew_tolerance,
                load=parse_load(load),
                wait_seconds=wait_seconds,
            ),
            current.progress,
        )
        skew.log_metric("rows", staged.skew.rows if staged.skew else 0)
        skew.log_metric("max_abs_difference", staged.skew.max_abs if staged.skew else 0.0)
        skew.log_metric("p99_ms", staged.load.p99_ms if staged.load else 0.0)
        current.fact = staged.fact()
    return staged.revision
