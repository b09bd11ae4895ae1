"""The rows that break a contract, each with its reason: `quarantine.parquet`, and the same as CSV for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.ingest.engine import ROW, fetch, literal, sql, write_parquet
from components.validate.rules import Rule

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir

FILE = "quarantine.parquet"
READABLE = "quarantine.csv"
_EMPTY = """SELECT 0::BIGINT AS "row", '' AS "column", '' AS "value", '' AS "reason" WHERE false"""


@dataclass(frozen=True)
class Quarantine:
    """How many rows were set aside, and by which rules (worst first)."""

    rows: int
    broken: tuple[tuple[str, int], ...]


def write(
    connection: "duckdb.DuckDBPyConnection", table: "ir.Table", rules: Sequence[Rule], folder: Path
) -> Quarantine:
    """Find the rows that break a rule and write them to a folder.

    The files have one line per broken rule: ``row`` (data row of the snapshot, from 1), ``column``, ``value`` as
    text, ``reason``.
    """
    flags = {f"rule{index}": rule.broken for index, rule in enumerate(rules)}
    flagged = table.mutate(**flags)  # a step of its own, because a window may not stand in an aggregate
    counts = _counts(connection, flagged, list(flags))
    hit = [index for index, count in enumerate(counts) if count]
    query = _EMPTY
    if hit:
        parts = [_rows(flagged, rules[index], f"rule{index}") for index in hit]
        query = f'SELECT * FROM ({" UNION ALL ".join(parts)}) ORDER BY "row", "column", "reason"'
    write_parquet(connection, query, folder / FILE)
    source = f"read_parquet({literal(folder / FILE)})"
    connection.execute(f"COPY (FROM {source}) TO {literal(folder / READABLE)} (FORMAT csv, HEADER)").fetchall()
    ((rows,),) = connection.execute(f'SELECT count(DISTINCT "row") FROM {source}').fetchall()
    worst = sorted(((f"{rules[index].column} {rules[index].reason}", counts[index]) for index in hit), key=_by_count)
    return Quarantine(rows=int(rows), broken=tuple(worst))


def _by_count(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]


def _counts(connection: "duckdb.DuckDBPyConnection", flagged: "ir.Table", names: list[str]) -> list[int]:
    if not names:
        return []
    (found,) = fetch(connection, flagged.aggregate(**{name: flagged[name].sum() for name in names}))
    return [int(found[name] or 0) for name in names]


def _rows(flagged: "ir.Table", rule: Rule, flag: str) -> str:
    import ibis

    chosen = flagged.filter(flagged[flag]).select(
        row=flagged[ROW].cast("int64"),
        column=ibis.literal(rule.column),
        value=flagged[rule.column].cast("string"),
        reason=ibis.literal(rule.reason),
    )
    return f"({sql(chosen)})"
