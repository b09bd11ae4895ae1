"""Where features are computed: one small interface, a module per engine.

The job itself is written once, as Ibis expressions over named tables; an engine reads Parquet, compiles and runs
expressions, and writes Parquet. Whatever is true of one engine alone is in its module.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from components.errors import BadInput
from components.ingest.engine import ROW

if TYPE_CHECKING:
    import ibis.expr.types as ir

DUCKDB, KUBERNETES = "duckdb", "kubernetes"


class Engine(Protocol):
    """Runs Ibis expressions over tables that it knows by name."""

    dialect: str
    """Ibis's name of the SQL that it speaks."""

    def read(self, name: str, paths: Sequence[Path], rows: Sequence[int] = ()) -> "ir.Table":
        """Make Parquet files readable as one table, in the order of the paths.

        Args:
            name: the table's name.
            paths: the files; they have the same columns.
            rows: how many rows each file has, if the rows are to be numbered: then the first column is
                :data:`components.ingest.engine.ROW`, from 1 on over all files.

        Returns:
            The unbound Ibis table.
        """

    def keep(self, name: str, expression: "ir.Table", order: str = "") -> "ir.Table":
        """Compute a table once; what is large goes to disk.

        Args:
            name: the table's name.
            expression: what to compute.
            order: a whole-number column by which the table's rows are sorted, on an engine whose tables have an order.
        """

    def rows(self, expression: "ir.Table") -> list[dict[str, Any]]:
        """Compute a table of few rows."""

    def write(self, expression: "ir.Table", path: Path, order: str = ROW) -> int:
        """Write one Parquet file, whole, its rows in the order of the column ``order``, which is left out.

        An engine whose tables have an order does not sort again what :meth:`keep` holds in this order.

        Returns:
            How many rows it has.
        """


Opener = Callable[[Path], AbstractContextManager[Engine]]
"""Opens an engine beside an output."""


def open_engine(engine: "str | Opener", spark: Mapping[str, Any], beside: Path) -> AbstractContextManager[Engine]:
    """Open the engine of a name, for as long as a context lasts.

    Args:
        engine: ``duckdb``; ``local[N]``, ``spark://host:port`` or ``sc://host:port`` for Spark; or what opens one.
        spark: what a Spark job asks for.
        beside: an output; what an engine must spill goes to a folder beside it.

    Raises:
        BadInput: there is no such engine.
        Unreachable: it cannot be reached.
    """
    if engine == DUCKDB:
        from components.features.engines.duckdb import open_duckdb

        return open_duckdb(beside)
    if not isinstance(engine, str):
        return engine(beside)
    if is_spark(engine):
        from components.features.engines.spark import open_spark

        return open_spark(engine, spark, beside)
    raise BadInput(
        f"There is no engine {engine!r}; use duckdb, local[N], spark://host:port, sc://host:port (Spark Connect) or "
        "kubernetes."
    )


def is_spark(engine: str) -> bool:
    """Whether an engine's name is that of a Spark which a step drives itself."""
    return bool(re.fullmatch(r"local\[(\d+|\*)\]", engine)) or engine.startswith(("spark://", "sc://"))
