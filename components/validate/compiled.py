"""Ibis expressions as pieces of SQL, so that one scan can hold them beside aggregates written in SQL.

Ibis takes a quarter of a millisecond for a column, each time it compiles; a table may have ten thousand.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from components.ingest.engine import identifier, sql

if TYPE_CHECKING:
    import ibis.expr.types as ir

_Key = TypeVar("_Key")
_How = TypeVar("_How", bound=Hashable)

ALIAS = "t0"
"""What Ibis calls the only table of a query: the pieces stand in a SELECT from it under this name."""

_ANY = "__sluiceway_any"


def pieces(table: "ir.Table", values: "Mapping[_Key, ir.Value]") -> "dict[_Key, str]":
    """The SQL of expressions over a table, by the same keys."""
    if not values:
        return {}
    import sqlglot

    numbered = {f"piece{index}": value for index, value in enumerate(values.values())}
    parsed = sqlglot.parse_one(sql(table.select(**numbered)), dialect="duckdb")
    found = {one.alias: one.this.sql(dialect="duckdb") for one in parsed.expressions}
    return {name: found[piece] for name, piece in zip(values, numbered, strict=True)}


def of_columns(
    table: "ir.Table", wanted: Mapping[str, _How], make: "Callable[[ir.Value, _How], ir.Value]"
) -> dict[str, str]:
    """The SQL of one expression over each of many columns, compiled once for all columns of a type.

    Args:
        table: has the columns.
        wanted: column names, and what else the expression depends on.
        make: the expression over a column.

    Returns:
        SQL by column name.
    """
    import ibis

    kinds = table.schema()
    compiled: dict[Any, str] = {}
    found = {}
    for name, how in wanted.items():
        kind = (kinds[name], how)
        if kind not in compiled:
            column = ibis.table({_ANY: kinds[name]}, name="any")[_ANY]
            compiled[kind] = pieces(column.as_table(), {"": make(column, how)})[""]
        found[name] = compiled[kind].replace(identifier(_ANY), identifier(name))
    return found
