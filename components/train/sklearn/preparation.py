"""What a pipeline's preparation makes of raw columns, as nodes of an ONNX graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.features.schema import FeatureSchema
from components.train.contract import NoGraph
from components.train.graph import Draft, concatenated

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Numbers:
    """A tensor of doubles ``[N, width]``."""

    tensor: str
    width: int

    def emit(self, draft: Draft) -> str:
        """The tensor's name."""
        return self.tensor


@dataclass(frozen=True)
class Codes:
    """A text column as one column of numbers, by category."""

    column: str
    codes: dict[str, float]
    unknown: float
    width: int = 1

    def emit(self, draft: Draft) -> str:
        """Write the node; returns the tensor's name, ``[N, 1]``."""
        return draft.encode(self.column, self.codes, self.unknown)


Part = Numbers | Codes


def prepared(draft: Draft, steps: Sequence[Any], schema: FeatureSchema) -> list[Part]:
    """The matrix that a pipeline's last step sees, in parts from left to right.

    Args:
        draft: the graph being written.
        steps: the fitted transformers before the last step, in order.
        schema: the raw columns.

    Raises:
        NoGraph: a transformer that has no counterpart here.
    """
    kinds = {feature.name: feature.kind for feature in schema.features}
    left = list(steps)
    if left and type(left[0]).__name__ == "ColumnTransformer":
        parts = _columns(draft, left.pop(0), kinds)
    elif text := [name for name, kind in kinds.items() if kind == "categorical"]:
        raise NoGraph(f"there is no ONNX graph for the text column {text[0]!r} outside a ColumnTransformer")
    else:
        parts = [Numbers(name, 1) for name in kinds]
    for step in left:
        parts = [_numbers(draft, step, matrix(draft, parts))]
    return parts


def matrix(draft: Draft, parts: Sequence[Part]) -> Numbers:
    """The parts side by side."""
    return Numbers(concatenated(draft, [part.emit(draft) for part in parts]), sum(part.width for part in parts))


def _columns(draft: Draft, transformer: Any, kinds: Mapping[str, str]) -> list[Part]:
    parts: list[Part] = []
    for _, fitted, columns in transformer.transformers_:
        if (isinstance(fitted, str) and fitted == "drop") or len(columns) == 0:
            continue
        unknown = [name for name in columns if name not in kinds]
        if unknown:
            raise NoGraph(f"the ColumnTransformer names columns otherwise than by their names: {unknown[0]!r}")
        text = {kinds[name] == "categorical" for name in columns}
        if text == {True}:
            parts += _text(draft, fitted, list(columns))
        elif text == {False}:
            numbers = Numbers(concatenated(draft, list(columns)), len(columns))
            parts.append(_numbers(draft, fitted, numbers))
        else:
            raise NoGraph("one part of the ColumnTransformer takes numbers and text together")
    return parts


def _numbers(draft: Draft, fitted: Any, given: Numbers) -> Numbers:
    """A transformer of numbers, ``[N, width]`` to ``[N, width]``, with the operations of scikit-learn in its order."""
    kind = type(fitted).__name__
    if fitted == "passthrough" or (kind == "FunctionTransformer" and fitted.func is None):
        return given
    if kind == "Pipeline":
        for _, step in fitted.steps:
            given = _numbers(draft, step, given)
        return given
    steps = {"SimpleImputer": _imputed, "StandardScaler": _standard, "MinMaxScaler": _min_max}
    if kind not in steps:
        raise NoGraph(f"there is no ONNX graph for {kind} on numbers")
    return Numbers(steps[kind](draft, fitted, given.tensor), given.width)


def _imputed(draft: Draft, imputer: Any, tensor: str) -> str:
    import numpy as np

    known = imputer.statistics_.astype("float64")
    if imputer.add_indicator or np.isnan(known).any() or not np.isnan(imputer.missing_values):
        raise NoGraph("there is no ONNX graph for a SimpleImputer that adds or drops columns, or has its own marker")
    return draft.node("Where", draft.node("IsNaN", tensor), _row(draft, known), tensor)


def _standard(draft: Draft, scaler: Any, tensor: str) -> str:
    if scaler.with_mean:
        tensor = draft.node("Sub", tensor, _row(draft, scaler.mean_))
    return draft.node("Div", tensor, _row(draft, scaler.scale_)) if scaler.with_std else tensor


def _min_max(draft: Draft, scaler: Any, tensor: str) -> str:
    import numpy as np

    scaled = draft.node("Add", draft.node("Mul", tensor, _row(draft, scaler.scale_)), _row(draft, scaler.min_))
    if not scaler.clip:
        return scaled
    low, high = (draft.constant(np.array(float(bound))) for bound in scaler.feature_range)
    # A missing value stays one here, whatever a runtime's Clip makes of it.
    return draft.node("Where", draft.node("IsNaN", scaled), scaled, draft.node("Clip", scaled, low, high))


def _row(draft: Draft, values: "np.ndarray[Any, Any]") -> str:
    return draft.constant(values.reshape(1, -1).astype("float64"))


def _text(draft: Draft, encoder: Any, columns: list[str]) -> list[Part]:
    kind = type(encoder).__name__
    if kind == "OrdinalEncoder":
        return list(_ordinal(encoder, columns))
    if kind == "OneHotEncoder" and encoder.drop is None and encoder.handle_unknown != "error":
        return [_one_hot(draft, name, encoder, index) for index, name in enumerate(columns)]
    raise NoGraph(f"there is no ONNX graph for {kind} on text, as it is set")


def _ordinal(encoder: Any, columns: list[str]) -> list[Codes]:
    """The code of each category, by column; asking the encoder follows whatever it groups."""
    import numpy as np

    if encoder.handle_unknown != "use_encoded_value":
        raise NoGraph("there is no ONNX graph for an OrdinalEncoder that refuses unknown categories")
    rows = max(map(len, encoder.categories_))
    table: Any = np.empty((rows, len(columns)), dtype=object)
    for index, values in enumerate(encoder.categories_):
        table[:, index] = [*values, *[values[0]] * (rows - len(values))]
    if hasattr(encoder, "feature_names_in_"):
        import pandas as pd

        table = pd.DataFrame(table, columns=encoder.feature_names_in_)
    codes = np.asarray(encoder.transform(table), "float64")
    return [
        Codes(
            name,
            dict(zip(map(str, encoder.categories_[index]), codes[:, index].tolist(), strict=False)),
            float(encoder.unknown_value),
        )
        for index, name in enumerate(columns)
    ]


def _one_hot(draft: Draft, name: str, encoder: Any, index: int) -> Numbers:
    """A text column as ``[N, width]``: lit at its category, at the infrequent one where there is one, or nowhere."""
    import numpy as np
    from onnx import TensorProto

    names = [str(category) for category in encoder.categories_[index]]
    grouped = encoder.infrequent_categories_[index] if hasattr(encoder, "infrequent_categories_") else None
    rare = set() if grouped is None else {str(category) for category in grouped}
    frequent = [category for category in names if category not in rare]
    codes = {category: float(code) for code, category in enumerate(frequent)}
    codes |= dict.fromkeys(rare, float(len(frequent)))
    width = len(frequent) + bool(rare)
    infrequent = rare and encoder.handle_unknown in ("infrequent_if_exist", "warn")
    code = draft.encode(name, dict(sorted(codes.items())), float(len(frequent)) if infrequent else -1.0)
    lit = draft.node("Equal", code, draft.constant(np.arange(width, dtype="float64").reshape(1, -1)))
    return Numbers(draft.node("Cast", lit, to=TensorProto.DOUBLE), width)
