"""The ONNX graph of a fitted scikit-learn pipeline, in doubles from end to end."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from components.features.schema import FeatureSchema
from components.train.contract import NoGraph
from components.train.graph import Draft, outputs, probabilities
from components.train.sklearn import trees
from components.train.sklearn.calibration_graph import calibrated
from components.train.sklearn.preparation import Codes, Part, matrix, prepared

if TYPE_CHECKING:
    import onnx


def build(pipeline: Any, schema: FeatureSchema) -> "onnx.ModelProto":
    """The ONNX model of a pipeline: raw columns in, probabilities or values out.

    Raises:
        NoGraph: a step, loss or output that has no counterpart here.
    """
    draft = Draft()
    *steps, model = [step for _, step in pipeline.steps]
    parts = prepared(draft, [step for step in steps if step != "passthrough"], schema)
    kind = type(model).__name__
    if kind == "CalibratedClassifierCV":
        named = calibrated(draft, model, lambda inner: response(draft, inner, parts)[0])
        return draft.finish(probabilities(draft, named), schema)
    raw, link = response(draft, model, parts)
    if link:
        return draft.finish(outputs(draft, raw, link), schema)
    return draft.finish(probabilities(draft, _complement(draft, raw) if _is_binary(model) else raw), schema)


def response(draft: Draft, model: Any, parts: Sequence[Part]) -> tuple[str, str]:
    """What a model computes first, and the link function that makes predictions of it.

    Returns:
        ``[N, 1]`` for one value or two classes (what speaks for the second), else ``[N, classes]``; the link is empty
        where they are probabilities already.

    Raises:
        NoGraph: a model that has no counterpart here.
    """
    kind = type(model).__name__
    kinds: dict[str, Callable[..., tuple[str, str]]] = {
        "HistGradientBoostingClassifier": _boosted,
        "HistGradientBoostingRegressor": _boosted,
        "RandomForestClassifier": _forest,
        "RandomForestRegressor": _forest,
        "ExtraTreesClassifier": _forest,
        "ExtraTreesRegressor": _forest,
        "LogisticRegression": _linear,
        "Ridge": _linear,
    }
    if kind not in kinds:
        raise NoGraph(f"there is no ONNX graph for {kind}")
    return kinds[kind](draft, model, parts)


def _boosted(draft: Draft, model: Any, parts: Sequence[Part]) -> tuple[str, str]:
    """Raw predictions ``[N, trees per iteration]``; TreeEnsemble-5 of the ai.onnx.ml operators."""
    import numpy as np

    if model._preprocessor is not None:
        parts = _recoded(model, parts)
    attributes = trees.boosted(model)
    raw = draft.node("TreeEnsemble", matrix(draft, parts).tensor, domain="ai.onnx.ml", **attributes)
    baseline = np.asarray(model._baseline_prediction, "float64").reshape(1, -1)
    return draft.node("Add", raw, draft.constant(baseline)), type(model._loss.link).__name__


def _recoded(model: Any, parts: Sequence[Part]) -> list[Part]:
    """The columns in the order of the trees, which put categories first and number them anew."""
    import numpy as np

    numbers = [part for part in parts if not isinstance(part, Codes)]
    coded = [part for part in parts if isinstance(part, Codes)]
    columns = np.flatnonzero(np.concatenate([[isinstance(part, Codes)] * part.width for part in parts]))
    if not np.array_equal(columns, np.flatnonzero(model.is_categorical_)):
        raise NoGraph("there is no ONNX graph for trees that take other columns as categories than encoded text")
    rows = max(len(part.codes) for part in coded)
    table = np.zeros((rows, len(model.is_categorical_)))
    for column, part in zip(columns, coded, strict=True):
        table[: len(part.codes), column] = list(part.codes.values())
    codes = model._preprocessor.transform(table)[:, : len(coded)]
    again = [
        Codes(part.column, dict(zip(part.codes, codes[:, index].tolist(), strict=False)), float("nan"))
        for index, part in enumerate(coded)
    ]
    return [*again, *numbers]


def _forest(draft: Draft, model: Any, parts: Sequence[Part]) -> tuple[str, str]:
    """The mean over the trees: ``[N, 1]``, or ``[N, classes]`` for more than two."""
    import numpy as np
    from onnx import TensorProto

    # Forests round what they are given to float32, and compare that with thresholds that are doubles.
    single = draft.node("Cast", matrix(draft, parts).tensor, to=TensorProto.FLOAT)
    inputs = draft.node("Cast", single, to=TensorProto.DOUBLE)
    count = draft.constant(np.array(float(len(model.estimators_))))
    classes = len(getattr(model, "classes_", ()))
    if classes <= 2:
        attributes = trees.averaged(model, max(classes - 1, 0))
        total = draft.node("TreeEnsemble", inputs, domain="ai.onnx.ml", **attributes)
    else:
        attributes, table = trees.leaves(model)
        numbers = draft.node("TreeEnsemble", inputs, domain="ai.onnx.ml", **attributes)
        places = draft.node("Cast", numbers, to=TensorProto.INT64)
        values = draft.node("Gather", draft.constant(table), places, axis=0)
        total = draft.node("ReduceSum", values, draft.constant(np.array([1])), keepdims=0)
    return draft.node("Div", total, count), "" if classes else "IdentityLink"


def _linear(draft: Draft, model: Any, parts: Sequence[Part]) -> tuple[str, str]:
    """Decision values ``[N, 1]`` or ``[N, classes]``."""
    import numpy as np

    coefficients = np.atleast_2d(np.asarray(model.coef_, "float64")).T
    product = draft.node("MatMul", matrix(draft, parts).tensor, draft.constant(np.ascontiguousarray(coefficients)))
    raw = draft.node("Add", product, draft.constant(np.asarray(model.intercept_, "float64").reshape(1, -1)))
    if type(model).__name__ == "Ridge":
        return raw, "IdentityLink"
    return raw, "LogitLink" if _is_binary(model) else "MultinomialLogit"


def _is_binary(model: Any) -> bool:
    return len(model.classes_) == 2


def _complement(draft: Draft, last: str) -> str:
    import numpy as np

    return draft.node("Concat", draft.node("Sub", draft.constant(np.array(1.0)), last), last, axis=1)
