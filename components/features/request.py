"""A request's columns, in whatever form they were sent, as the values that the snapshot would hold."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from components.errors import BadInput
from components.features.schema import BLANK, InputColumn, InputType

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

Kind = Literal["float64", "string", "boolean", "timestamp(6)"]
"""The form in which a column arrived, as an Ibis type."""

_PARSED: dict[InputType, Kind] = {
    "number": "float64",
    "string": "string",
    "boolean": "boolean",
    "timestamp": "timestamp(6)",
}


@dataclass(frozen=True)
class Delivered:
    """A column as it arrived: finite float64 or NaN, bool, datetime64[us] or NaT, or texts and None."""

    column: InputColumn
    kind: Kind
    values: "np.ndarray"

    @property
    def is_parsed(self) -> bool:
        """Whether it arrived as what it is, so that nothing is left to parse."""
        return self.kind == _PARSED[self.column.type]

    def as_feature(self) -> "np.ndarray | None":
        """The feature of a column that is taken as it is; None if it must be parsed first."""
        if not self.is_parsed:
            return None
        return self.values.astype("float64") if self.kind == "boolean" else self.values

    def arrow(self) -> "pa.Array":
        """The column for DuckDB."""
        import pyarrow as pa

        kinds = {
            "float64": pa.float64(),
            "string": pa.string(),
            "boolean": pa.bool_(),
            "timestamp(6)": pa.timestamp("us"),
        }
        return pa.array(self.values, kinds[self.kind], from_pandas=True)


def delivered(values: "pd.Series[Any]", column: InputColumn) -> Delivered:
    """Take a request's column as it is where its type is plain, else as text.

    Raises:
        BadInput: it holds text that is not Unicode.
    """
    import numpy as np

    dtype: Any = values.dtype
    if column.type != "string" and isinstance(dtype, np.dtype):
        if dtype.kind in "iuf":
            numbers = values.to_numpy(dtype=np.float64, copy=True)
            numbers[~np.isfinite(numbers)] = np.nan
            return Delivered(column, "float64", numbers)
        if dtype.kind == "b":
            return Delivered(column, "boolean", values.to_numpy())
    if dtype.kind == "M":
        utc = values.dt.tz_convert("UTC").dt.tz_localize(None) if getattr(dtype, "tz", None) else values
        return Delivered(column, "timestamp(6)", utc.to_numpy(dtype="datetime64[us]"))
    texts = [_text(value, column.type) for value in values]
    try:
        "".join(text for text in texts if text).encode()
    except UnicodeEncodeError as error:  # JSON can carry half of a surrogate pair
        raise BadInput(f"Column {column.name!r} holds text that is not valid Unicode; send UTF-8.") from error
    return Delivered(
        column, "string", as_array([text if text and text.strip(BLANK) else None for text in texts], False)
    )


def as_array(values: Sequence[Any], numeric: bool) -> "np.ndarray":
    """A feature's values: float64 with NaN, or object with None."""
    import numpy as np

    if numeric:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


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
