"""A calibrated classifier as nodes of an ONNX graph."""

from collections.abc import Callable
from typing import Any

from components.train.contract import NoGraph
from components.train.graph import Draft
from components.train.sklearn.trees import lookup


def calibrated(draft: Draft, model: Any, response: Callable[[Any], str]) -> str:
    """Probabilities ``[N, classes]`` of a ``CalibratedClassifierCV`` around one fitted classifier.

    Args:
        draft: the graph being written.
        model: the fitted classifier.
        response: writes what the inner classifier computes, ``[N, 1]`` for two classes, else ``[N, classes]``.

    Raises:
        NoGraph: a way of calibrating that has no counterpart here.
    """
    import numpy as np

    if len(model.calibrated_classifiers_) != 1 or model.method not in ("sigmoid", "isotonic"):
        raise NoGraph("there is no ONNX graph for a calibration other than one sigmoid or isotonic map for each class")
    (found,) = model.calibrated_classifiers_
    inner = found.estimator
    raw = response(inner.estimator if type(inner).__name__ == "FrozenEstimator" else inner)
    classes = len(model.classes_)
    one = draft.constant(np.array(1.0))
    if classes == 2:
        last = draft.node("Min", _mapped(draft, found.calibrators[0], raw), one)
        return draft.node("Concat", draft.node("Sub", one, last), last, axis=1)
    columns = [
        _mapped(draft, calibrator, draft.node("Gather", raw, draft.constant(np.array([index])), axis=1))
        for index, calibrator in enumerate(found.calibrators)
    ]
    mapped = draft.node("Concat", *columns, axis=1)
    total = draft.node("ReduceSum", mapped, draft.constant(np.array([1])), keepdims=1)
    nothing = draft.node("Equal", total, draft.constant(np.array(0.0)))
    shares = draft.node("Div", mapped, draft.node("Where", nothing, one, total))
    shares = draft.node("Where", nothing, draft.constant(np.array(1.0 / classes)), shares)
    return draft.node("Min", shares, one)


def _mapped(draft: Draft, calibrator: Any, raw: str) -> str:
    import numpy as np

    kind = type(calibrator).__name__
    if kind == "_SigmoidCalibration":
        line = draft.node("Add", draft.node("Mul", raw, _number(draft, calibrator.a_)), _number(draft, calibrator.b_))
        return draft.node("Sigmoid", draft.node("Neg", line))
    if kind != "IsotonicRegression" or calibrator.out_of_bounds != "clip":
        raise NoGraph(f"there is no ONNX graph for the calibrator {kind}, as it is set")
    edges, values = (np.asarray(a, "float64") for a in (calibrator.X_thresholds_, calibrator.y_thresholds_))
    if len(edges) == 1:
        return draft.node("Add", draft.node("Mul", raw, _number(draft, 0.0)), _number(draft, values[0]))
    inside = draft.node("Clip", raw, _number(draft, edges[0]), _number(draft, edges[-1]))
    return _interpolated(draft, inside, edges, values)


def _interpolated(draft: Draft, tensor: str, edges: Any, values: Any) -> str:
    """``numpy.interp`` of ``[N, 1]``: the piece that a number lies in, then its line."""
    import numpy as np
    from onnx import TensorProto

    piece = draft.node("TreeEnsemble", tensor, domain="ai.onnx.ml", **lookup(edges[1:-1]))
    place = draft.node("Cast", piece, to=TensorProto.INT64)
    starts, bases, slopes = (
        draft.node("Gather", draft.constant(np.ascontiguousarray(table)), place, axis=0)
        for table in (edges[:-1], values[:-1], np.diff(values) / np.diff(edges))
    )
    return draft.node("Add", draft.node("Mul", draft.node("Sub", tensor, starts), slopes), bases)


def _number(draft: Draft, value: float) -> str:
    import numpy as np

    return draft.constant(np.array(float(value)))
