"""Rows and columns of many requests, typed together.

What clients send is nearly always right: numbers where numbers belong, texts where texts belong. So the values of
every request of a batch are typed at once, by a look at their types and one conversion; only when that fails is each
request typed alone, by :func:`serving.inputs.coerce`, which says what is wrong and where.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import BadInput
from components.features.schema import BLANK, FeatureSchema, InputType
from serving import inputs
from serving.inputs import Columns

Row = Sequence[Any]
Matrix = NDArray[np.float64]
Typed = Matrix | Columns
"""Inputs of n rows: a matrix (n, number of inputs) where all are numbers, else an array (n,) by name."""


class Asked:
    """The inputs of one request, not typed yet, in one of three forms."""

    __slots__ = ("columns", "count", "matrix", "rows")

    def __init__(
        self,
        count: int,
        *,
        rows: Sequence[Row] | None = None,
        columns: Mapping[str, Any] | None = None,
        matrix: NDArray[Any] | None = None,
    ) -> None:
        """Keep the inputs.

        Args:
            count: number of rows.
            rows: values in the order of the inputs, row by row.
            columns: values by input column.
            matrix: numbers (count, number of inputs), where all inputs are numbers.
        """
        self.count = count
        self.rows = rows
        self.columns = columns
        self.matrix = matrix


_NUMBERS = frozenset({float, int, type(None)})
_TRUTH = frozenset({bool, type(None)})
_MIXED = _NUMBERS | _TRUTH
_TEXT = frozenset({str, type(None)})


class Reader:
    """Types the inputs of one schema."""

    def __init__(self, schema: FeatureSchema) -> None:
        """Prepare for a schema."""
        self.schema = schema
        self.names: tuple[str, ...] = tuple(column.name for column in schema.inputs)
        self.index: dict[str, int] = {name: place for place, name in enumerate(self.names)}
        self.pick: Callable[[Mapping[str, Any]], Row] = _picker(self.names)
        """The values of a row that came as an object, in the order of the inputs; raises KeyError."""
        self.numbers = frozenset(column.name for column in schema.inputs if column.type in ("number", "boolean"))
        """Names of the inputs that are numbers or truth values."""
        self.is_matrix: bool = bool(self.names) and self.numbers.issuperset(self.names)
        """Whether all inputs are numbers, so that typed rows are a matrix."""
        self._truths = [place for place, column in enumerate(schema.inputs) if column.type == "boolean"]
        self._types: list[tuple[str, InputType]] = [(column.name, column.type) for column in schema.inputs]

    def typed(self, asked: Asked) -> Typed:
        """Type the inputs of one request.

        Raises:
            BadInput: names the column and the row, counted from 0.
        """
        if asked.rows is not None:
            return self.rows(asked.rows)
        if asked.matrix is not None:
            return self.matrix(asked.matrix)
        assert asked.columns is not None
        return self.columns(asked.columns)

    def rows(self, rows: Sequence[Row]) -> Typed:
        """Type rows of values in the order of the inputs.

        Raises:
            BadInput: names the column and the row, counted from 0.
        """
        if not rows:
            return self.columns(dict.fromkeys(self.names, ()))
        if not self.is_matrix:
            return self.columns(dict(zip(self.names, zip(*rows, strict=True), strict=True)))
        if (_MIXED if self._truths else _NUMBERS).issuperset(map(type, chain.from_iterable(rows))):
            try:
                return self._settled(np.array(rows, dtype=np.float64))
            except (ValueError, OverflowError, TypeError, BadInput):
                pass  # the slow way says what is wrong
        return self.columns(dict(zip(self.names, zip(*rows, strict=True), strict=True)))

    def columns(self, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> Typed:
        """Type input columns by name, all of one length; other columns are left out.

        Raises:
            BadInput: a column is missing, is longer than another, or holds a value that does not fit.
        """
        inputs.require(self.names, columns)
        typed: Columns = {}
        rows = -1
        for name, kind in self._types:
            values = columns[name]
            quick = _QUICK[kind](values) if isinstance(values, list | tuple) else None
            typed[name] = inputs.typed_column(name, kind, values) if quick is None else quick
            if rows not in (-1, len(values)):
                raise BadInput(f"Input column {name!r} has {len(values)} rows, others have {rows}.")
            rows = len(values)
        if self.is_matrix:
            return np.stack([typed[name] for name in self.names], axis=1)
        return typed

    def matrix(self, values: NDArray[Any]) -> Typed:
        """Type one tensor (n, number of inputs) of numbers.

        Raises:
            BadInput: a truth value is neither 0 nor 1; names the column and the row.
        """
        return self._settled(values.astype(np.float64))

    def _settled(self, matrix: Matrix) -> Matrix:
        finite = np.isfinite(matrix)
        if not finite.all():
            matrix[~finite] = np.nan
        for place in self._truths:
            values = matrix[:, place]
            if not ((values == 0) | (values == 1) | np.isnan(values)).all():
                inputs.coerce({name: matrix[:, at] for at, name in enumerate(self.names)}, self.schema)
        return matrix

    def joined_rows(self, asked: Sequence[Asked]) -> Typed:
        """Type the inputs of several requests, in their order: rows that follow each other at once.

        Raises:
            BadInput: one of them is wrong; the row that is named counts from another request's first.
        """
        if len(asked) == 1:
            return self.typed(asked[0])
        parts: list[Typed] = []
        together: list[Row] = []
        for one in asked:
            if one.rows is not None:
                together += one.rows
                continue
            if together:
                parts.append(self.rows(together))
                together = []
            parts.append(self.typed(one))
        if together:
            parts.append(self.rows(together))
        return self.joined(parts)

    @staticmethod
    def joined(parts: Sequence[Typed]) -> Typed:
        """The rows of several typed requests, in their order."""
        if len(parts) == 1:
            return parts[0]
        matrices = [part for part in parts if isinstance(part, np.ndarray)]
        if matrices:
            return np.concatenate(matrices)
        columns = [part for part in parts if not isinstance(part, np.ndarray)]
        return {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}


def _numbers(values: Sequence[Any]) -> NDArray[Any] | None:
    if not _NUMBERS.issuperset(map(type, values)):
        return None
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    finite = np.isfinite(numbers)
    return numbers if finite.all() else np.where(finite, numbers, np.nan)


def _truths(values: Sequence[Any]) -> NDArray[Any] | None:
    return np.array(values, dtype=np.float64) if _TRUTH.issuperset(map(type, values)) else None


def _texts(values: Sequence[Any]) -> NDArray[Any] | None:
    if not _TEXT.issuperset(map(type, values)):
        return None
    texts = np.empty(len(values), dtype=object)
    texts[:] = [value if value and value.strip(BLANK) else None for value in values]
    return texts


def _none(_: Sequence[Any]) -> None:
    return None


_QUICK: dict[InputType, Callable[[Sequence[Any]], NDArray[Any] | None]] = {
    "number": _numbers,
    "boolean": _truths,
    "string": _texts,
    "timestamp": _none,
}
"""Converts a column whose values are plainly right; None leaves it to ``inputs.typed_column``."""


def _picker(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Row]:
    if len(names) != 1:
        return itemgetter(*names) if names else lambda row: ()
    (name,) = names
    return lambda row: (row[name],)
