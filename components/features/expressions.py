"""Features from raw columns: one definition, run over a whole table offline and on a request's rows online.

:func:`features_of` is the definition. Offline it runs on the snapshot; :func:`derive` runs the very same expressions
on DuckDB in memory.
"""

import datetime
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from components.errors import BadInput
from components.features import parsing
from components.features.functions import TIME, kind_of, settled
from components.features.language import compile_expression
from components.features.schema import FeatureColumn, FeatureSchema, InputColumn, InputType

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir
    import pandas as pd
    import pyarrow as pa

Delivered = Literal["float64", "string", "boolean", "timestamp(6)"]
"""How a request's column reaches DuckDB."""

_RAW = "raw"
_local = threading.local()


def parsed(table: "ir.Table", inputs: tuple[InputColumn, ...]) -> "dict[str, ir.Value]":
    """The raw columns with their types parsed, as expressions see them."""
    return {column.name: parsing.parse(table[column.name], column.type) for column in inputs}


def feature_of(column: FeatureColumn, values: "Mapping[str, ir.Value]") -> "ir.Value":
    """One feature over parsed columns: a finite double for a numeric one, a text for a categorical one.

    Raises:
        BadInput: the expression is wrong, or its result is a time.
    """
    if not column.expression:
        return settled(values[column.name])
    value = compile_expression(column.expression, values, column.name)
    if kind_of(value) == TIME:
        raise BadInput(
            f"Feature {column.name!r}: {column.expression!r} is a time, which no model can use; take its year, month, "
            "day, weekday or hour."
        )
    return settled(value)


def features_of(
    table: "ir.Table", inputs: tuple[InputColumn, ...], features: tuple[FeatureColumn, ...]
) -> "dict[str, ir.Value]":
    """All features of a table of raw columns, in order."""
    values = parsed(table, inputs)
    return {column.name: feature_of(column, values) for column in features}


def derive(frame: "pd.DataFrame", schema: FeatureSchema) -> "pd.DataFrame":
    """Compute a request's features exactly as they were computed for training.

    Args:
        frame: raw columns, one row per instance: numbers, texts, truth values, times, or texts of these; ``None``,
            NaN and blank texts are missing. Columns that are no inputs are ignored.
        schema: what the features are.

    Returns:
        ``schema.features`` in order: float64 with NaN where numeric, object with None where categorical. The index is
        the frame's.

    Raises:
        BadInput: an input column is missing, or holds what cannot be a value.
    """
    import pyarrow as pa

    absent = [column.name for column in schema.inputs if column.name not in frame.columns]
    if absent:
        raise BadInput(f"The request lacks the column {absent[0]!r}; it must carry {', '.join(_names(schema))}.")
    arrays, kinds = {}, []
    for column in schema.inputs:
        arrays[column.name], kind = _delivered(frame[column.name], column)
        kinds.append(kind)
    query = _compiled(schema.inputs, schema.features, tuple(kinds))
    if not arrays:
        arrays[_RAW] = pa.nulls(len(frame))
    connection = _connection()
    connection.register(_RAW, pa.table(arrays))
    try:
        result = connection.execute(query).arrow().read_all()
    finally:
        connection.unregister(_RAW)
    return _frame(result, schema, frame.index)


def _names(schema: FeatureSchema) -> list[str]:
    return [column.name for column in schema.inputs]


@lru_cache(maxsize=64)
def _compiled(
    inputs: tuple[InputColumn, ...], features: tuple[FeatureColumn, ...], kinds: tuple[Delivered, ...]
) -> str:
    """The SQL for requests whose columns arrive in these forms; compiled once per form."""
    import ibis

    from components.ingest.engine import sql

    columns = {column.name: kind for column, kind in zip(inputs, kinds, strict=True)}
    table = ibis.table(columns or {_RAW: "null"}, name=_RAW)
    return sql(table.select(**features_of(table, inputs, features)))


def _connection() -> "duckdb.DuckDBPyConnection":
    """One connection per thread: a connection runs one query at a time."""
    import duckdb

    connection = getattr(_local, "connection", None)
    if connection is None:
        connection = duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False})
        connection.execute("SET TimeZone = 'UTC'")
        _local.connection = connection
    return connection


def _delivered(values: "pd.Series[Any]", column: InputColumn) -> "tuple[pa.Array, Delivered]":
    """A request's column as Arrow: as it is where its type is plain, else as text."""
    import pyarrow as pa

    plain: dict[str, tuple[Delivered, pa.DataType]] = {
        "b": ("boolean", pa.bool_()),
        "i": ("float64", pa.float64()),
        "u": ("float64", pa.float64()),
        "f": ("float64", pa.float64()),
    }
    kind = values.dtype.kind
    if column.type != "string" and kind in plain:
        name, arrow = plain[kind]
        if kind in "iu":
            values = values.astype("float64")
        return pa.array(values, arrow, from_pandas=True), name
    if kind == "M":
        utc = values.dt.tz_convert("UTC").dt.tz_localize(None) if getattr(values.dtype, "tz", None) else values
        return pa.array(utc.astype("datetime64[us]"), pa.timestamp("us"), from_pandas=True), "timestamp(6)"
    try:
        return pa.array([_text(value, column.type) for value in values], pa.string()), "string"
    except UnicodeEncodeError as error:
        raise BadInput(f"Column {column.name!r} holds text that is not valid Unicode; send UTF-8.") from error


def _text(value: Any, kind: InputType) -> str | None:
    """A value as the text that the snapshot would hold; None when missing."""
    if isinstance(value, str):
        return value
    if value is None or value != value or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, bool) or type(value).__name__ == "bool":
        if kind == "number":
            return "1" if value else "0"
        return "true" if value else "false"
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    if isinstance(value, float) and kind == "string":
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(float(value))
    return str(value)


def _frame(result: "pa.Table", schema: FeatureSchema, index: Any) -> "pd.DataFrame":
    import numpy as np
    import pandas as pd

    columns: dict[str, Any] = {}
    for feature in schema.features:
        values = result.column(feature.name)
        if feature.kind == "numeric":
            columns[feature.name] = values.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
        else:
            columns[feature.name] = np.array(values.to_pylist(), dtype=object)
    return pd.DataFrame(columns, index=index)
