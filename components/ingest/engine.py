"""DuckDB with bounded memory, and Ibis expressions run on it without loading pandas."""

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from components.errors import BadInput

if TYPE_CHECKING:
    import ibis.expr.types as ir

MEMORY = "800MB"
"""What one connection may hold; more is spilled to disk, so a step passes in a small pod whatever the data's size."""

THREADS = 4
"""The most at work in one connection: each holds buffers, which of 16 threads fill the memory before there is a row."""

ROW = "__sluiceway_row"
"""The column that numbers a snapshot's data rows from 1, in the order of the source."""

WIDE = 1_000
"""Columns from which on a table is read with care for memory before speed."""

_VECTOR, _ROW_GROUP = 2_048, 122_880

_FULL = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "max_temp_directory_size": errno.ENOSPC,  # nearly all of the disk, by default
}


@contextmanager
def engine(beside: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open DuckDB; whatever it must spill goes to a folder beside an output, and is gone afterwards.

    Row order is kept, time zones are UTC, and nothing is downloaded (extensions), so results are the same on any
    machine. There are as many threads as processors, up to :data:`THREADS`.

    Raises:
        BadInput: the memory does not suffice, and spilling does not help.
        OSError: the disk is full while spilling or writing (DuckDB says so only in the message's text).
    """
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".spill-", dir=beside) as spill:
        config: dict[str, Any] = {
            "memory_limit": MEMORY,
            "temp_directory": spill,
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,
        }
        with duckdb.connect(config=config) as connection:
            ((threads,),) = connection.execute("SELECT current_setting('threads')").fetchall()
            connection.execute(f"SET threads = {min(int(threads), THREADS)}")
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = true")  # counted for others to ask, not drawn
            connection.execute("SET enable_progress_bar_print = false")
            try:
                yield connection
            except duckdb.Error as error:
                for words, number in _FULL.items():
                    if words in str(error):
                        raise OSError(number, os.strerror(number)) from error
                if isinstance(error, duckdb.OutOfMemoryException):
                    raise BadInput(
                        f"This table takes more memory than DuckDB may hold ({MEMORY}; more from {WIDE:,} columns on): "
                        "leave out columns that are not needed, or have features computed on Spark."
                    ) from error
                raise


def identifier(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | Path) -> str:
    """Quote a text for SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def mapping(values: Mapping[str, str]) -> str:
    """Quote texts by name for SQL, as a struct."""
    return "{" + ", ".join(f"{literal(name)}: {literal(value)}" for name, value in values.items()) + "}"


def table(connection: duckdb.DuckDBPyConnection, view: str) -> "ir.Table":
    """An Ibis table for a view of the connection.

    It is not bound to Ibis's own back end, whose results come through pandas (half a second of import): expressions
    over it are compiled by :func:`sql` and run as they are.
    """
    import ibis
    from ibis.backends.sql.datatypes import DuckDBType

    columns = connection.execute(f"DESCRIBE {identifier(view)}").fetchall()
    return ibis.table({name: DuckDBType.from_string(kind) for name, kind, *_ in columns}, name=view)


def sql(expression: "ir.Table") -> str:
    """Compile an Ibis expression to DuckDB's SQL."""
    import ibis

    return str(ibis.to_sql(expression, dialect="duckdb"))


def fetch(connection: duckdb.DuckDBPyConnection, expression: "ir.Table") -> list[dict[str, Any]]:
    """Run an Ibis expression and return its (few) rows."""
    rows = connection.execute(sql(expression)).fetchall()
    names = expression.columns
    return [dict(zip(names, row, strict=True)) for row in rows]


def make_room(connection: duckdb.DuckDBPyConnection, columns: int) -> None:
    """Settings for tables of thousands of columns, of which DuckDB holds a buffer each, in each thread.

    Two of its optimizers take the square of their number.
    """
    if columns > WIDE:
        connection.execute("SET disabled_optimizers = 'statistics_propagation,common_subexpressions'")
        connection.execute("SET threads = 1")
        connection.execute(f"SET memory_limit = '{800 + columns // 4}MB'")


def write_parquet(connection: duckdb.DuckDBPyConnection, query: str, path: Path, columns: int = 0) -> int:
    """Stream a query into one zstd Parquet file, in order, and return how many rows it has.

    Args:
        connection: to run it on.
        query: a SELECT.
        path: the file.
        columns: how many there are, where they may be many; row groups are then shorter, as they are held in memory.
    """
    group = max(_VECTOR, min(_ROW_GROUP, _ROW_GROUP * 64 // max(columns, 1) // _VECTOR * _VECTOR))
    count = connection.execute(
        f"COPY ({query}) TO {literal(path)} "
        # Level 1 takes a sixth less time than zstd's usual 3, for 4 % more bytes.
        f"(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {group}, USE_TMP_FILE false)"
    ).fetchall()
    return int(count[0][0])
