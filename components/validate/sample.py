"""A stratified sample of a snapshot: what reports are made from, and the reference for later drift."""

from pathlib import Path
from typing import TYPE_CHECKING

from components.ingest.engine import ROW, identifier, literal, write_parquet
from components.validate.contract import Contract
from components.validate.profile import Profile
from components.validate.reader import SOURCE, Reader

if TYPE_CHECKING:
    import duckdb

LARGEST = 20_000
_CELLS = 4_000_000
_CLASSES = 200

_WIDEST = 500
"""Columns of a sample, the first ones; reports show fewer."""

_PLACES = 16
"""Places all over the snapshot that rows are taken from: a Parquet file is read in pieces of some 100,000 rows."""

_SPAN = 8_000
"""Rows of a place among which they are chosen, so that they are no neighbours."""

_CANDIDATES = 3
"""How many times the wanted rows are looked at, so that each class finds its share."""


def name(data_version: str) -> str:
    """Where the store keeps a snapshot's sample."""
    return f"samples/{data_version}.parquet"


def write(
    connection: "duckdb.DuckDBPyConnection",
    reader: Reader,
    contract: Contract,
    counted: Profile,
    target: str,
    quarantined: Path,
    path: Path,
) -> int:
    """Write at most 20,000 rows (fewer of very wide tables), types parsed, in the snapshot's order; return how many.

    Each class of the target keeps its share. Rows come from all over the snapshot and are chosen by the hash of their
    number, so the same snapshot has the same sample on any machine. Quarantined rows are left out.
    """
    row = identifier(ROW)
    kept = f"SELECT row FROM read_parquet({literal(quarantined)})"
    (bad,) = connection.execute(f"SELECT count(*) FROM ({kept})").fetchall()[0]
    names = list(dict.fromkeys([*list(contract.columns)[:_WIDEST], target]))
    parsed = ", ".join(_parsed(reader, name) for name in names)
    good = f" WHERE {row} NOT IN ({kept})" if bad else ""
    connection.execute(f"CREATE OR REPLACE VIEW typed AS SELECT {row}, {parsed} FROM {SOURCE}{good}")
    select, largest = f"SELECT * EXCLUDE ({row}) FROM typed", max(1, min(LARGEST, _CELLS // len(names)))
    stratum = identifier(target) if counted.columns[target].distinct <= _CLASSES else "1"
    classes = connection.execute(f"SELECT {stratum}, count(*) FROM typed GROUP BY 1 ORDER BY 2, 1").fetchall()
    total = sum(count for _, count in classes)
    if total <= largest:
        return write_parquet(connection, f"{select} ORDER BY {row}", path)
    connection.execute("CREATE OR REPLACE TEMP TABLE shares (stratum VARCHAR, wanted BIGINT)")
    shares = [[None if one is None else str(one), max(1, count * largest // total)] for one, count in classes]
    connection.executemany("INSERT INTO shares VALUES (?, ?)", shares)
    return write_parquet(
        connection,
        f"SELECT typed.* EXCLUDE ({row}) FROM typed "
        f"JOIN shares ON {stratum}::VARCHAR IS NOT DISTINCT FROM shares.stratum "
        f"WHERE {_places(counted.rows, _CANDIDATES * largest)} "
        f"QUALIFY row_number() OVER (PARTITION BY shares.stratum ORDER BY md5({row}::VARCHAR)) <= wanted "
        f"ORDER BY {row} LIMIT {largest}",
        path,
    )


def _parsed(reader: Reader, name: str) -> str:
    value = reader.value(name)
    if reader.types[name] in ("integer", "number"):
        value = f"{value}::DOUBLE"
    return f"{value} AS {identifier(name)}"


def _places(rows: int, wanted: int) -> str:
    """A condition that about so many rows meet, in places all over the snapshot; all rows if they are no more."""
    row = identifier(ROW)
    if rows <= wanted:
        return "true"
    span = max(_SPAN, wanted // _PLACES)
    if rows <= span * _PLACES:
        thin, places = wanted / rows, "true"
    else:
        starts = [1 + index * rows // _PLACES for index in range(_PLACES)]
        places = " OR ".join(f"{row} BETWEEN {start} AND {start + span - 1}" for start in starts)
        thin = wanted / (span * _PLACES)
    # Fibonacci hashing of the row number (Knuth, The Art of Computer Programming, volume 3, 6.4).
    return f"({places}) AND ({row} * 2654435769) % 4294967296 < {round(thin * 2**32)}"
