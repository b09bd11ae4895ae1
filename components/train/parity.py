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
REAL_ROWS = 5_000
"""Of a longer valid split, parity is measured on a sample of this many rows."""
UNSEEN = "\N{REPLACEMENT CHARACTER} unseen"
EXTREME = (0.0, -0.0, 1e-300, -1e-300, 1e30, -1e30, 3.4028235e38, -3.4028235e38, 1e39, -1e39)
"""Too small, large, and too large for float32."""
ROWS_AT_ONCE = 8_192
"""What a graph is given at a time: a forest of many classes holds a number for each row, tree and class."""


def probes(inputs: "pd.DataFrame", schema: "FeatureSchema", fitted: "Fitted", seed: int) -> "pd.DataFrame":
    """Real rows, changed where graphs go wrong.

    Missing numbers, unseen and missing categories, values beyond the range seen, and the doubles and float32 numbers
    just at, below and above tree thresholds. One row in five has one extreme number: more would lead every row down
    the same outermost branches.

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
    numeric = [feature.name for feature in schema.features if feature.kind == "numeric"]
    extreme = random.integers(5 * max(len(numeric), 1), size=PROBES)  # which column of a row, if any
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
            outermost = extreme == numeric.index(feature.name)
            column[outermost] = random.choice(EXTREME, size=int(outermost.sum()))
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
        tolerance: largest absolute difference allowed. For regression it is times the median size of a prediction,
            where that is above 1, and a prediction larger than that may differ by as much more, so that a few huge
            predictions neither fail every graph nor excuse the others.
    """
    import numpy as np

    usual = 1.0
    if schema.task == "regression":
        usual = max(1.0, _median_size(wanted))
    tolerance *= usual
    try:
        given = onnx_predictions(graph.SerializeToString(), frame, schema, ROWS_AT_ONCE)
    except RuntimeError as error:
        return not_measured(tolerance, f"onnxruntime could not run the graph: {error}")
    with np.errstate(invalid="ignore"):
        difference = np.abs(given - wanted)
        if schema.task == "regression":
            difference *= usual / np.maximum(usual, np.abs(wanted))
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


def onnx_predictions(
    model: bytes | str, frame: "pd.DataFrame", schema: "FeatureSchema", at_once: int = 0
) -> "np.ndarray[Any, Any]":
    """Run a graph on rows of the model frame.

    Args:
        model: the graph, or the path of its file.
        frame: ``(rows, features)``, not empty.
        schema: the task and the kinds of the columns.
        at_once: rows per call; 0 for all in one.

    Returns:
        float64 probabilities ``(rows, classes)``, or values ``(rows,)``.

    Raises:
        RuntimeError: onnxruntime cannot load or run it.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other work waits for the same cores
    size = at_once or len(frame)
    parts = []
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        types = {"tensor(float)": "float32", "tensor(double)": "float64"}  # as serving feeds it
        used = {given.name: types.get(given.type, "object") for given in session.get_inputs()}
        columns = {f.name: frame[f.name].to_numpy() for f in schema.features if f.name in used}
        feed = {name: values.astype(used[name], copy=False).reshape(-1, 1) for name, values in columns.items()}
        for start in range(0, len(frame), size):
            *_, scores = session.run(None, {name: values[start : start + size] for name, values in feed.items()})
            parts.append(np.asarray(scores, "float64"))
    except onnxruntime_errors() as error:
        raise RuntimeError(" ".join(str(error).split())) from error
    together = np.concatenate(parts)
    return together.reshape(-1) if schema.task == "regression" else together


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: a dozen classes that have no base in common but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))


def _median_size(values: "np.ndarray[Any, Any]") -> float:
    import numpy as np

    sizes = np.abs(values[np.isfinite(values)])
    return float(np.median(sizes)) if sizes.size else 0.0


def _neighbours(edges: "np.ndarray[Any, Any]", count: int, random: "np.random.Generator") -> "np.ndarray[Any, Any]":
    """Edges, and what lies next to them among doubles and among float32 numbers."""
    import numpy as np

    values = random.choice(edges, size=count)
    single = values.astype("float32")
    towards = random.choice([-np.inf, np.inf], size=count)
    near = [
        values,
        np.nextafter(values, towards),
        single.astype("float64"),
        np.nextafter(single, towards.astype("float32")).astype("float64"),
    ]
    chosen: np.ndarray[Any, Any] = np.choose(random.integers(len(near), size=count), near)
    return chosen
