"""Ibis expressions as pieces of SQL, so that one scan can hold them beside aggregates written in SQL.

Ibis takes a quarter of a millisecond for a column, each time it compiles; a table may have ten thousand.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from components.ingest.engine import sql

if TYPE_CHECKING:
    import ibis.expr.types as ir

_Key = TypeVar("_Key")

ALIAS = "t0"
"""What Ibis calls the only table of a query: the pieces stand in a SELECT from it under this name."""


def pieces(table: "ir.Table", values: "Mapping[_Key, ir.Value]") -> "dict[_Key, str]":
    """The SQL of expressions over a table, by the same keys."""
    if not values:
        return {}
    import sqlglot

    numbered = {f"piece{index}": value for index, value in enumerate(values.values())}
    parsed = sqlglot.parse_one(sql(table.select(**numbered)), dialect="duckdb")
    found = {one.alias: one.this.sql(dialect="duckdb") for one in parsed.expressions}
    return {name: found[piece] for name, piece in zip(values, numbered, strict=True)}
