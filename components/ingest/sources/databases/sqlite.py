"""SQLite files. Their columns have no fixed types, so each gets the narrowest one that holds what is really in it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from components.errors import BadInput, Unreachable
from components.ingest.sources.arriving import Column, Rows
from components.ingest.sources.databases import BATCH
from components.ingest.text import check_names

if TYPE_CHECKING:
    import pyarrow as pa

_VIEW = "temp.sluiceway_query"
_LOCKED = 30
"""Seconds to wait for a writer."""

_CLASSES = ("integer", "real", "text", "blob")


class Sqlite:
    """A ``sqlite:///path`` URI; the path is absolute, as in ``sqlite:////data/shop.db``, or relative."""

    dialect = "sqlite"

    def __init__(self, uri: str) -> None:
        """Check the URI.

        Raises:
            BadInput: it names no file, or none that exists.
        """
        parts = urlsplit(uri, allow_fragments=False)
        self._path = Path(unquote(parts.path[1:])).expanduser()
        if parts.netloc or not parts.path.strip("/"):
            raise BadInput(f"{uri}: write sqlite:///relative/path.db or sqlite:////absolute/path.db.")
        if not self._path.is_file():
            raise BadInput(f"There is no SQLite file {self._path.absolute()}; check the path in {uri}.")

    def quoted(self, name: str) -> str:
        """With double quotes."""
        return '"' + name.replace('"', '""') + '"'

    @contextmanager
    def rows(self, query: str, ordered: bool) -> Iterator[Rows]:
        """Run the query on a connection that cannot write; see Database."""
        address = f"file:{quote(str(self._path.absolute()))}?mode=ro"
        try:
            with closing(
                sqlite3.connect(address, uri=True, timeout=_LOCKED, isolation_level=None, check_same_thread=False)
            ) as connection:
                connection.execute("BEGIN")  # one moment's content for both of the queries below
                connection.execute(f"CREATE TEMP VIEW sluiceway_query AS {query}")
                kinds = _kinds(connection)
                cursor = connection.execute(query)  # not the view, which need not keep an ORDER BY
                titles = tuple(column[0] for column in cursor.description)
                check_names(titles, f"{self._path.name}, read_options query")
                names = [f"c{index}" for index in range(len(kinds))]
                types = [held for held, _ in kinds]
                yield Rows(
                    schema=_schema(names, types),
                    batches=_batches(cursor, names, types),
                    columns=tuple(
                        Column(title, f"{name}::{cast}" if cast else name)
                        for name, title, (_, cast) in zip(names, titles, kinds, strict=True)
                    ),
                    ordered=ordered,
                )
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "unable to open" in str(error):
                raise Unreachable(
                    f"{self._path} cannot be read ({error}); is another program writing to it?"
                ) from error
            raise BadInput(
                f"{self._path.name} cannot run the query: {error}; mend read_options, where only a SELECT is run."
            ) from error
        except sqlite3.DatabaseError as error:
            raise BadInput(f"{self._path} is no whole SQLite database ({error}); copy it again.") from error


def _kinds(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """For each column what the batches hold it as and the DuckDB type to cast that to, if any.

    One look at all values says which storage classes occur, and whether those of columns that were declared as
    booleans, dates or timestamps are such.
    """
    declared = [(name, kind.upper()) for _, name, kind, *_ in connection.execute("PRAGMA table_info(sluiceway_query)")]
    looks = []
    for name, kind in declared:
        column = '"' + name.replace('"', '""') + '"'
        looks += [f"max(typeof({column}) = '{held}')" for held in _CLASSES]
        looks.append(f"max({column} IS NOT NULL AND NOT coalesce({_fits(column, kind)}, 0))")
    found = connection.execute(f"SELECT {', '.join(looks)} FROM {_VIEW}").fetchone()
    kinds = []
    for index, (_, kind) in enumerate(declared):
        *classes, unfit = found[index * 5 : index * 5 + 5]
        held = {held for held, occurs in zip(_CLASSES, classes, strict=True) if occurs}
        kinds.append(_type(held, kind, bool(unfit)))
    return kinds


def _fits(column: str, kind: str) -> str:
    if kind.startswith("BOOL"):
        return f"{column} IN (0, 1)"
    if kind == "DATE":
        return f"date({column}) IS {column}"
    return f"substr({column}, 1, 10) IS date({column})" if kind.startswith(("DATETIME", "TIMESTAMP")) else "1"


def _type(held: set[str], declared: str, unfit: bool) -> tuple[str, str]:
    if held == {"integer"}:
        return "integer", "BOOLEAN" if declared.startswith("BOOL") and not unfit else ""
    if held and held <= {"integer", "real"}:
        return "real", ""
    if "blob" in held:
        return "blob", ""
    if held == {"text"} and not unfit and declared == "DATE":
        return "text", "DATE"
    if held == {"text"} and not unfit and declared.startswith(("DATETIME", "TIMESTAMP")):
        return "text", "TIMESTAMP"
    return "text", ""


def _schema(names: list[str], types: list[str]) -> "pa.Schema":
    import pyarrow as pa

    arrow = {"integer": pa.int64(), "real": pa.float64(), "text": pa.string(), "blob": pa.binary()}
    return pa.schema([(name, arrow[held]) for name, held in zip(names, types, strict=True)])


def _batches(cursor: sqlite3.Cursor, names: list[str], types: list[str]) -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa

    schema = _schema(names, types)
    while fetched := cursor.fetchmany(BATCH):
        columns = [_values(values, held) for values, held in zip(zip(*fetched, strict=True), types, strict=True)]
        yield pa.RecordBatch.from_arrays(
            [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
        )


def _values(values: tuple[Any, ...], held: str) -> list[Any] | tuple[Any, ...]:
    if held == "real":
        return [None if value is None else float(value) for value in values]
    if held == "text":
        return [value if value is None or isinstance(value, str) else str(value) for value in values]
    if held == "blob":
        return [value if value is None or isinstance(value, bytes) else str(value).encode("utf-8") for value in values]
    return values
