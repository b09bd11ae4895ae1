"""Measures how far an ONNX graph is from the model it was made of, on real rows and on rows made to break it."""

from typing import TYPE_CHECKING, Any

from serving.schema import Parity

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import pandas as pd

    from components.features.schema import FeatureSchema
    from components.train.contract import Fitted

PROBES = 500
UNSEEN = "\N{REPLACEMENT CHARACTER} unseen"


def probes(inputs: "pd.DataFrame", schema: "FeatureSchema", fitted: "Fitted", seed: int) -> "pd.DataFrame":
    """Real rows, changed where graphs go wrong.

    Missing numbers, unseen and missing categories, values beyond the range seen, and the doubles just at, below and
    above tree thresholds.

    Args:
        inputs: model frame to start from, ``(rows, features)``, not empty.
        schema: the kinds of the columns.
        fitted: the fitted model, for its thresholds.
        seed: which rows and values are drawn.

    Returns:
        ``(PROBES, features)``.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    frame = inputs.iloc[random.integers(len(inputs), size=PROBES)].reset_index(drop=True)
    thresholds = fitted.edges()
    for feature in schema.features:
        changed = random.random(PROBES)
        column = frame[feature.name].to_numpy(copy=True)
        if feature.kind == "categorical":
            column[changed < 0.1] = UNSEEN
            column[(changed >= 0.1) & (changed < 0.2)] = ""
        else:
            column[changed < 0.1] = np.nan
            far = (changed >= 0.1) & (changed < 0.2)
            column[far] = column[far] * random.choice([-10.0, 10.0], size=int(far.sum()))
            near = changed >= 0.5
            edges = thresholds.get(feature.name)
            if edges is not None:
                column[near] = _neighbours(edges, int(near.sum()), random)
        frame[feature.name] = column
    return frame


def compare(
    graph: "onnx.ModelProto",
    frame: "pd.DataFrame",
    wanted: "np.ndarray[Any, Any]",
    schema: "FeatureSchema",
    tolerance: float,
) -> Parity:
    """Compare the graph's probabilities (or values) with the native model's on the same rows.

    Args:
        graph: the ONNX graph.
        frame: rows of the model frame, ``(rows, features)``.
        wanted: the native model's predictions of them.
        schema: the task and the kinds of the columns.
        tolerance: largest absolute difference allowed; for regression times the mean size of a prediction, where that
            is above 1.
    """
    import numpy as np

    if schema.task == "regression":
        tolerance *= max(1.0, float(np.abs(wanted).mean()))
    try:
        given = _onnx_predictions(graph, frame, schema)
    except RuntimeError as error:
        return not_measured(tolerance, f"onnxruntime could not run the graph: {' '.join(str(error).split())}")
    difference = np.abs(given - wanted)
    finite = difference[np.isfinite(difference)]
    largest = float(finite.max(initial=0.0))
    reason = ""
    if len(finite.ravel()) < difference.size:
        reason = f"{difference.size - finite.size:,} of {difference.size:,} predictions are not finite"
    elif largest > tolerance:
        reason = f"predictions differ by up to {largest:.3g}"
    return Parity(
        rows=len(frame),
        max_abs=largest,
        p999_abs=float(np.quantile(finite, 0.999)) if finite.size else 0.0,
        tolerance=tolerance,
        holds=not reason,
        reason=reason,
    )


def not_measured(tolerance: float, reason: str) -> Parity:
    """No row was compared, and why."""
    return Parity(rows=0, max_abs=0.0, p999_abs=0.0, tolerance=tolerance, holds=False, reason=reason)


def _onnx_predictions(graph: "onnx.ModelProto", frame: "pd.DataFrame", schema: "FeatureSchema") -> Any:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {feature.name: frame[feature.name].to_numpy().reshape(-1, 1) for feature in schema.features}
    used = {given.name for given in session.get_inputs()}
    *_, scores = session.run(None, {name: values for name, values in feed.items() if name in used})
    scores = np.asarray(scores, "float64")
    return scores.reshape(-1) if schema.task == "regression" else scores


def _neighbours(edges: "np.ndarray[Any, Any]", count: int, random: "np.random.Generator") -> "np.ndarray[Any, Any]":
    import numpy as np

    values = random.choice(edges, size=count)
    step = random.integers(-1, 2, size=count)
    moved: np.ndarray[Any, Any] = np.where(step == 0, values, np.nextafter(values, np.where(step > 0, np.inf, -np.inf)))
    return moved
