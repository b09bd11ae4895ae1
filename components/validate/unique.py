"""Whether values repeat: exactly, and without sorting or hashing a table that is in their order anyway."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.ingest.engine import ROW, identifier

if TYPE_CHECKING:
    import duckdb

_FIRST = 2_048


def is_unique(connection: "duckdb.DuckDBPyConnection", source: str, values: Sequence[str]) -> bool:
    """Whether no two rows have the same values; rows in which one is missing are not compared.

    Args:
        connection: where the source is.
        source: a view or query, with its alias.
        values: SQL of the values.
    """
    present = " AND ".join(f"({value}) IS NOT NULL" for value in values)
    if len(values) == 1 and _in_order(connection, source, values[0], present):
        return True
    # Different hashes are of different values; only equal ones must be looked into. They take eight bytes each.
    rows, hashes = _counts(connection, f"hash({', '.join(values)})", source, present)
    if rows == hashes:
        return True
    together = values[0] if len(values) == 1 else f"row({', '.join(values)})"
    rows, different = _counts(connection, together, source, present)
    return rows == different


def _counts(connection: "duckdb.DuckDBPyConnection", value: str, source: str, present: str) -> tuple[int, int]:
    query = f"SELECT count(*), count(DISTINCT {value}) FROM {source} WHERE {present}"
    ((rows, different),) = connection.execute(query).fetchall()
    return rows, different


def _in_order(connection: "duckdb.DuckDBPyConnection", source: str, value: str, present: str) -> bool:
    """Whether each value is greater than the one before, in whatever order the rows come: then none repeats."""
    for limit in (f" LIMIT {_FIRST}", ""):
        rows = f"SELECT ({value}) AS v FROM {source} WHERE {present}{limit}"
        ((grows,),) = connection.execute(
            f"SELECT coalesce(bool_and(v > before), true) FROM (SELECT v, lag(v) OVER () AS before FROM ({rows}))"
        ).fetchall()
        if not grows:
            return False
    return True


def repeated(source: str, values: Sequence[str]) -> str:
    """A query for the row numbers of all but the first of the rows that have the same values."""
    row, together = identifier(ROW), ", ".join(values)
    present = " AND ".join(f"({value}) IS NOT NULL" for value in values)
    return (
        f"SELECT {row} FROM {source} WHERE {present} "
        f"QUALIFY row_number() OVER (PARTITION BY {together} ORDER BY {row}) > 1"
    )
