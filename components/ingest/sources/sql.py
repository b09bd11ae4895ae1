"""Databases by URI: ``postgresql://``, ``mysql://`` and ``sqlite://``, a table or a query.

The version is the digest of the rows themselves, not of the database: the same rows are the same version wherever they
lie. So the rows are read when the source is resolved (digested, none kept) and again when they are ingested.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from components.errors import BadInput, Unreachable
from components.ingest.options import ReadOptions
from components.ingest.sources import SourceFile
from components.ingest.sources.arriving import Digest, Rows, digest, write
from components.ingest.sources.databases import Interrupted, open_database

TRIES = 4
"""How often a query is begun, at most, when its connection breaks."""

WAIT = 0.5
"""Seconds before the second try, at least; they double with each one."""

_T = TypeVar("_T")


class SqlSource:
    """A table or a query of a database."""

    def __init__(self, uri: str, options: ReadOptions) -> None:
        """Check URI and options; nothing is asked of the database yet.

        Raises:
            BadInput: the URI holds a password, or the options do not say what to read.
        """
        self._uri = uri
        self._database = open_database(uri)
        if bool(options.table) == bool(options.query.strip()):
            raise BadInput(
                f'{uri}: say what to read from the database with either read_options {{"table": "schema.name"}} or '
                '{"query": "select …"}.'
            )
        if options.table:
            self._name = f"{options.table}.parquet"
            self._query = f"SELECT * FROM {'.'.join(map(self._database.quoted, options.table.split('.')))}"
            self._ordered = False
        else:
            self._name = "query.parquet"
            self._query = options.query.strip().rstrip(";").rstrip()
            self._ordered = _checked_order(self._query, self._database.dialect)

    def files(self) -> tuple[SourceFile, ...]:
        """Digest the rows as they pass."""
        found = self._read(digest)
        return (SourceFile(self._name, found.value, found.bytes),)

    def fetch(self, files: tuple[SourceFile, ...], folder: Path) -> list[Path]:
        """Write the rows as Parquet, sorted unless the query orders them.

        Raises:
            BadInput: they are no longer what was listed.
        """
        path = folder / files[0].name.replace("/", "_")
        found = self._read(lambda rows: write(rows, path))
        if found.value != files[0].digest:
            path.unlink()
            volatile = "" if self._name != "query.parquet" else ", or make the query give the same rows each time"
            raise BadInput(
                f"{self._uri}: the rows changed while they were read ({found.rows:,} now); run the step again when "
                f"nothing writes to them{volatile}."
            )
        return [path]

    def still(self, files: tuple[SourceFile, ...]) -> bool:
        """They were read in one transaction and compared with what was listed."""
        return True

    def pinned(self) -> str:
        """The URI; changed rows are noticed by their digest."""
        return self._uri

    def _read(self, use: Callable[[Rows], Digest]) -> Digest:
        def once() -> Digest:
            with self._database.rows(self._query, self._ordered) as rows:
                return use(rows)

        return patiently(once)


def patiently(attempt: Callable[[], _T]) -> _T:
    """Try again, from the start, when a connection breaks.

    Raises:
        Unreachable: it broke every time.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

    tries = Retrying(
        retry=retry_if_exception_type(Interrupted),
        stop=stop_after_attempt(TRIES),
        wait=wait_exponential_jitter(initial=WAIT, max=20, jitter=WAIT),
        reraise=True,
    )
    try:
        return tries(attempt)
    except Interrupted as error:
        raise Unreachable(f"{error} (tried {TRIES} times; nothing half-read was kept)") from error


def _checked_order(query: str, dialect: str) -> bool:
    """Whether a query says in which order its rows come.

    Raises:
        BadInput: it is another kind of statement, or several.
    """
    import sqlglot
    from sqlglot import exp

    try:
        statements = sqlglot.parse(query, dialect=dialect)
    except sqlglot.errors.SqlglotError:  # the database knows more, and says better what is wrong
        return False
    if len(statements) != 1:
        raise BadInput(f"read_options query holds {len(statements)} statements; write one SELECT.")
    (statement,) = statements
    if not isinstance(statement, exp.Query):
        raise BadInput("read_options query is no SELECT, or would write to the database; only a SELECT is run.")
    return statement.args.get("order") is not None
