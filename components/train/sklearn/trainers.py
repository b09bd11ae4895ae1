"""The scikit-learn trainers: each turns a split into one fitted pipeline, raw columns in, prediction out."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from components.errors import BadInput
from components.features.schema import Task
from components.train.contract import Data, Run
from components.train.sklearn.fitted import FittedPipeline
from components.train.threads import suited_to
from serving.schema import Framework

OURS = {"random_state", "categorical_features", "verbose", "warm_start", "n_jobs", "copy_X"}


@dataclass(frozen=True)
class SklearnTrainer:
    """An estimator with its defaults and the way it is fitted; see :class:`components.train.contract.Trainer`.

    Attributes:
        estimator: the estimator's class for a task; imports scikit-learn.
        defaults: parameters that differ from the estimator's own defaults, for a task.
        fitting: fits an estimator whose parameters are set.
        tried: what a search tries, for a task.
    """

    estimator: Callable[[str], type]
    defaults: Callable[[str], dict[str, Any]]
    fitting: Callable[[Any, Data], FittedPipeline]
    tried: Callable[[str], dict[str, dict[str, Any]]]
    framework: Framework = "sklearn"

    def parameters(self, task: Task) -> dict[str, Any]:
        """scikit-learn's own parameters with its defaults, then ours."""
        signature = inspect.signature(self.estimator(task))
        own = {name: p.default for name, p in signature.parameters.items() if name not in OURS}
        return own | {name: value for name, value in self.defaults(task).items() if name in own}

    def space(self, task: Task) -> dict[str, dict[str, Any]]:
        """What a search tries."""
        return self.tried(task)

    def fit(self, data: Data, parameters: Mapping[str, Any], run: Run) -> FittedPipeline:
        """Fit the pipeline.

        Raises:
            BadInput: scikit-learn refuses a value or the data.
        """
        estimator = self.estimator(data.schema.task)(**parameters)
        if "random_state" in estimator.get_params():
            estimator.set_params(random_state=run.seed)
        try:
            with suited_to(data.train.inputs.size):
                return self.fitting(estimator, data)
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise BadInput(f"scikit-learn could not fit {type(estimator).__name__}: {reason}") from error


def _boosting(task: str) -> type:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    estimator: type = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    return estimator


def _fit_boosting(model: Any, data: Data) -> FittedPipeline:
    """Trees on the numbers as they are and on category codes; an unseen category is a missing value."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    train, numeric, categorical = data.train, data.columns("numeric"), data.columns("categorical")
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
    held_out = (
        {"X_val": prepare.transform(data.valid.inputs), "y_val": data.valid.target}
        if model.early_stopping is True
        else {}
    )
    model.fit(inputs, train.target, **held_out)
    return FittedPipeline(Pipeline([("prepare", prepare), ("model", model)]), {"iterations": float(model.n_iter_)})


def _linear(task: str) -> type:
    from sklearn.linear_model import LogisticRegression, Ridge

    estimator: type = Ridge if task == "regression" else LogisticRegression
    return estimator


def _fit_linear(model: Any, data: Data) -> FittedPipeline:
    """Median for missing numbers, then unit scale; one column per category, none lit for an unseen one."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    train, numeric, categorical = data.train, data.columns("numeric"), data.columns("categorical")
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
    return FittedPipeline(pipeline)


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


def _boosting_space(task: str) -> dict[str, dict[str, Any]]:
    return {
        "learning_rate": {"low": 0.01, "high": 0.3, "log": True},
        "max_leaf_nodes": {"low": 4, "high": 63, "log": True},
        "min_samples_leaf": {"low": 5, "high": 100, "log": True},
        "l2_regularization": {"low": 1e-3, "high": 100.0, "log": True},
        "max_features": {"low": 0.2, "high": 1.0},
    }


def _linear_space(task: str) -> dict[str, dict[str, Any]]:
    return {"alpha" if task == "regression" else "C": {"low": 1e-3, "high": 1e3, "log": True}}


HIST_GRADIENT_BOOSTING = SklearnTrainer(_boosting, _boosting_defaults, _fit_boosting, _boosting_space)
LINEAR = SklearnTrainer(_linear, _linear_defaults, _fit_linear, _linear_space)
