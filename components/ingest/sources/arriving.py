"""Rows that come from no file: record batches as they arrive, digested or written as Parquet in bounded memory.

The digest is that of a multiset: every row is hashed by itself and the hashes are added up, so that it neither depends
on the order in which a database returns rows nor needs them all in memory. What is written is sorted by all columns,
from left to right, so that the same rows make the same file.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from components.errors import BadInput
from components.ingest.engine import engine, identifier, literal, write_parquet

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY = "224MB"
"""What DuckDB may hold beside the batches; sorting spills the rest."""

_THREADS = 4
"""Batches arrive one after another: more threads would only need more memory."""

_ARRIVING = "arriving"
_LOW = "18446744073709551615::UHUGEINT"


@dataclass(frozen=True)
class Column:
    """A column of the result and the DuckDB expression over the batches' columns that gives it its type."""

    name: str
    expression: str


@dataclass(frozen=True)
class Rows:
    """Rows on their way.

    Attributes:
        schema: of the batches.
        batches: each is a few megabytes at most.
        columns: of the result.
        ordered: whether their order is part of what they say: it is kept then, and digested.
    """

    schema: "pa.Schema"
    batches: Iterator["pa.RecordBatch"]
    columns: tuple[Column, ...]
    ordered: bool = False


@dataclass(frozen=True)
class Digest:
    """What is known of rows that were looked at: ``value`` is ``rows:`` and hexadecimal sha256; ``bytes`` as JSON."""

    value: str
    rows: int
    bytes: int


def digest(rows: Rows) -> Digest:
    """Digest rows as they pass, keeping none.

    Raises:
        BadInput: a value does not fit its column's type.
    """
    import tempfile

    with _small_engine(Path(tempfile.gettempdir())) as connection, _select(connection, rows) as select:
        return _digest(connection, f"({select})", rows.ordered)


def write(rows: Rows, path: Path) -> Digest:
    """Write rows as one Parquet file, sorted unless they are ordered, and digest what was written.

    Raises:
        BadInput: a value does not fit its column's type.
        StorageFull: the disk ran out.
    """
    with _small_engine(path.parent) as connection:
        with _select(connection, rows) as select:
            write_parquet(connection, select if rows.ordered else f"{select} ORDER BY ALL", path)
        return _digest(connection, f"read_parquet({literal(path)}, hive_partitioning = false)", rows.ordered)


@contextmanager
def _small_engine(beside: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with engine(beside) as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute(f"SET threads = {min(_THREADS, os.cpu_count() or 1)}")
        yield connection


@contextmanager
def _select(connection: duckdb.DuckDBPyConnection, rows: Rows) -> Iterator[str]:
    """A SELECT over the batches that can be run once; what goes wrong where they come from is raised as it is."""
    import pyarrow as pa

    failures: list[Exception] = []

    def guarded() -> Iterator["pa.RecordBatch"]:
        try:
            yield from rows.batches
        except Exception as error:  # DuckDB would leave nothing of it but its text
            failures.append(error)
            raise

    connection.register(_ARRIVING, pa.RecordBatchReader.from_batches(rows.schema, guarded()))
    chosen = ", ".join(f"{column.expression} AS {identifier(column.name)}" for column in rows.columns)
    try:
        yield f"SELECT {chosen} FROM {_ARRIVING}"
    except duckdb.Error as error:
        if failures:
            raise failures[0] from error
        if isinstance(error, (duckdb.ConversionException, duckdb.InvalidInputException)):
            first = str(error).splitlines()[0].removeprefix("Conversion Error: ").rstrip(".")
            raise BadInput(
                f"A value does not fit its column: {first}; cast the column in read_options query."
            ) from error
        raise
    finally:
        connection.unregister(_ARRIVING)


def _digest(connection: duckdb.DuckDBPyConnection, relation: str, ordered: bool) -> Digest:
    described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    schema = [(name, kind) for name, kind, *_ in described]
    names = ", ".join(identifier(name) for name, _ in schema)
    number = "row_number() OVER (), " if ordered else ""
    ((count, high, low, size),) = connection.execute(
        f"SELECT count(*), sum((h >> 64)::UBIGINT), sum((h & {_LOW})::UBIGINT), sum(size) FROM ("
        f"SELECT md5_number(line) AS h, strlen(line) AS size FROM ("
        f"SELECT to_json(row({number}{names}))::VARCHAR AS line FROM {relation}))"
    ).fetchall()
    said = json.dumps([schema, ordered, count, str(high), str(low)])
    return Digest(f"rows:{hashlib.sha256(said.encode()).hexdigest()}", int(count), int(size or 0))
