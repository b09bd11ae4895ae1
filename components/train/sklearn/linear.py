"""Linear models: ridge regression, and logistic regression with any mix of L1 and L2 penalty."""

from typing import Any

from components.features.schema import Task
from components.train.contract import Data, Run
from components.train.sklearn.columns import at_most
from components.train.sklearn.fitted import FittedPipeline
from components.train.sklearn.trainer import SklearnTrainer

MAX_CATEGORIES = 100
"""Of each column; rarer categories share a coefficient."""


def _estimator(task: Task) -> type:
    from sklearn.linear_model import LogisticRegression, Ridge

    estimator: type = Ridge if task == "regression" else LogisticRegression
    return estimator


def _defaults(task: Task) -> dict[str, Any]:
    return {} if task == "regression" else {"max_iter": 1000}


def _space(task: Task) -> dict[str, dict[str, Any]]:
    return {"alpha" if task == "regression" else "C": {"low": 1e-3, "high": 1e3, "log": True}}


def _fit(model: Any, data: Data, run: Run) -> FittedPipeline:
    """Median for missing numbers, then unit scale; one column per category, none lit for an unseen one."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    train, numeric, categorical = data.train, data.columns("numeric"), data.columns("categorical")
    if getattr(model, "l1_ratio", 0.0) and model.solver == "lbfgs":
        model.set_params(solver="saga")  # the default solver knows no L1 penalty
    numbers = Pipeline(
        [("impute", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", StandardScaler())]
    )
    one_hot = OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=at_most(MAX_CATEGORIES, data), sparse_output=False
    )
    prepare = ColumnTransformer(
        [("numeric", numbers, numeric)] * bool(numeric) + [("categorical", one_hot, categorical)] * bool(categorical),
        sparse_threshold=0,
        verbose_feature_names_out=False,
    )
    pipeline = Pipeline([("prepare", prepare), ("model", model)])
    pipeline.fit(train.inputs, train.target)
    iterations = getattr(model, "n_iter_", None)
    return FittedPipeline(pipeline, {} if iterations is None else {"iterations": float(max(iterations))})


TRAINER = SklearnTrainer(_estimator, _defaults, _fit, _space)
