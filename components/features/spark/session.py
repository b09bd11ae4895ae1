"""A session of Spark that computes as DuckDB does: by its engine string, on this machine or on a cluster."""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import BadInput, Unreachable
from components.features.spark import functions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LOCAL = re.compile(r"local\[(\d+|\*)\]")
_ADDRESS = re.compile(r"(?P<scheme>sc|spark)://(?P<host>\[[^\]]*\]|[^:/;,]+)(:(?P<port>\d+))?")
_PORTS = {"sc": 15002, "spark": 7077}
_SECONDS = 10.0
_MEMORY = "1g"

SEMANTICS: Mapping[str, str] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    # Days before 1582 as they are: DuckDB, too, takes today's calendar for all times.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
}
"""Settings of the session that results depend on; a run cannot change them."""


@contextmanager
def session(engine: str, conf: Mapping[str, str] | None = None, driver_memory: str = "") -> "Iterator[SparkSession]":
    """A session of Spark; one that this process has already is used and left open, else it ends with the block.

    Args:
        engine: ``local[N]`` or ``local[*]``, ``spark://host:port``, ``sc://host:port``, or empty for the one that
            spark-submit has made ready.
        conf: settings of Spark by their names.
        driver_memory: of the driver in this process, such as ``4g``; 1g by default.

    Raises:
        BadInput: there is no Java where one is needed, or a setting is wrong.
        Unreachable: the cluster does not answer.
    """
    opened, is_ours = _opened(engine, dict(conf or {}), driver_memory or _MEMORY)
    try:
        for name, value in SEMANTICS.items():
            opened.conf.set(name, value)
        for statement in functions.statements():
            opened.sql(statement)
        yield opened
    finally:
        if is_ours:
            opened.stop()


def _opened(engine: str, conf: dict[str, str], memory: str) -> "tuple[SparkSession, bool]":
    if find_spec("pyspark") is None:
        raise BadInput(
            "Spark is not installed here: pip install 'sluiceway[spark]', run the step in the image python-spark, or "
            'take the engine "duckdb".'
        )
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    is_remote = engine.startswith("sc://")
    if not is_remote and (active := SparkSession.getActiveSession()) is not None:
        return active, False
    _check_answers(engine)
    try:
        if is_remote:
            return _connected(engine, conf), True
        _check_java()
        builder: Any = SparkSession.builder.appName("sluiceway-features")
        if engine:
            builder = builder.master(engine)
        for name, value in ((_settings(engine, memory) if engine else {}) | conf).items():
            builder = builder.config(name, value)
        return builder.getOrCreate(), True
    except (PySparkException, OSError) as error:
        raise Unreachable(f"There is no session of Spark to be had at {engine}: {_first(error)}") from error


def _connected(engine: str, conf: dict[str, str]) -> "SparkSession":
    """A session of a server of Spark Connect, whatever else this process has."""
    from pyspark.sql.connect.session import SparkSession

    made: Any = SparkSession.builder.remote(engine).create()
    for name, value in conf.items():
        made.conf.set(name, value)
    made.range(1).count()
    session: Any = made
    return session  # type: ignore[no-any-return]


def _settings(engine: str, memory: str) -> dict[str, str]:
    found = {"spark.ui.enabled": "false", "spark.driver.memory": memory}
    if local := _LOCAL.fullmatch(engine):
        cores = os.cpu_count() or 1 if local[1] == "*" else int(local[1])
        own = Path(tempfile.gettempdir()) / f"sluiceway-spark-{os.getuid()}"
        found |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": str(4 * cores),
            "spark.sql.warehouse.dir": str(own),
            "spark.log.level": "ERROR",
            "spark.ui.showConsoleProgress": "false",
        }
    return found


def _check_answers(engine: str) -> None:
    """Spark's own clients would try for minutes where nobody listens."""
    address = _ADDRESS.match(engine)
    if address is None:
        return
    host, port = address["host"].strip("[]"), int(address["port"] or _PORTS[address["scheme"]])
    try:
        with socket.create_connection((host, port), timeout=_SECONDS):
            return
    except OSError as error:
        raise Unreachable(f"Nobody listens at {engine} ({error}): start Spark there, or correct the engine.") from error


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME", "")
    if not (Path(home, "bin", "java").exists() if home else shutil.which("java")):
        raise BadInput(
            "Spark needs Java 17 or newer and there is none here: install one or set JAVA_HOME, run the step in the "
            'image python-spark, or take the engine "duckdb".'
        )


def _first(error: BaseException) -> str:
    """What an error of Spark says, without what happened inside it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
