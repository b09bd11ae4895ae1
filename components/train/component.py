"""The train step's KFP face."""

from kfp import dsl

from components.images import TRAIN_SKLEARN


@dsl.component(base_image=TRAIN_SKLEARN, install_kfp_package=False)
def train(
    features: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    trainer: str = "hist_gradient_boosting",
    hyperparameters: dict = {},  # noqa: B006 - KFP reads the default, nothing changes it
    seed: int = 0,
    parity_tolerance: float = 1e-6,
) -> str:
    """Train a scikit-learn model and write it as a bundle: MLflow model, ONNX graph, digests.

    Args:
        features: Feature set to learn from: the train split, with the valid split deciding when to stop.
        model: The bundle.
        metrics: Metrics on the train and valid splits.
        trainer: hist_gradient_boosting or linear; each for classification and regression.
        hyperparameters: What differs from the trainer's defaults, by the estimator's own parameter names.
        seed: Every random choice follows from it; same data, parameters and seed make the same model.
        parity_tolerance: Largest difference between ONNX and native predictions at which ONNX is served.

    Returns:
        The recipe digest, which is the model's identity.
    """
    from pathlib import Path

    from components.step import step

    with step("train") as current:
        from components.train.run import train as run

        trained = run(
            Path(features.path),
            Path(model.path),
            trainer=trainer,
            hyperparameters=hyperparameters,
            seed=seed,
            parity_tolerance=parity_tolerance,
        )
        for name, value in trained.metrics.items():
            metrics.log_metric(name, value)
        model.metadata.update(trained.metadata())
        current.fact = trained.fact()
    return trained.manifest.recipe_digest
