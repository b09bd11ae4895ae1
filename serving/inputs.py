"""Raw input columns, as a table or a request carries them, to typed arrays, and on to what the model sees.

A column is a one-dimensional array, one value per row. After :func:`coerce`:

========== =====================================================================
number     float64; missing is NaN
boolean    float64, 0 or 1; missing is NaN
string     object array of ``str``; missing is ``None``
timestamp  datetime64[us] in UTC; missing is NaT
========== =====================================================================
"""

import datetime
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from components.errors import BadInput
from components.features.schema import BLANK, FeatureSchema, InputType

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Column = NDArray[Any]
Columns = dict[str, Column]

_TRUE = frozenset({"true", "t", "yes", "y", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "0"})


def columns_of(table: "pa.Table | pd.DataFrame", schema: FeatureSchema) -> Columns:
    """Take the schema's input columns out of a table, untyped; missing values become None, NaN or NaT.

    Raises:
        BadInput: a column is missing.
    """
    names = [column.name for column in schema.inputs]
    if type(table).__module__.startswith("pyarrow"):
        arrow = cast("pa.Table", table)
        require(names, arrow.column_names)
        return {name: _from_arrow(arrow.column(name)) for name in names}
    frame = cast("pd.DataFrame", table)
    require(names, list(frame.columns))
    return {name: from_pandas(frame[name]) for name in names}


def require(names: Iterable[str], present: Iterable[str]) -> None:
    """Refuse rows that lack a column.

    Raises:
        BadInput: names the columns that are missing.
    """
    there = set(present)
    missing = [name for name in names if name not in there]
    if missing:
        some = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise BadInput(f"Input column {some} is missing; send every input column, null where the value is unknown.")


def coerce(columns: Mapping[str, Sequence[Any] | Column], schema: FeatureSchema) -> Columns:
    """Turn raw values into the types that the schema names; columns outside the schema are left out.

    Blank text is a missing value, and so are NaN and the infinities, as in training. Text that reads as a number is
    one. A number in a text column becomes its text, without a decimal point where it is whole.

    Raises:
        BadInput: a column is missing, is longer than another, or holds a value that does not fit; rows count from 0.
    """
    require((column.name for column in schema.inputs), columns)
    typed: Columns = {}
    rows: int | None = None
    for column in schema.inputs:
        values = typed_column(column.name, column.type, columns[column.name])
        if rows is not None and len(values) != rows:
            raise BadInput(f"Input column {column.name!r} has {len(values)} rows, others have {rows}.")
        rows = len(values)
        typed[column.name] = values
    return typed


def model_columns(columns: Mapping[str, Column], schema: FeatureSchema) -> Columns:
    """What the model sees, column by column; see :func:`serving.bundle.model_frame`.

    Raises:
        BadInput: a numeric feature holds something that is not a number.
    """
    return {
        feature.name: _numeric(feature.name, columns[feature.name])
        if feature.kind == "numeric"
        else _categorical(columns[feature.name])
        for feature in schema.features
    }


def typed_column(name: str, kind: InputType, values: Sequence[Any] | Column) -> Column:
    """Turn one column's raw values into the type of its kind, as :func:`coerce` does.

    Raises:
        BadInput: a value does not fit; names the column and the row, counted from 0.
    """
    dtype = values.dtype.kind if isinstance(values, np.ndarray) else "O"
    if kind in ("number", "boolean") and dtype in "fiub":
        numbers: Column = np.asarray(values, dtype=np.float64)
        numbers = np.where(np.isfinite(numbers), numbers, np.nan)
        return numbers if kind == "number" else _each(name, kind, _boolean, numbers, np.float64)
    if kind == "timestamp" and dtype == "M":
        return np.asarray(values, dtype="datetime64[us]")
    if kind == "number":
        return _each(name, kind, _number, values, np.float64)
    if kind == "boolean":
        return _each(name, kind, _boolean, values, np.float64)
    if kind == "timestamp":
        return _each(name, kind, _timestamp, values, "datetime64[us]")
    return _each(name, kind, _string, values, object)


def _each(name: str, kind: str, one: Callable[[Any], Any], values: Iterable[Any], dtype: Any) -> Column:
    done: list[Any] = []
    for row, value in enumerate(values):
        try:
            done.append(one(value))
        except (ValueError, TypeError, OverflowError) as error:
            shown = repr(value.item() if isinstance(value, np.generic) else value)
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            raise BadInput(f"Input column {name!r}, row {row}: {shown} is not a {kind}.") from error
    return np.array(done, dtype=dtype)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str):
        text = value.strip(BLANK)
        # float() also reads 1_000, as Python source does, and other alphabets' digits; training does not.
        if "_" in text or not text.isascii():
            raise ValueError(text)
        return _finite(float(text)) if text else math.nan
    if isinstance(value, int | float | Decimal | np.number | np.bool_):
        return _finite(float(value))
    raise TypeError(type(value))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _boolean(value: Any) -> float:
    if isinstance(value, str):
        text = value.strip(BLANK).lower()
        if not text:
            return math.nan
        if text in _TRUE or text in _FALSE:
            return float(text in _TRUE)
        raise ValueError(text)
    number = _number(value)
    if number in (0.0, 1.0) or math.isnan(number):
        return number
    raise ValueError(value)


def _string(value: Any) -> str | None:
    if _missing(value):
        return None
    if isinstance(value, dict | list | tuple):
        raise TypeError(type(value))
    return text(value) if not isinstance(value, str) or value.strip(BLANK) else None


def _timestamp(value: Any) -> Any:
    if value is None or (isinstance(value, np.datetime64) and np.isnat(value)):
        return np.datetime64("NaT", "us")
    if isinstance(value, np.datetime64):
        return value
    if isinstance(value, str):
        if not value.strip(BLANK):
            return np.datetime64("NaT", "us")
        value = datetime.datetime.fromisoformat(value.strip(BLANK))
    elif isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime.combine(value, datetime.time())
    if not isinstance(value, datetime.datetime):
        raise TypeError(type(value))
    if value.tzinfo is not None:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(value, "us")


def _numeric(name: str, values: Column) -> Column:
    if values.dtype.kind == "M":
        stamps = values.astype("datetime64[us]")
        seconds = stamps.astype(np.int64) / 1e6
        return np.where(np.isnat(stamps), np.nan, seconds)
    return typed_column(name, "number", values)


def _categorical(values: Column) -> Column:
    known: dict[Any, str] = {}  # each distinct value's text is made once

    def other(value: Any) -> str:
        if _missing(value):
            return ""
        key = (type(value), value)
        if key not in known:
            known[key] = text(value)
        return known[key]

    done = np.empty(len(values), dtype=object)
    done[:] = [value if isinstance(value, str) else other(value) for value in values.tolist()]
    return done


def text(value: Any) -> str:
    """The text of a value in a text column: whole numbers without a point, booleans as ``true`` and ``false``."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def _from_arrow(column: "pa.ChunkedArray") -> Column:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    values: Column = column.to_numpy()
    return values


def from_pandas(series: "pd.Series[Any]") -> Column:
    """A pandas column as an array: extension types become objects, with None where a value is missing."""
    import pandas as pd

    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(series.dtype, np.dtype) and series.dtype != object:
        return series.to_numpy()
    return series.astype(object).where(series.notna(), None).to_numpy(dtype=object)
