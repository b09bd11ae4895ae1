"""What the columns of a snapshot hold, counted over all rows by DuckDB in a few scans."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from components.features import parsing
from components.ingest.engine import ROW, fetch
from components.validate.contract import Type

if TYPE_CHECKING:
    import duckdb
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
        values: the distinct texts in order, where there are few.
        spaced: how many texts hold a space inside, which identifiers do not.
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
    values: tuple[str, ...] | None = None
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


def readable_shares(connection: "duckdb.DuckDBPyConnection", table: "ir.Table") -> dict[str, dict[Type, float]]:
    """For every text column, which share of its values reads as each other type."""
    texts = [name for name in table.columns if name != ROW and table[name].type().is_string()]
    if not texts:
        return {}
    counts: dict[str, ir.Value] = {}
    for index, name in enumerate(texts):
        value = table[name]
        counts[f"{index}_present"] = (~is_missing(value)).sum()
        # Codes such as 00123 are no numbers.
        padded = value.strip().re_search(r"^[+-]?0[0-9]")
        counts[f"{index}_number"] = (value.strip().try_cast("float64").notnull() & ~padded).sum()
        counts[f"{index}_timestamp"] = parsing.timestamp(value).notnull().sum()
        counts[f"{index}_boolean"] = parsing.boolean(value).notnull().sum()
    (found,) = fetch(connection, table.aggregate(**counts))
    shares: dict[str, dict[Type, float]] = {}
    kinds: tuple[Type, ...] = ("number", "timestamp", "boolean")
    for index, name in enumerate(texts):
        present = found[f"{index}_present"] or 0
        shares[name] = {kind: (found[f"{index}_{kind}"] or 0) / present if present else 0.0 for kind in kinds}
    return shares


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


def profile(
    connection: "duckdb.DuckDBPyConnection", table: "ir.Table", stored: Mapping[str, str], types: Mapping[str, Type]
) -> Profile:
    """Count what the columns hold.

    Args:
        connection: where the table is a view.
        table: the snapshot, with its row column.
        stored: DuckDB's types by column.
        types: how each column is to be read.
    """
    counts: dict[str, ir.Value] = {"rows": table.count()}
    for index, (name, kind) in enumerate(types.items()):
        counts.update({f"{index}_{key}": value for key, value in _counts(table[name], kind).items()})
    (found,) = fetch(connection, table.aggregate(**counts))
    columns = {}
    for index, (name, kind) in enumerate(types.items()):
        values = {
            key: found.get(f"{index}_{key}") for key in ("missing", "readable", "distinct", "min", "max", "spaced")
        }
        columns[name] = _column(name, stored[name], kind, found["rows"], values)
    return Profile(rows=found["rows"], columns=_exactly(connection, table, columns, found["rows"]))


def _counts(raw: "ir.Value", kind: Type) -> "dict[str, ir.Value]":
    value = typed(raw, kind)
    counts: dict[str, ir.Value] = {"missing": is_missing(raw).sum()}
    if kind == "nested":
        return counts
    counts["readable"] = value.count()
    counts["distinct"] = value.approx_nunique()
    if kind in ("integer", "number"):
        counts["min"], counts["max"] = value.min(), value.max()
    if kind == "string":
        counts["spaced"] = value.strip().contains(" ").sum()
    return counts


def _column(name: str, stored: str, kind: Type, rows: int, found: Mapping[str, Any]) -> ColumnProfile:
    missing = found["missing"] or 0
    present = rows - missing
    readable = present if found["readable"] is None else found["readable"]
    return ColumnProfile(
        name=name,
        stored=stored,
        type=kind,
        missing=missing,
        unreadable=present - readable,
        distinct=min(found["distinct"] or 0, present),
        min=found["min"],
        max=found["max"],
        spaced=found["spaced"] or 0,
    )


def _exactly(
    connection: "duckdb.DuckDBPyConnection", table: "ir.Table", columns: dict[str, ColumnProfile], rows: int
) -> dict[str, ColumnProfile]:
    """Replace estimates where exactness matters and is cheap: few values, or apparently only different ones."""
    wanted: dict[str, Callable[[ir.Value], ir.Value]] = {}
    for name, column in columns.items():
        if column.type == "nested":
            continue
        if column.type == "string" and column.distinct <= LISTED:
            wanted[name] = lambda value: value.collect(distinct=True)
        elif column.distinct <= 4 * LISTED or column.distinct > 0.8 * (rows - column.missing):
            wanted[name] = lambda value: value.nunique()
    if not wanted:
        return columns
    names = list(wanted)
    expression = table.aggregate(
        **{str(index): wanted[name](typed(table[name], columns[name].type)) for index, name in enumerate(names)}
    )
    (found,) = fetch(connection, expression)
    exact = dict(columns)
    for index, name in enumerate(names):
        value, column = found[str(index)], columns[name]
        present = rows - column.missing - column.unreadable
        changes: dict[str, Any] = {}
        if isinstance(value, int):
            changes["distinct"] = value
        else:
            changes["values"] = tuple(sorted(value or ()))
            changes["distinct"] = len(changes["values"])
        changes["unique"] = present > 1 and changes["distinct"] == present
        exact[name] = column.model_copy(update=changes)
    return exact
