"""The evaluate step's KFP face."""

from kfp import dsl

from components.images import CONTROL


@dsl.component(base_image=CONTROL, install_kfp_package=False)
def evaluate(
    features: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    decision: dsl.Output[dsl.Artifact],
    predictions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    champion_uri: str = "",
    champion_version: str = "",
    primary_metric: str = "auto",
    minimum: str = "auto",
    margin: float = 0.02,
    minimum_rows: int = 20,
    bootstrap: int = 1000,
    seed: int = 0,
) -> bool:
    """Measure the challenger on the test split, against the champion on the same rows, and decide.

    Args:
        features: Feature set that the model was trained on.
        model: The challenger's bundle.
        decision: The decision with every check, its numbers and its reason.
        predictions: The test rows' raw columns with the challenger's and the champion's predictions.
        metrics: Metrics on the test split with their confidence intervals.
        classification: ROC curve of two classes, and the confusion matrix.
        report: The same as a page to read.
        champion_uri: Where the champion's bundle lies; empty when there is none.
        champion_version: The champion's registered version; empty when there is none.
        primary_metric: What the gate goes by; auto takes roc_auc, or rmse for regression.
        minimum: Worst value of it that may pass; auto asks for better than a constant prediction, beyond chance.
        margin: How much worse than the champion it may be; a share of the champion's value for rmse, mae and log_loss.
        minimum_rows: Fewest test rows to decide on.
        bootstrap: Resamples behind the confidence intervals.
        seed: Seed of the resamples.

    Returns:
        Whether every check passed.
    """
    from pathlib import Path

    from components.step import step

    with step("evaluate") as current:
        from components.evaluate.outputs import log, write
        from components.evaluate.run import evaluate as run

        evaluation = run(
            Path(features.path),
            Path(model.path),
            champion_uri=champion_uri,
            champion_version=champion_version,
            primary_metric=primary_metric,
            minimum=minimum,
            margin=margin,
            minimum_rows=minimum_rows,
            draws=bootstrap,
            seed=seed,
        )
        write(evaluation, Path(decision.path), Path(predictions.path), Path(report.path))
        log(evaluation, metrics, classification)
        decision.metadata.update(evaluation.decision_metadata())
        predictions.metadata.update(evaluation.predictions_metadata())
        current.fact = evaluation.fact()
    return evaluation.decision.passed
