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
    champion_version: str = "",
    champion_uri: str = "",
    server_env: dict = {},  # noqa: B006 - KFP reads the default, nobody mutates it
    skew_tolerance: float = 1e-4,
    run_id: str = "",
) -> str:
    """Start the challenger beside the live service with no traffic and check what it answers.

    Args:
        service: Name of the InferenceService.
        version: Registered model version to stage.
        model_uri: Where its bundle lies.
        predictions: Test rows with their offline predictions.
        skew: Largest difference between predictions over HTTP and offline.
        champion_version: Version that serves now; empty before the first.
        champion_uri: Where its bundle lies.
        server_env: Environment variables of the model server.
        skew_tolerance: Largest absolute difference of a prediction that is allowed.
        run_id: The pipeline run that owns this rollout.

    Returns:
        The challenger's revision; empty when it is the champion already.
    """
    import os
    from pathlib import Path

    from components.settings import settings
    from components.stage.run import Champion, run
    from components.step import step

    with step("stage") as current:
        champion = Champion(champion_version, champion_uri) if champion_version else None
        staged = run(
            settings().home,
            service,
            version,
            model_uri,
            Path(predictions.path),
            tuple(predictions.metadata["classes"]),
            server_env,
            skew_tolerance,
            champion,
            os.environ.get("SLUICEWAY_RUN_ID", run_id),
            current.progress,
        )
        skew.log_metric("rows", staged.skew.rows)
        skew.log_metric("max_abs_difference", staged.skew.max_abs)
        current.fact = (
            f"{staged.revision or 'the champion'} answers {staged.skew.rows} test rows as offline "
            f"(largest difference {staged.skew.max_abs:.1e})"
        )
    return staged.revision
