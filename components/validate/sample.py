"""A stratified sample of a snapshot: what reports are made from, and the reference for later drift."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from components.ingest.engine import ROW, identifier, literal, sql, write_parquet
from components.validate.contract import Type
from components.validate.profile import typed

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir

LARGEST = 20_000
_CLASSES = 200


def name(data_version: str) -> str:
    """Where the store keeps a snapshot's sample."""
    return f"samples/{data_version}.parquet"


def write(
    connection: "duckdb.DuckDBPyConnection",
    table: "ir.Table",
    types: Mapping[str, Type],
    target: str,
    quarantined: Path,
    path: Path,
) -> int:
    """Write at most 20,000 rows, types parsed, in the snapshot's order, and return how many.

    Each class of the target keeps its share. Rows are chosen by the hash of their number, so the same snapshot has
    the same sample on any machine. Quarantined rows are left out.
    """
    parsed = sql(table.select(ROW, **{column: typed(table[column], kind) for column, kind in types.items()}))
    row, kept = identifier(ROW), f"SELECT row FROM read_parquet({literal(quarantined)})"
    connection.execute(f"CREATE OR REPLACE VIEW typed AS SELECT * FROM ({parsed}) WHERE {row} NOT IN ({kept})")
    select = f"SELECT * EXCLUDE ({row}) FROM typed"
    ((total, classes),) = connection.execute(
        f"SELECT count(*), approx_count_distinct({identifier(target)}) FROM typed"
    ).fetchall()
    if total <= LARGEST:
        return write_parquet(connection, f"{select} ORDER BY {row}", path)
    stratum = identifier(target) if classes <= _CLASSES else "1"
    chosen = (
        f"SELECT {row} FROM typed QUALIFY row_number() OVER (PARTITION BY {stratum} ORDER BY md5({row}::VARCHAR)) "
        f"<= greatest(1, floor(count(*) OVER (PARTITION BY {stratum}) * {LARGEST} / {total}))"
    )
    return write_parquet(connection, f"{select} WHERE {row} IN ({chosen}) ORDER BY {row} LIMIT {LARGEST}", path)
