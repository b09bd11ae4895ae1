"""Features on Spark: the same expressions, by as many machines as there are; no row passes through Python."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import BadInput, Unreachable
from components.features.spark.dialect import sql
from components.features.spark.options import SparkOptions
from components.features.spark.places import OneDisk, Places, Store
from components.features.spark.session import session
from components.files import whole_file
from components.ingest.engine import ROW, engine, identifier, literal, write_parquet
from components.settings import settings

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import DataType


@contextmanager
def open_spark(name: str, spark: Mapping[str, Any], beside: Path, places: Places | None = None) -> Iterator["Spark"]:
    """Spark in this process, on a standalone cluster, by Spark Connect, or as spark-submit has started it.

    Args:
        name: ``local[N]``, ``spark://host:port``, ``sc://host:port``, or ``spark`` for what spark-submit has started.
        spark: see :class:`components.features.spark.options.SparkOptions`.
        beside: an output; what is on its way goes to a folder beside it, or to the store.
        places: what executors see, where the name does not tell.

    Raises:
        BadInput: a setting is wrong, or there is no Java; or Spark found something wrong in the data.
        Unreachable: there is no session to be had, or the cluster has failed.
    """
    options = SparkOptions.given(spark)
    beside.mkdir(parents=True, exist_ok=True)
    places = places or _places(name, beside)
    memory = str(spark.get("driver_memory", ""))
    try:
        with session("" if name == "spark" else name, options.conf, memory) as opened, _sentences():
            yield Spark(opened, places, beside)
    finally:
        places.close()


def _places(name: str, beside: Path) -> Places:
    """Executors of a cluster see the store where it is a bucket; else they must see the step's disk."""
    store = settings().store
    if name.startswith("local") or "://" not in store:
        return OneDisk(beside)
    return Store(f"{store}/spark/{beside.parent.name}-{beside.name}")


class Spark:
    """The engine on Spark; see :class:`components.features.engines.Engine`."""

    dialect = "pyspark"

    def __init__(self, session: "SparkSession", places: Places, beside: Path) -> None:
        """Run in a session, which stays open.

        Args:
            session: see :func:`components.features.spark.session.session`.
            places: what its executors see.
            beside: an output.
        """
        self._session = session
        self._places = places
        self._beside = beside
        self._written = 0

    def read(self, name: str, paths: Sequence[Path], rows: Sequence[int] = ()) -> "ir.Table":
        """Parquet files as a view."""
        uris = [self._places.uri(path) for path in paths]
        # Without the option, folders such as year=2026 in the path would become columns.
        frame = self._session.read.option("recursiveFileLookup", "true").parquet(*uris)
        columns = [_readable(field.name, field.dataType) for field in frame.schema.fields]
        if rows:
            before = {path.name: sum(rows[:place]) for place, path in enumerate(paths)}
            starts = ", ".join(f"{_text(file)}, {count}L" for file, count in before.items())
            columns.insert(0, f"map({starts})[_metadata.file_name] + _metadata.row_index + 1L AS {_name(ROW)}")
        return self._view(name, frame.selectExpr(*columns))

    def keep(self, name: str, expression: "ir.Table", order: str = "") -> "ir.Table":
        """Compute a table once, as Parquet where executors see it: memory is not asked to hold it."""
        place = self._places.scratch(name)
        self._frame(_unordered(expression)).write.mode("overwrite").parquet(place)
        return self._view(name, self._session.read.parquet(place))

    def rows(self, expression: "ir.Table") -> list[dict[str, Any]]:
        """Compute a table of few rows."""
        return [row.asDict() for row in self._frame(expression).collect()]

    def write(self, expression: "ir.Table", path: Path, order: str = ROW) -> int:
        """Write one Parquet file: Spark writes sorted parts, which DuckDB puts one after the other, streaming."""
        from ibis.backends.sql.datatypes import DuckDBType

        self._written += 1
        name = f"written-{self._written}"
        frame = self._frame(_unordered(expression)).orderBy(_name(order))
        frame.write.mode("overwrite").parquet(self._places.scratch(name))
        parts = ", ".join(literal(part) for part in self._places.bring(name, self._beside))
        columns = ", ".join(
            f"CAST({identifier(column)} AS {DuckDBType.to_string(kind)}) AS {identifier(column)}"
            for column, kind in expression.schema().items()
            if column != order
        )
        with whole_file(path) as aside, engine(self._beside) as connection:
            return write_parquet(connection, f"SELECT {columns} FROM read_parquet([{parts}])", aside)

    def _frame(self, expression: "ir.Table") -> "DataFrame":
        return self._session.sql(sql(expression))

    def _view(self, name: str, frame: "DataFrame") -> "ir.Table":
        import ibis

        frame.createOrReplaceTempView(name)
        kinds = {field.name: _kind(field.dataType) for field in frame.schema.fields}
        return ibis.table(kinds, name=name)


def _unordered(expression: "ir.Table") -> "ir.Table":
    """Without the order that its last step gives it, which no table of Spark's would keep."""
    from ibis.expr import operations as ops

    op: Any = expression.op()
    while isinstance(op, ops.Sort):
        op = op.parent
    table: ir.Table = op.to_expr()
    return table


def _kind(kind: "DataType") -> Any:
    """Ibis's type for one of Spark's."""
    import ibis.expr.datatypes as dt
    from ibis.backends.pyspark.datatypes import PySparkType
    from pyspark.sql.types import TimestampNTZType, TimestampType

    if isinstance(kind, TimestampType):
        return dt.Timestamp("UTC", 6)
    return dt.Timestamp(scale=6) if isinstance(kind, TimestampNTZType) else PySparkType.to_ibis(kind)


def _readable(name: str, kind: "DataType") -> str:
    """A column as it is; as a text where Ibis has no type for it."""
    try:
        _kind(kind)
    except (NotImplementedError, TypeError):
        return f"CAST({_name(name)} AS STRING) AS {_name(name)}"
    return _name(name)


def _name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def _sentences() -> Iterator[None]:
    """Spark's failures, each as one sentence.

    Raises:
        BadInput: a value is wrong.
        Unreachable: something else has failed.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        said = " ".join(str(error).partition("\nJVM stacktrace")[0].partition("\n\tat ")[0].split())[:500]
        if "No FileSystem for scheme" in said or "ClassNotFoundException" in said:
            raise BadInput(
                f"This Spark cannot read or write the store ({said}): add the connector to it, as docs/spark.md says."
            ) from error
        if error.getCondition() == "USER_RAISED_EXCEPTION":  # one of our functions has something to say
            raise BadInput(said.partition("] ")[2].partition(" SQLSTATE")[0]) from error
        raise Unreachable(f"Spark could not compute the features: {said}") from error
    except Py4JError as error:
        raise Unreachable(f"Spark has ended before it had computed the features: {error}") from error
