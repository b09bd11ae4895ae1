"""Features on DuckDB, in this process: bounded memory, rows in the order of the source."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.ingest.engine import ROW, engine, fetch, identifier, literal, sql, table, write_parquet

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir


@contextmanager
def open_duckdb(beside: Path) -> Iterator["DuckDB"]:
    """DuckDB with bounded memory; see :func:`components.ingest.engine.engine`."""
    with engine(beside) as connection:
        yield DuckDB(connection)


class DuckDB:
    """The engine in this process; see :class:`components.features.engines.Engine`."""

    dialect = "duckdb"

    def __init__(self, connection: "duckdb.DuckDBPyConnection") -> None:
        """Run on a connection, which stays open."""
        self.connection = connection

    def read(self, name: str, paths: Sequence[Path], rows: Sequence[int] = ()) -> "ir.Table":
        """Parquet files as a view."""
        selects, before = [], 0
        for place, path in enumerate(paths):
            columns, numbered = "*", ""
            if rows:
                columns = f"file_row_number + {before + 1} AS {identifier(ROW)}, * EXCLUDE (file_row_number)"
                numbered = ", file_row_number = true"
                before += rows[place]
            selects.append(f"SELECT {columns} FROM read_parquet({literal(path)}{numbered}, hive_partitioning = false)")
        self.connection.execute(f"CREATE OR REPLACE VIEW {identifier(name)} AS {' UNION ALL '.join(selects)}")
        return table(self.connection, name)

    def keep(self, name: str, expression: "ir.Table", order: str = "") -> "ir.Table":
        """Compute a table once, into one that DuckDB spills when it is large.

        What it reads lies in order, and hash joins pass that on unless they spill: so the rows are sorted only where
        they turn out not to be, as sorting takes as long as all the rest.
        """
        temporary, query = identifier(name), sql(expression)
        self.connection.execute(f"CREATE TEMP TABLE {temporary} AS {query}").fetchall()
        if order and not self._is_sorted(temporary, identifier(order)):
            aside = identifier(f"{name} in order")
            self.connection.execute(f"CREATE TEMP TABLE {aside} AS FROM {temporary} ORDER BY {identifier(order)}")
            self.connection.execute(f"DROP TABLE {temporary}; ALTER TABLE {aside} RENAME TO {temporary}")
        return table(self.connection, name)

    def _is_sorted(self, name: str, column: str) -> bool:
        steps = f"SELECT {column} - lag({column}, 1, 0) OVER () AS step FROM {name}"
        ((least,),) = self.connection.execute(f"SELECT min(step) FROM ({steps})").fetchall()
        return least is None or int(least) > 0

    def rows(self, expression: "ir.Table") -> list[dict[str, Any]]:
        """Compute a table of few rows."""
        return fetch(self.connection, expression)

    def write(self, expression: "ir.Table", path: Path, order: str = ROW) -> int:
        """Write one Parquet file; rows of a kept table are in its order as they are."""
        query = f"SELECT * EXCLUDE ({identifier(order)}) FROM ({sql(expression)})"
        return write_parquet(self.connection, query, path)
