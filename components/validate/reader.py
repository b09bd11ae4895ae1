"""A snapshot's columns read as a contract's types: as they are stored where that is what they mean, else parsed."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from components.ingest import engine
from components.ingest.engine import identifier
from components.ingest.snapshot import VIEW
from components.validate.compiled import ALIAS, of_columns
from components.validate.contract import Type
from components.validate.facts import Facts
from components.validate.profile import is_missing, typed

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir

_READ = "checked"
SOURCE = f"{_READ} AS {ALIAS}"
"""What a query reads in which pieces of SQL stand: the snapshot, and beside it the columns that must be parsed."""

_PARSED = "__sluiceway_parsed "


class Reader:
    """Makes the view, and says which of its columns holds what.

    Attributes:
        types: how each column is read.
        known: the snapshot's facts.
        parsed: the columns that are not as they are stored.
    """

    def __init__(
        self, connection: "duckdb.DuckDBPyConnection", raw: "ir.Table", known: Facts, types: Mapping[str, Type]
    ) -> None:
        """Compile what must be parsed."""
        self._connection = connection
        self.known = known
        self.types = types
        stored = raw.schema()
        parsed = [name for name, kind in types.items() if not self._is_plain(name, stored[name], kind)]
        self.parsed = frozenset(parsed)
        values = of_columns(raw, {name: types[name] for name in parsed}, typed)
        self._missing = of_columns(raw, dict.fromkeys(parsed), lambda value, _: is_missing(value))
        selected = ["*", *(f"{value} AS {identifier(self.column(name))}" for name, value in values.items())]
        connection.execute(f"CREATE OR REPLACE VIEW {_READ} AS SELECT {', '.join(selected)} FROM {VIEW} AS {ALIAS}")

    @property
    def table(self) -> "ir.Table":
        """The view for Ibis; of ten thousand columns it takes a second, so only where expressions are needed."""
        return engine.table(self._connection, _READ)

    def column(self, name: str) -> str:
        """The view's column that holds the values: missing where blank, not finite or unreadable."""
        return _PARSED + name if name in self.parsed else name

    def value(self, name: str) -> str:
        """SQL for that column."""
        return f"{ALIAS}.{identifier(self.column(name))}"

    def raw(self, name: str) -> str:
        """SQL for the column as it is stored."""
        return f"{ALIAS}.{identifier(name)}"

    def missing(self, name: str) -> str:
        """SQL that is true where a value is missing."""
        return self._missing.get(name, f"{self.raw(name)} IS NULL")

    def values(self, names: Iterable[str]) -> "dict[str, ir.Value]":
        """Columns as the expression language sees them."""
        table = self.table
        found = {}
        for name in names:
            if name in self.types:
                value = table[self.column(name)]
                found[name] = value.cast("float64") if self.types[name] in ("integer", "number") else value
        return found

    def extremes(self, name: str) -> dict[str, Any]:
        """What footers say of the least and greatest values; nothing of a column that is parsed."""
        known = None if name in self.parsed else self.known.extremes.get(name)
        if known is None:
            return {}
        if self.types[name] == "timestamp":
            return {"earliest": known.earliest, "latest": known.latest}
        if self.types[name] in ("integer", "number"):
            return {"min": known.low, "max": known.high}
        return {}

    def _is_plain(self, name: str, stored: "dt.DataType", kind: Type) -> bool:
        """Whether the values as stored are what they mean, with none among them that must count as missing."""
        extremes = self.known.extremes.get(name)
        if kind == "nested":
            return True
        if kind == "string":
            return bool(stored.is_string() and extremes is not None and not extremes.blank)
        if kind in ("integer", "number"):
            ends = () if extremes is None else (extremes.low, extremes.high)
            finite = bool(ends) and all(end is not None and math.isfinite(end) for end in ends)
            return bool(stored.is_integer() or stored.is_decimal() or (stored.is_floating() and finite))
        if kind == "boolean":
            return bool(stored.is_boolean())
        return bool(stored.is_timestamp() and stored.timezone is None)
