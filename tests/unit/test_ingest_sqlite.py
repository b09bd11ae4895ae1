"""SQLite as a source."""

import sqlite3

import duckdb
import pytest

from components.errors import BadInput, Unreachable
from components.ingest.options import ReadOptions
from components.ingest.run import run
from components.ingest.sources import open_source
from components.ingest.sources.databases import sqlite


@pytest.fixture
def shop(tmp_path):
    path = tmp_path / "shop db.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """CREATE TABLE orders (id INTEGER PRIMARY KEY, amount DECIMAL(10,2), paid BOOLEAN, day DATE,
                 placed TIMESTAMP, odd DATE, any, note TEXT, raw BLOB);
               INSERT INTO orders VALUES (2, 2, 0, '2026-01-02', '2026-01-02 03:04:05.5', 'soon', 'x', '', x'00ff'),
                 (1, 1.5, 1, '2026-01-01', '2026-01-01T00:00:00', '2026-01-01', 7, NULL, NULL);"""
        )
    return f"sqlite:///{path}".replace(" ", "%20"), path


def test_values_get_the_narrowest_type_that_holds_them(shop, tmp_path):
    made = run(shop[0], "", {"table": "orders"}, tmp_path / "snapshot")
    assert [column.type for column in made.columns] == [
        *("BIGINT", "DOUBLE", "BOOLEAN", "DATE", "TIMESTAMP", "VARCHAR", "VARCHAR", "VARCHAR", "BLOB")
    ]
    first, second = duckdb.sql(f"SELECT * FROM read_parquet('{tmp_path}/snapshot/*.parquet')").fetchall()
    assert first[:3] == (1, 1.5, True)
    assert first[6:] == ("7", None, None)
    assert (second[4].microsecond, second[5], second[7], second[8]) == (500_000, "soon", "", b"\x00\xff")


def test_a_query_keeps_the_order_that_it_asks_for(shop, tmp_path):
    run(shop[0], "", {"query": "SELECT id FROM orders ORDER BY id DESC;"}, tmp_path / "snapshot")
    assert duckdb.sql(f"SELECT id FROM read_parquet('{tmp_path}/snapshot/*.parquet')").fetchall() == [(2,), (1,)]


def test_the_version_does_not_depend_on_the_order_in_the_file(shop, tmp_path):
    connection = sqlite3.connect(shop[1])
    with connection:
        connection.execute("CREATE TABLE again AS SELECT * FROM orders ORDER BY id DESC")
        connection.execute(
            "CREATE TABLE copy AS SELECT * FROM again WHERE id = 1 UNION ALL SELECT * FROM again WHERE id = 2"
        )
    found = [open_source(shop[0], ReadOptions(table=name)).files()[0].digest for name in ("again", "copy")]
    assert found[0] == found[1]
    with connection:
        connection.execute("UPDATE copy SET note = NULL")
    assert open_source(shop[0], ReadOptions(table="copy")).files()[0].digest != found[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"table": "nothing"}, "no such table: nothing"),
        ({"query": "SELECT wrong FROM orders"}, "no such column: wrong"),
        ({"query": "SELECT id, FROM orders"}, 'near "FROM": syntax error'),
        ({"query": "DELETE FROM orders"}, "would write"),
        ({"query": "PRAGMA user_version = 3"}, "only a SELECT is run"),
        ({"query": "SELECT id, id AS ID FROM orders"}, "occurs twice"),
    ],
)
def test_a_wrong_query_is_one_sentence(shop, options, sentence):
    with pytest.raises(BadInput, match=sentence):
        open_source(shop[0], ReadOptions.of(options)).files()


def test_a_file_that_is_locked_damaged_or_absent_is_named(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "_LOCKED", 0)
    writer = sqlite3.connect(shop[1], isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Unreachable, match=r"is locked.*another program"):
        open_source(shop[0], ReadOptions(table="orders")).files()
    writer.close()
    (tmp_path / "bad.db").write_bytes(shop[1].read_bytes()[:100] + b"x" * 5000)
    with pytest.raises(BadInput, match="no whole SQLite database"):
        open_source(f"sqlite:///{tmp_path}/bad.db", ReadOptions(table="orders")).files()
    with pytest.raises(BadInput, match="There is no SQLite file"):
        open_source(f"sqlite:///{tmp_path}/absent.db", ReadOptions(table="orders"))
