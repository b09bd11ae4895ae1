"""Histogram gradient boosting: trees on numbers as they are and on category codes, stopped on the valid split."""

from typing import TYPE_CHECKING, Any

from components.features.schema import Task
from components.train.contract import Data, Run
from components.train.sklearn.columns import at_most, with_values
from components.train.sklearn.fitted import FittedPipeline
from components.train.sklearn.trainer import SklearnTrainer

if TYPE_CHECKING:
    import numpy as np

CURVE_POINTS = 100
"""How many boosting rounds are reported at most."""


def _estimator(task: Task) -> type:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    estimator: type = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    return estimator


def _defaults(task: Task) -> dict[str, Any]:
    """Small trees in small steps, stopped on the valid split.

    On five splits of the telco set this gave a mean AUC of 0.836 against 0.830 with scikit-learn's defaults, in the
    same time. Several classes cost a tree each per step: larger steps that stop sooner make digits seven times faster
    at the same accuracy.
    """
    steps = {"learning_rate": 0.1, "tol": 1e-3} if task == "multiclass" else {"learning_rate": 0.05}
    trees = {"max_iter": 500, "max_leaf_nodes": 15, "l2_regularization": 1.0, "max_features": 0.5}
    return steps | trees | {"early_stopping": True}


def _space(task: Task) -> dict[str, dict[str, Any]]:
    return {
        "learning_rate": {"low": 0.01, "high": 0.3, "log": True},
        "max_leaf_nodes": {"low": 4, "high": 63, "log": True},
        "min_samples_leaf": {"low": 5, "high": 100, "log": True},
        "l2_regularization": {"low": 1e-3, "high": 100.0, "log": True},
        "max_features": {"low": 0.2, "high": 1.0},
    }


def _fit(model: Any, data: Data, run: Run) -> FittedPipeline:
    """Numbers as they are, but for columns without any; an unseen category is a missing value."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    train, (numeric, categorical) = data.train, with_values(data)
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=float("nan"),
        max_categories=at_most(model.max_bins, data),
    )
    prepare = ColumnTransformer(
        [("numeric", "passthrough", numeric)] * bool(numeric)
        + [("categorical", codes, categorical)] * bool(categorical),
        sparse_threshold=0,
        verbose_feature_names_out=False,
    )
    inputs = prepare.fit_transform(train.inputs)
    if categorical:
        model.set_params(categorical_features=list(range(len(numeric), len(numeric) + len(categorical))))
    held_out = {}
    if model.early_stopping is True:
        held_out = {"X_val": prepare.transform(data.valid.inputs), "y_val": data.valid.target}
        if (weights := _weights(model, train.target, data.valid.target)) is not None:
            held_out["sample_weight_val"] = weights
    model.fit(inputs, train.target, **held_out)
    _report(model, run)
    return FittedPipeline(Pipeline([("prepare", prepare), ("model", model)]), {"iterations": float(model.n_iter_)})


def _weights(model: Any, train: "np.ndarray[Any, Any]", valid: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any] | None":
    """What a row of the valid split weighs: scikit-learn weighs classes in the train split only.

    Fitting to one weighting and stopping on another stops at once: the weighted fit is worse by the plain loss.
    """
    import numpy as np
    from sklearn.utils.class_weight import compute_class_weight

    if getattr(model, "class_weight", None) is None:
        return None
    by_class = compute_class_weight(model.class_weight, classes=np.unique(train), y=train)
    return np.asarray(by_class[valid])


def _report(model: Any, run: Run) -> None:
    """Report the losses, or the scores where another scoring decides; scikit-learn keeps them only to stop early."""
    rounds = len(model.train_score_) - 1  # the first is that of the ensemble without a tree
    if rounds < 1:
        return
    every = max(1, -(-rounds // CURVE_POINTS))
    name, sign = ("loss", -1.0) if model.scoring == "loss" else (str(model.scoring), 1.0)
    kept = {"train": model.train_score_, "valid": model.validation_score_}
    scores = {f"{split}_{name}": sign * values for split, values in kept.items() if len(values)}
    for number in sorted({*range(every, rounds + 1, every), rounds}):
        run.epoch(number, {name: float(values[number]) for name, values in scores.items()}, model.learning_rate)


TRAINER = SklearnTrainer(_estimator, _defaults, _fit, _space)
