"""The register step's KFP face."""

from typing import NamedTuple

from kfp import dsl

from components.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def register(
    model: dsl.Input[dsl.Model],
    decision: dsl.Input[dsl.Artifact],
    model_name: str,
) -> NamedTuple("Outputs", version=str, model_uri=str, already_champion=bool, lineage=dict):  # type: ignore[valid-type]  # KFP's form
    """Register a model that passed the gate in MLflow, as challenger.

    Args:
        model: The bundle.
        decision: The gate's decision about it.
        model_name: Name of the registered model.

    Returns:
        version: The registered version.
        model_uri: Where its bundle lies, fit for an InferenceService's storageUri.
        already_champion: Whether this very model is the champion already.
        lineage: What it was made from.
    """
    from pathlib import Path

    from components.step import step

    with step("register") as current:
        from components.register.run import register as run

        registered = run(Path(model.path), Path(decision.path), model_name)
        current.fact = registered.fact()
    return (registered.version, registered.model_uri, registered.already_champion, dict(registered.lineage))
