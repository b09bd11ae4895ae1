"""The scikit-learn trainers: each turns a split into one fitted pipeline, raw columns in, prediction out."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.features.schema import FeatureSchema

if TYPE_CHECKING:
    from components.train.feature_set import Split

OURS = {"random_state", "categorical_features", "verbose", "warm_start", "n_jobs", "copy_X"}


@dataclass(frozen=True)
class Fitted:
    """A fitted model.

    Attributes:
        pipeline: a scikit-learn pipeline with the steps ``prepare`` and ``model``; takes the model frame.
        facts: what the fit ended with, by name, for instance ``iterations``.
    """

    pipeline: Any
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trainer:
    """A way to make a model: which estimator, with which defaults, and how it is fitted.

    Attributes:
        estimator: the estimator's class for a task; imports scikit-learn.
        defaults: parameters that differ from the estimator's own defaults, for a task.
        fit: fits on train, may stop early on valid; gets an estimator with its parameters set.
    """

    estimator: Callable[[str], type]
    defaults: Callable[[str], dict[str, Any]]
    fit: Callable[[Any, FeatureSchema, "Split", "Split"], Fitted]

    def parameters(self, task: str, chosen: dict[str, Any]) -> dict[str, Any]:
        """The full set of parameters that the user may set: scikit-learn's defaults, ours, then the chosen ones."""
        signature = inspect.signature(self.estimator(task))
        own = {name: p.default for name, p in signature.parameters.items() if name not in OURS}
        return own | {name: value for name, value in self.defaults(task).items() if name in own} | chosen


def fit(
    name: str, schema: FeatureSchema, train: "Split", valid: "Split", parameters: dict[str, Any], seed: int
) -> Fitted:
    """Fit the trainer of this name.

    Args:
        name: a key of ``TRAINERS``.
        schema: what the columns are.
        train: rows to learn from.
        valid: rows that may decide when to stop.
        parameters: the estimator's parameters, checked by ``components.train.hyperparameters``.
        seed: every random choice follows from it.

    Raises:
        BadInput: scikit-learn refuses a value or the data.
    """
    trainer = TRAINERS[name]
    estimator = trainer.estimator(schema.task)(**parameters)
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=seed)
    try:
        return trainer.fit(estimator, schema, train, valid)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"scikit-learn could not fit the trainer {name!r}: {reason}") from error


def prepared_columns(pipeline: Any, kind: str) -> list[str]:
    """The columns that a pipeline uses as ``numeric`` or ``categorical``, in its order."""
    parts = pipeline.named_steps["prepare"].transformers_
    return [str(column) for name, _, columns in parts if name == kind for column in columns]


def _columns(schema: FeatureSchema, kind: str) -> list[str]:
    return [feature.name for feature in schema.features if feature.kind == kind]


def _boosting(task: str) -> type:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    estimator: type = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    return estimator


def _fit_boosting(model: Any, schema: FeatureSchema, train: "Split", valid: "Split") -> Fitted:
    """Trees on the numbers as they are and on category codes; an unseen category is a missing value."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    numeric, categorical = _columns(schema, "numeric"), _columns(schema, "categorical")
    numeric = [name for name in numeric if train.inputs[name].notna().any()]  # scikit-learn cannot bin nothing
    if not numeric and not categorical:
        raise BadInput("No feature has a value in the train split: there is nothing to learn from.")
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=float("nan"),
        max_categories=model.max_bins,
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
    held_out = {"X_val": prepare.transform(valid.inputs), "y_val": valid.target} if model.early_stopping is True else {}
    model.fit(inputs, train.target, **held_out)
    return Fitted(Pipeline([("prepare", prepare), ("model", model)]), {"iterations": float(model.n_iter_)})


def _linear(task: str) -> type:
    from sklearn.linear_model import LogisticRegression, Ridge

    estimator: type = Ridge if task == "regression" else LogisticRegression
    return estimator


def _fit_linear(model: Any, schema: FeatureSchema, train: "Split", valid: "Split") -> Fitted:
    """Median for missing numbers, then unit scale; one column per category, none lit for an unseen one."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric, categorical = _columns(schema, "numeric"), _columns(schema, "categorical")
    numbers = Pipeline(
        [("impute", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", StandardScaler())]
    )
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=100, sparse_output=False)
    prepare = ColumnTransformer(
        [("numeric", numbers, numeric)] * bool(numeric) + [("categorical", one_hot, categorical)] * bool(categorical),
        sparse_threshold=0,
        verbose_feature_names_out=False,
    )
    pipeline = Pipeline([("prepare", prepare), ("model", model)])
    pipeline.fit(train.inputs, train.target)
    return Fitted(pipeline)


def _boosting_defaults(task: str) -> dict[str, Any]:
    """Small trees in small steps, stopped on the valid split.

    On five splits of the telco set this gave a mean AUC of 0.836 against 0.830 with scikit-learn's defaults, in the
    same time. Several classes cost a tree each per step: larger steps that stop sooner make digits seven times faster
    at the same accuracy.
    """
    steps = {"learning_rate": 0.1, "tol": 1e-3} if task == "multiclass" else {"learning_rate": 0.05}
    trees = {"max_iter": 500, "max_leaf_nodes": 15, "l2_regularization": 1.0, "max_features": 0.5}
    return steps | trees | {"early_stopping": True}


def _linear_defaults(task: str) -> dict[str, Any]:
    return {} if task == "regression" else {"max_iter": 1000}


TRAINERS = {
    "hist_gradient_boosting": Trainer(_boosting, _boosting_defaults, _fit_boosting),
    "linear": Trainer(_linear, _linear_defaults, _fit_linear),
}
