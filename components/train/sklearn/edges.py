"""Where the predictions of a fitted pipeline jump: its trees' thresholds as values of the raw columns."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def edges(pipeline: Any) -> "dict[str, Array]":
    """Thresholds by numeric column; empty for models without trees, and behind preparations of unknown shape."""
    *before, model = [step for _, step in pipeline.steps]
    thresholds = _thresholds(_innermost(model))
    if not thresholds or [type(step).__name__ for step in before] != ["ColumnTransformer"]:
        return {}
    found = {}
    for first, columns, fitted in _blocks(before[0]):
        for index, name in enumerate(columns):
            values = thresholds.get(first + index)
            if values is not None:
                found[str(name)] = _raw(fitted, values, index, len(columns))
    return found


def _innermost(model: Any) -> Any:
    if type(model).__name__ == "CalibratedClassifierCV":
        model = model.calibrated_classifiers_[0].estimator
    return model.estimator if type(model).__name__ == "FrozenEstimator" else model


def _thresholds(model: Any) -> "dict[int, Array]":
    """By column of the matrix that the model is given."""
    import numpy as np

    if hasattr(model, "_predictors"):
        nodes = np.concatenate([tree.nodes for iteration in model._predictors for tree in iteration])
        nodes = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0)]
        features, splits = nodes["feature_idx"], nodes["num_threshold"]
        if model.is_categorical_ is not None:  # the trees count categories first
            features = np.argsort(~model.is_categorical_, kind="stable")[features]
    elif hasattr(model, "estimators_") and all(hasattr(tree, "tree_") for tree in model.estimators_):
        trees = [tree.tree_ for tree in model.estimators_]
        inner = np.concatenate([tree.children_left for tree in trees]) != -1
        features = np.concatenate([tree.feature for tree in trees])[inner]
        splits = _rounding_edges(np.concatenate([tree.threshold for tree in trees])[inner])
        features = np.tile(features, len(splits) // max(len(features), 1))
    else:
        return {}
    finite = np.isfinite(splits)  # a forest parts missing values from all others at infinity
    features, splits = features[finite], splits[finite]
    return {int(column): np.unique(splits[features == column]) for column in np.unique(features)}


def _rounding_edges(thresholds: "Array") -> "Array":
    """A forest rounds to float32 first, so that it branches half-way between the float32 around a threshold."""
    import numpy as np

    near = thresholds.astype("float32")
    below = np.where(near > thresholds, np.nextafter(near, np.float32("-inf")), near).astype("float64")
    above = np.nextafter(below.astype("float32"), np.float32("inf")).astype("float64")
    return np.concatenate([thresholds, (below + above) / 2])


def _blocks(transformer: Any) -> Iterator[tuple[int, list[Any], Any]]:
    """Parts for numbers, with one output per column: the place of the first, the columns, what is fitted."""
    for name, fitted, columns in transformer.transformers_:
        place = transformer.output_indices_[name]
        is_text = any(hasattr(step, "categories_") for step in _steps(fitted))
        if len(columns) and place.stop - place.start == len(columns) and not is_text:
            yield place.start, list(columns), fitted


def _raw(fitted: Any, values: "Array", index: int, width: int) -> "Array":
    """Values of one prepared column as they were before a chain of scalers."""
    import numpy as np

    matrix = np.zeros((len(values), width))
    matrix[:, index] = values
    for step in reversed(_steps(fitted)):
        if type(step).__name__ in ("StandardScaler", "MinMaxScaler"):
            matrix = step.inverse_transform(matrix)
    raw: Array = matrix[:, index]
    return raw


def _steps(fitted: Any) -> list[Any]:
    return [step for _, step in fitted.steps] if hasattr(fitted, "steps") else [fitted]
