"""Databases: one module per kind, each of which runs a query and lets its rows arrive in batches."""

from contextlib import AbstractContextManager
from typing import Protocol

from components.errors import BadInput, Unreachable
from components.ingest.sources.arriving import Rows

BATCH = 10_000
"""Rows of a batch, where it is counted in rows."""


class Interrupted(Unreachable):
    """The connection broke, or the server is overloaded or starting: worth another try from the start."""


class Database(Protocol):
    """What a kind of database must be able to do.

    Attributes:
        dialect: its name for sqlglot.
    """

    dialect: str

    def quoted(self, name: str) -> str:
        """A name as the database's SQL writes it."""
        ...

    def rows(self, query: str, ordered: bool) -> AbstractContextManager[Rows]:
        """Run a query in a read-only transaction that sees one moment's content.

        Raises:
            BadInput: the query is wrong, or would write.
            Interrupted: the connection broke.
            Unreachable: the server refuses or does not exist.
        """
        ...


def open_database(uri: str) -> Database:
    """Choose the module for a URI.

    Raises:
        BadInput: the URI is wrong.
    """
    scheme = uri.partition("://")[0].lower()
    if scheme == "sqlite":
        from components.ingest.sources.databases.sqlite import Sqlite

        return Sqlite(uri)
    if scheme == "mysql":
        from components.ingest.sources.databases.mysql import MySql

        return MySql(uri)
    from components.ingest.sources.databases.postgresql import PostgreSql

    return PostgreSql(uri)


def refuse_password(uri: str, password: str | None, names: set[str]) -> None:
    """Parameters of a pipeline are stored and shown, so a URI must hold no secret.

    Raises:
        BadInput: it does.
    """
    if password or names & {"password", "passwd", "sslpassword"}:
        raise BadInput(
            f"The URI of the database {uri.rpartition('@')[2].partition('?')[0]} holds a password, and parameters of a "
            "pipeline are stored and shown: take it out and set SLUICEWAY_DATABASE_PASSWORD instead."
        )
