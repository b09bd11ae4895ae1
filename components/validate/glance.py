"""A look at rows from all over a snapshot: which meanings and counts are worth a scan of everything.

What a glance says is never exact and never decides over a row; it is the same again for the same snapshot.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.features import parsing
from components.features.schema import BLANK
from components.ingest.engine import ROW, identifier, literal
from components.ingest.personal import across
from components.validate.compiled import ALIAS, pieces
from components.validate.contract import Type

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir

ROWS = 16_384
_CELLS = 2_000_000
_FEWEST = 200
_TEXTS = 1_000

_KINDS: tuple[Type, ...] = ("number", "timestamp", "boolean")


@dataclass(frozen=True)
class Seen:
    """A column in the rows looked at.

    Attributes:
        present: values that are not null (or blank).
        distinct: different ones among them.
        spaced: texts with a space inside.
        shares: of texts, which share reads as each other type.
        trend: how numbers and times correlate with the order of the rows, from -1 to 1.
    """

    present: int
    distinct: int
    spaced: int = 0
    shares: Mapping[Type, float] = field(default_factory=dict)
    trend: float = 0.0

    @property
    def all_differ(self) -> bool:
        """Whether no value occurred twice."""
        return self.distinct == self.present


def glance(connection: "duckdb.DuckDBPyConnection", table: "ir.Table", parts: Sequence[Path]) -> dict[str, Seen]:
    """Look at rows from all over the parts.

    Args:
        connection: where the query runs.
        table: the snapshot, for the types of its columns.
        parts: its Parquet files.
    """
    names = [name for name in table.columns if name != ROW]
    rows = min(ROWS, max(_FEWEST, _CELLS // len(names)))
    texts = {name for name in names if table[name].type().is_string()}
    readings = pieces(table, {(name, kind): value for name in texts for kind, value in _readings(table[name])})
    counts = []
    for name in names:
        column = f"{ALIAS}.{identifier(name)}"
        if table[name].type().is_string():
            text = f"nullif(trim({column}, {literal(BLANK)}), '')"
            counts += [f"count({text})", f"count(DISTINCT {text})", f"count_if(contains({text}, ' '))"]
            counts += [f"count_if({readings[name, kind]})" for kind in _KINDS]
        elif table[name].type().is_nested():
            counts += [f"count({column})", "0", "NULL"]
        else:
            counts += [f"count({column})", f"count(DISTINCT {column})", _trend(column, table[name].type())]
    numbered = f"SELECT *, row_number() OVER () AS {identifier(ROW)} FROM ({across(connection, parts, rows)})"
    found = iter(connection.execute(f"SELECT {', '.join(counts)} FROM ({numbered}) AS {ALIAS}").fetchall()[0])
    return {name: _seen(found, name in texts) for name in names}


def sample_texts(
    connection: "duckdb.DuckDBPyConnection", parts: Sequence[Path], names: Sequence[str]
) -> dict[str, list[str]]:
    """Different texts of columns, some hundreds of each, from all over the parts."""
    if not names:
        return {}
    lists = ", ".join(f"list(DISTINCT nullif(trim({identifier(name)}, {literal(BLANK)}), ''))" for name in names)
    query = f"SELECT {lists} FROM ({across(connection, parts, min(_TEXTS, max(_FEWEST, _CELLS // len(names))))})"
    found = connection.execute(query).fetchall()[0]
    return {
        name: [text for text in values or () if text is not None] for name, values in zip(names, found, strict=True)
    }


def _trend(column: str, kind: "dt.DataType") -> str:
    row = f"{ALIAS}.{identifier(ROW)}"
    if kind.is_numeric():
        number = f"{column}::DOUBLE"
        return f"corr(CASE WHEN abs({number}) < 1e100 THEN {number} END, {row})"
    return f"corr(epoch({column}), {row})" if kind.is_timestamp() or kind.is_date() else "NULL"


def _seen(found: Iterator[Any], is_text: bool) -> Seen:
    present, distinct = next(found), next(found)
    if not is_text:
        trend = next(found)
        return Seen(present, distinct, trend=trend if trend is not None and math.isfinite(trend) else 0.0)
    spaced = next(found)
    shares = {kind: next(found) / max(present, 1) for kind in _KINDS}
    return Seen(present, distinct, spaced, shares)


def _readings(value: "ir.Value") -> "list[tuple[Type, ir.Value]]":
    # Codes such as 00123 are no numbers.
    padded = value.strip().re_search(r"^[+-]?0[0-9]")
    return [
        ("number", value.strip().try_cast("float64").notnull() & ~padded),
        ("timestamp", parsing.timestamp(value).notnull()),
        ("boolean", parsing.boolean(value).notnull()),
    ]
