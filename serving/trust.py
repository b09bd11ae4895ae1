"""Which types a native model may hold: names, one by one.

skops refuses what it does not know, but what it knows is wide: every scikit-learn estimator, NumPy and SciPy function.
A bundle needs far less, so a file is checked against this list before skops reads it. There is no prefix in it: a new
kind of model is a new line here, reviewed.

The list checks types, not contents, but for trees: scikit-learn follows their indices without looking, so a forged one
could read beyond its arrays (which is why skops itself trusts no ``Tree``), and they are looked at after loading. That
a file is the one that training wrote is what the digests in ``bundle.json`` say.
"""

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import BadBundle

_LOSSES = (
    "AbsoluteError",
    "HalfBinomialLoss",
    "HalfGammaLoss",
    "HalfMultinomialLoss",
    "HalfPoissonLoss",
    "HalfSquaredError",
    "PinballLoss",
)
_LINKS = ("HalfLogitLink", "IdentityLink", "Interval", "LogLink", "LogitLink", "MultinomialLogit")

TYPES: frozenset[str] = frozenset(
    {
        "builtins.bool",
        "builtins.dict",
        "builtins.float",
        "builtins.int",
        "builtins.list",
        "builtins.set",
        "builtins.slice",
        "builtins.str",
        "builtins.tuple",
        "numpy.bool",
        "numpy.dtype",
        "numpy.float32",
        "numpy.float64",
        "numpy.int32",
        "numpy.int64",
        "numpy.ndarray",
        "numpy.random._generator.Generator",
        "numpy.random.mtrand.RandomState",
        "numpy.uint8",
        "numpy.uint32",
        "numpy.uint64",
        "sklearn.calibration.CalibratedClassifierCV",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.compose._column_transformer.ColumnTransformer",
        "sklearn.ensemble._forest.ExtraTreesClassifier",
        "sklearn.ensemble._forest.ExtraTreesRegressor",
        "sklearn.ensemble._forest.RandomForestClassifier",
        "sklearn.ensemble._forest.RandomForestRegressor",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingRegressor",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.frozen._frozen.FrozenEstimator",
        "sklearn.impute._base.MissingIndicator",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.isotonic.IsotonicRegression",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.linear_model._ridge.Ridge",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.MinMaxScaler",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._encoders.OneHotEncoder",
        "sklearn.preprocessing._encoders.OrdinalEncoder",
        "sklearn.preprocessing._label.LabelEncoder",
        "sklearn.tree._classes.DecisionTreeClassifier",
        "sklearn.tree._classes.DecisionTreeRegressor",
        "sklearn.tree._classes.ExtraTreeClassifier",
        "sklearn.tree._classes.ExtraTreeRegressor",
        "sklearn.tree._tree.Tree",
        # Histogram gradient boosting with categorical columns checks them with partial(check_array, ...): the one
        # function on this list.
        "functools.partial",
        "sklearn.preprocessing._function_transformer.FunctionTransformer",
        "sklearn.utils.validation.check_array",
        *(f"sklearn._loss.loss.{name}" for name in _LOSSES),
        *(f"sklearn._loss._loss.Cy{name}" for name in _LOSSES),
        *(f"sklearn._loss.link.{name}" for name in _LINKS),
    }
)

_MOST_UNPACKED = 100  # models shrink five to twenty times; deflate could 1,000 times

_LOADERS = frozenset(
    {
        "DTypeNode",
        "DictNode",
        "FunctionNode",
        "JsonNode",
        "ListNode",
        "LossNode",
        "NdArrayNode",
        "ObjectNode",
        "PartialNode",
        "RandomGeneratorNode",
        "RandomStateNode",
        "SetNode",
        "SliceNode",
        "TreeNode",
        "TupleNode",
        "TypeNode",
    }
)


def load_native(path: Path) -> Any:
    """Load a skops file that holds nothing outside :data:`TYPES`.

    Raises:
        BadBundle: the file holds another type, or is not a skops file.
    """
    check(path)
    import skops.io

    try:
        model = skops.io.load(path, trusted=sorted(TYPES))
        sound = all(_is_sound(*tree) for tree in _trees(model))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ImportError) as error:
        raise BadBundle(f"{path} does not load as a skops model: {error}. Train the model again.") from error
    if not sound:
        raise BadBundle(f"{path} holds a tree whose nodes lead nowhere. Train the model again.")
    return model


def _trees(model: Any, width: float = math.inf) -> Iterator[tuple[Any, float]]:
    """Every tree below an estimator, with how many columns it is given."""
    if hasattr(model, "estimators_") or hasattr(model, "_predictors") or hasattr(model, "tree_"):
        width = min(width, model.n_features_in_)
    inner = [step for _, step in getattr(model, "steps", ())]
    inner += [one.estimator for one in getattr(model, "calibrated_classifiers_", ())]
    inner += [model.estimator] if type(model).__name__ == "FrozenEstimator" else []
    for estimator in [*inner, *getattr(model, "estimators_", ())]:
        yield from _trees(estimator, width)
    for tree in [tree for iteration in getattr(model, "_predictors", ()) for tree in iteration]:
        yield tree, width
    if hasattr(model, "tree_"):
        yield model.tree_, width


def _is_sound(tree: Any, width: float) -> bool:
    """Whether a tree's nodes lead to later nodes, and look at columns, that are there."""
    if type(tree).__name__ == "TreePredictor":
        nodes = tree.nodes
        places = np.flatnonzero(nodes["is_leaf"] == 0)
        left, right, features = nodes["left"], nodes["right"], nodes["feature_idx"]
        sets = nodes["bitset_idx"][places][nodes["is_categorical"][places] != 0]
        if len(sets) and sets.max() >= len(tree.raw_left_cat_bitsets):
            return False
    else:
        if tree.node_count != tree.capacity:
            return False
        left, right, features = tree.children_left, tree.children_right, tree.feature
        places = np.flatnonzero(left != -1)
    children = np.stack([left[places], right[places]]).astype("int64")
    looked_at = features[places].astype("int64")
    return bool(
        (children > places).all() and (children < len(left)).all() and ((looked_at >= 0) & (looked_at < width)).all()
    )


def check(path: Path) -> list[str]:
    """Refuse a skops file that names a type or a way of loading outside the lists.

    Returns:
        The types that it names, sorted.

    Raises:
        BadBundle: says which types.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > _MOST_UNPACKED * path.stat().st_size:
                raise BadBundle(f"{path} unpacks to {unpacked:,} bytes, far more than any model of its size.")
            state = json.loads(archive.read("schema.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BadBundle(f"{path} is not a skops file: {error}.") from error
    found = set(_nodes(state))
    refused = sorted({name for name, loader in found if name not in TYPES or loader not in _LOADERS})
    if refused:
        raise BadBundle(
            f"{path} holds types that a model bundle may not hold: {', '.join(refused)}. "
            "It holds the types that serving/trust.py lists; a model of others can be an ONNX graph."
        )
    return sorted({name for name, _ in found})


def _nodes(state: Any) -> Iterator[tuple[str, str]]:
    if isinstance(state, dict):
        if "__loader__" in state or "__class__" in state:
            yield f"{state.get('__module__')}.{state.get('__class__')}", str(state.get("__loader__"))
        for value in state.values():
            yield from _nodes(value)
    elif isinstance(state, list):
        for value in state:
            yield from _nodes(value)
