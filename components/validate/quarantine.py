"""The rows that break a contract, each with its reason: `quarantine.parquet`, and the same as CSV for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from components.ingest.engine import ROW, identifier, literal, write_parquet
from components.ingest.snapshot import Part
from components.validate.compiled import ALIAS
from components.validate.reader import SOURCE, Reader
from components.validate.rules import Rule

if TYPE_CHECKING:
    import duckdb

FILE = "quarantine.parquet"
READABLE = "quarantine.csv"
_EMPTY = """SELECT 0::BIGINT AS "row", '' AS "column", '' AS "value", '' AS "reason" WHERE false"""


@dataclass(frozen=True)
class Quarantine:
    """How many rows were set aside, by which rules (worst first), and how many for each column's sake."""

    rows: int
    broken: tuple[tuple[str, int], ...]
    columns: dict[str, int]


def write(
    connection: "duckdb.DuckDBPyConnection", reader: Reader, rules: Sequence[Rule], parts: Sequence[Part], folder: Path
) -> Quarantine:
    """Write the rows that break a rule to a folder, in one scan.

    The files have one line per broken rule: ``row`` (data row of the snapshot, from 1), ``column``, ``value`` as
    text, ``reason``, ``source`` (the file it came from, or the files of its part) and ``source_row`` (data row in it,
    or in these one after the other, from 1).
    """
    query = _query(reader, rules) if rules else _EMPTY
    write_parquet(connection, _located(query, parts), folder / FILE)
    source = f"read_parquet({literal(folder / FILE)})"
    connection.execute(f"COPY (FROM {source}) TO {literal(folder / READABLE)} (FORMAT csv, HEADER)").fetchall()
    worst = connection.execute(
        f'SELECT "column" || \' \' || "reason", count(*) FROM {source} GROUP BY ALL ORDER BY 2 DESC, 1'
    ).fetchall()
    columns = connection.execute(f'SELECT "column", count(DISTINCT "row") FROM {source} GROUP BY 1').fetchall()
    ((rows,),) = connection.execute(f'SELECT count(DISTINCT "row") FROM {source}').fetchall()
    return Quarantine(rows=int(rows), broken=tuple(worst), columns=dict(columns))


def _located(query: str, parts: Sequence[Part]) -> str:
    """The rows with where they came from."""
    before = accumulate((part.rows for part in parts), initial=0)
    listed = ", ".join(f"({rows}, {literal(part.source)})" for rows, part in zip(before, parts, strict=False))
    return (
        f'SELECT found.*, source, "row" - before AS source_row FROM ({query}) AS found '
        f'ASOF LEFT JOIN (VALUES {listed}) AS parts (before, source) ON "row" > before '
        f'ORDER BY "row", "column", "reason"'
    )


def _query(reader: Reader, rules: Sequence[Rule]) -> str:
    hits = ", ".join(_hit(reader, rule) for rule in rules)
    any_broken = " OR ".join(f"({rule.broken})" for rule in rules)
    return (
        f'SELECT "row", hit."column" AS "column", hit."value" AS "value", hit."reason" AS "reason" FROM ('
        f'SELECT {ALIAS}.{identifier(ROW)}::BIGINT AS "row", unnest([{hits}]) AS hit FROM {SOURCE} WHERE {any_broken}) '
        f"WHERE hit IS NOT NULL"
    )


def _hit(reader: Reader, rule: Rule) -> str:
    columns, reason = literal(", ".join(rule.columns)), literal(rule.reason)
    hit = f'{{"column": {columns}, "value": {_shown(reader, rule)}, "reason": {reason}}}'
    return f"CASE WHEN {rule.broken} THEN {hit} END"


def _shown(reader: Reader, rule: Rule) -> str:
    values = [f"{reader.raw(name)}::VARCHAR" for name in rule.columns]
    return values[0] if len(values) == 1 else f"concat_ws(', ', {', '.join(values)})"
