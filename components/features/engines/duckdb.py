"""Features on DuckDB, in this process: bounded memory, rows in the order of the source."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.ingest.engine import ROW, engine, fetch, identifier, literal, make_room, sql, table, write_parquet

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
        self._sorted = False

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
        found = table(self.connection, name)
        make_room(self.connection, len(found.columns))
        return found

    def keep(self, name: str, expression: "ir.Table", order: str = "") -> "ir.Table":
        """Compute a table once, into one that DuckDB spills when it is large.

        Whether its rows are in order is looked up: scans keep their order, and joins lose it.
        """
        self.connection.execute(f"CREATE TEMP TABLE {identifier(name)} AS {sql(expression)}").fetchall()
        if order:
            self._sorted = self._is_sorted(identifier(name), identifier(order))
        return table(self.connection, name)

    def _is_sorted(self, name: str, column: str) -> bool:
        steps = f"SELECT {column} - lag({column}, 1, 0) OVER () AS step FROM {name}"
        ((least,),) = self.connection.execute(f"SELECT min(step) FROM ({steps})").fetchall()
        return least is None or int(least) > 0

    def rows(self, expression: "ir.Table") -> list[dict[str, Any]]:
        """Compute a table of few rows."""
        return fetch(self.connection, expression)

    def write(self, expression: "ir.Table", path: Path, order: str = ROW) -> int:
        """Write one Parquet file; rows that were kept in order are not sorted again, unless they are joined."""
        from ibis.expr.operations import JoinChain

        query = f"SELECT * EXCLUDE ({identifier(order)}) FROM ({sql(expression)})"
        if not self._sorted or expression.op().find(JoinChain):
            query += f" ORDER BY {identifier(order)}"
        return write_parquet(self.connection, query, path, len(expression.columns))
