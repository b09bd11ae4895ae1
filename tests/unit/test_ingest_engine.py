"""DuckDB within bounds."""

import errno
from pathlib import Path

import duckdb
import pytest

from components.errors import BadInput
from components.ingest.engine import THREADS, engine


def test_many_processors_do_not_mean_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda config: real(config=config | {"threads": 64}))
    with engine(tmp_path) as connection:
        assert connection.execute("SELECT current_setting('threads')").fetchall() == [(THREADS,)]


def test_a_query_that_needs_more_memory_than_there_is_ends_with_a_sentence(tmp_path: Path) -> None:
    lists = ", ".join(f"list(DISTINCT hash(i * {n}))" for n in range(40))
    with (
        pytest.raises(BadInput, match=r"more memory than DuckDB may hold \(800MB; .*\): leave out columns"),
        engine(tmp_path) as connection,
    ):
        connection.execute("SET memory_limit = '60MB'")
        connection.execute(f"SELECT {lists} FROM range(100_000) t(i)").fetchall()


def test_spilling_until_the_disk_is_full_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as raised, engine(tmp_path) as connection:
        connection.execute("SET memory_limit = '60MB'")
        connection.execute("SET max_temp_directory_size = '20MB'")
        connection.execute(
            "CREATE TABLE t AS SELECT md5(i::VARCHAR) AS x FROM range(4_000_000) r(i) ORDER BY x"
        ).fetchall()
    assert raised.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())
