"""What the columns of a snapshot hold; :mod:`components.validate.counting` finds it out."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from components.features import parsing
from components.validate.contract import Type

if TYPE_CHECKING:
    import ibis.expr.types as ir

FILE = "profile.json"

MOSTLY = 0.99
"""The share of a text column's values that must read as numbers (times, booleans) to make it such a column."""

LISTED = 60
"""Up to about this many distinct texts of a column are listed."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnProfile(_Frozen):
    """What a column holds, read as ``type``.

    Attributes:
        name: the column.
        stored: DuckDB's type in the snapshot.
        type: what the values mean.
        missing: how many are null, blank, NaN or infinite.
        unreadable: how many are not missing, yet cannot be read as ``type``.
        distinct: how many different values there are; an estimate unless few or unique.
        unique: whether no value occurs twice (only looked at where it seemed so).
        min: least number.
        max: greatest number.
        earliest: least time, in UTC without a zone.
        latest: greatest time.
        values: the distinct texts in order, where there are few.
        longest: characters of the longest text, where that was looked at.
        spaced: about how many texts hold a space inside, which identifiers do not.
    """

    name: str
    stored: str
    type: Type
    missing: int
    unreadable: int = 0
    distinct: int = 0
    unique: bool = False
    min: float | None = None
    max: float | None = None
    earliest: datetime | None = None
    latest: datetime | None = None
    values: tuple[str, ...] | None = None
    longest: int | None = None
    spaced: int = 0


class Profile(_Frozen):
    """All columns of a snapshot."""

    rows: int
    columns: dict[str, ColumnProfile]


def typed(value: "ir.Value", kind: Type) -> "ir.Value":
    """Parse a raw column as a contract's type."""
    if kind == "nested":
        return value
    return parsing.parse(value, "number" if kind == "integer" else kind)


def is_missing(value: "ir.Value") -> "ir.BooleanValue":
    """Whether a raw value is null, blank, NaN or infinite."""
    if value.type().is_string():
        return value.isnull() | (value.strip() == "")
    if value.type().is_floating():
        return parsing.finite(value).isnull()
    return value.isnull()


def meaning(value: "ir.Value", shares: Mapping[Type, float]) -> Type:
    """The type that a raw column's values mean."""
    kind = value.type()
    if kind.is_string():
        return next((one for one, share in shares.items() if share >= MOSTLY), "string")
    if kind.is_boolean():
        return "boolean"
    if kind.is_integer() or (kind.is_decimal() and kind.scale == 0):
        return "integer"
    if kind.is_numeric():
        return "number"
    if kind.is_timestamp() or kind.is_date():
        return "timestamp"
    return "nested" if kind.is_nested() or kind.is_json() or kind.is_binary() else "string"
