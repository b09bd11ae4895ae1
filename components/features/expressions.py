"""Features from raw columns: one definition, run over a whole table offline and on a request's rows online.

:func:`feature_of` is the definition. Offline it runs on the snapshot; :func:`derive` runs the very same expressions on
DuckDB in memory, over a table in whatever form it comes; the model server runs them on scalars, by
:func:`components.features.rowwise.compile_rows`.
"""

import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.features import parsing
from components.features.encodings import encoder
from components.features.functions import TIME, Engine, kind_of, settled
from components.features.language import columns_of, compile_expression
from components.features.request import Delivered, Kind, as_array, delivered
from components.features.schema import FeatureColumn, FeatureSchema, InputColumn

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir
    import numpy as np
    import pandas as pd

_RAW = "raw"
_local = threading.local()


def parsed(table: "ir.Table", inputs: tuple[InputColumn, ...]) -> "dict[str, ir.Value]":
    """The raw columns with their types parsed, as expressions see them."""
    return {column.name: parsing.parse(table[column.name], column.type) for column in inputs}


def feature_of(column: FeatureColumn, values: "Mapping[str, ir.Value]", engine: "Engine | None" = None) -> "ir.Value":
    """One feature over parsed columns: a finite double for a numeric one, a text for a categorical one.

    The columns are values of the engine, which is Ibis unless said otherwise.

    Raises:
        BadInput: the expression is wrong, or its result is a time.
    """
    if not column.expression:
        return settled(values[column.name])
    value = compile_expression(column.expression, values, column.name, engine)
    if kind_of(value) == TIME:
        raise BadInput(
            f"Feature {column.name!r}: {column.expression!r} is a time, which no model can use; take its year, month, "
            "day, weekday or hour."
        )
    return settled(value)


def derive(frame: "pd.DataFrame", schema: FeatureSchema) -> "pd.DataFrame":
    """Compute a request's features exactly as they were computed for training.

    Columns that arrive as what they are (numbers as numbers, texts as texts) need no parsing; the rest, and all
    expressions, run on DuckDB. Without expressions a request does not touch DuckDB at all.

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
    import pandas as pd

    absent = [column.name for column in schema.inputs if column.name not in frame.columns]
    if absent:
        names = ", ".join(column.name for column in schema.inputs)
        raise BadInput(f"The request lacks the column {absent[0]!r}; it must carry {names}.")
    arrived = {column.name: delivered(frame[column.name], column) for column in schema.inputs}
    ready = {
        feature.name: values
        for feature in schema.features
        if not feature.expression and (values := arrived[feature.name].as_feature()) is not None
    }
    rest = tuple(feature for feature in schema.features if feature.name not in ready)
    if rest:
        ready.update(_computed(schema.inputs, rest, arrived))
    return pd.DataFrame({feature.name: ready[feature.name] for feature in schema.features}, index=frame.index)


def _computed(
    inputs: tuple[InputColumn, ...], features: tuple[FeatureColumn, ...], arrived: Mapping[str, Delivered]
) -> "dict[str, np.ndarray]":
    """Run features on DuckDB, over the columns that they read."""
    import pyarrow as pa

    read = _read_by(features)
    needed = tuple(column for column in inputs if column.name in read) or inputs[:1]  # a table has a column
    forms = tuple((arrived[column.name].kind, arrived[column.name].is_parsed) for column in needed)
    query = _compiled(needed, features, forms)
    connection = _connection()
    connection.register(_RAW, pa.table({column.name: arrived[column.name].arrow() for column in needed}))
    try:
        rows = connection.execute(query).fetchall()
    finally:
        connection.unregister(_RAW)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(features)
    return {
        feature.name: as_array(
            encoder(feature.encoding)(list(values)) if feature.encoding else values, feature.kind == "numeric"
        )
        for feature, values in zip(features, columns, strict=True)
    }


@lru_cache(maxsize=64)
def _read_by(features: tuple[FeatureColumn, ...]) -> frozenset[str]:
    read: set[str] = set()
    for feature in features:
        read.update(columns_of(feature.expression, feature.name) if feature.expression else [feature.name])
    return frozenset(read)


@lru_cache(maxsize=64)
def _compiled(
    inputs: tuple[InputColumn, ...], features: tuple[FeatureColumn, ...], forms: tuple[tuple[Kind, bool], ...]
) -> str:
    """The SQL for requests whose columns arrive in these forms; compiled once per form."""
    import ibis

    from components.ingest.engine import sql

    table = ibis.table({column.name: kind for column, (kind, _) in zip(inputs, forms, strict=True)}, name=_RAW)
    values = {
        column.name: table[column.name] if is_parsed else parsing.parse(table[column.name], column.type)
        for column, (_, is_parsed) in zip(inputs, forms, strict=True)
    }
    return sql(table.select(**{feature.name: feature_of(feature, values) for feature in features}))


def _connection() -> "duckdb.DuckDBPyConnection":
    """One connection per thread: a connection runs one query at a time."""
    import duckdb

    connection: duckdb.DuckDBPyConnection | None = getattr(_local, "connection", None)
    if connection is None:
        connection = duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False})
        connection.execute("SET TimeZone = 'UTC'")
        _local.connection = connection
    return connection
