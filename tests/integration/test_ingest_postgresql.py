"""PostgreSQL as a source, against a real server."""

from pathlib import Path

import duckdb
import psycopg
import pytest

from components.errors import BadInput, Unreachable
from components.ingest.options import ReadOptions
from components.ingest.run import run
from components.ingest.sources import open_source, sql
from tests.database_server import execute, postgresql

TYPES = """CREATE TABLE kinds (small smallint, whole int, big bigint, exact numeric(20,4), loose numeric, single real,
double double precision, yes boolean, born date, moment timestamptz, local timestamp, clock time, words text,
code char(3), id uuid, doc jsonb, raw bytea, tags text[], span interval)"""
ROW = r"""INSERT INTO kinds VALUES (-1, 2147483647, 9223372036854775807, 1234567890123456.7891, 0.1, 1.5,
'NaN', true, '2026-02-28', '2026-03-01 12:00:00+02', '2026-03-01 12:00:00.000001', '23:59:59',
E'a "quoted", \n line; Ü', 'x', '00000000-0000-0000-0000-000000000001', '{"a": [1, null]}', '\x00ff',
ARRAY['a', NULL, 'b,c'], '1 day 2 hours')"""


@pytest.fixture(scope="module")
def server():
    with postgresql() as uri:
        execute(
            uri,
            TYPES,
            ROW,
            "INSERT INTO kinds (words) VALUES ('')",
            "CREATE SCHEMA shop",
            "CREATE TABLE shop.orders AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 5000) i",
            "CREATE ROLE alice LOGIN PASSWORD 'right'",
            "GRANT ALL ON SCHEMA shop TO alice",
            "GRANT ALL ON shop.orders TO alice",
        )
        with psycopg.connect(uri) as connection:
            path = Path(connection.execute("SHOW hba_file").fetchone()[0])
        path.write_text(f"local all alice scram-sha-256\n{path.read_text()}")
        execute(uri, "SELECT pg_reload_conf()")
        yield uri


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(sql, "TRIES", 2)
    monkeypatch.setattr(sql, "WAIT", 0.01)


def digest(uri, **options):
    (file,) = open_source(uri, ReadOptions.of(options)).files()
    return file.digest


def test_types_come_through(server, tmp_path):
    made = run(server, "", {"table": "kinds"}, tmp_path / "snapshot")
    assert {column.name: column.type for column in made.columns} == {
        "small": "SMALLINT",
        "whole": "INTEGER",
        "big": "BIGINT",
        "exact": "DECIMAL(20,4)",
        "loose": "DOUBLE",
        "single": "FLOAT",
        "double": "DOUBLE",
        "yes": "BOOLEAN",
        "born": "DATE",
        "moment": "TIMESTAMP WITH TIME ZONE",
        "local": "TIMESTAMP",
        "clock": "TIME",
        **dict.fromkeys(("words", "code", "id", "doc"), "VARCHAR"),
        "raw": "BLOB",
        **dict.fromkeys(("tags", "span"), "VARCHAR"),
    }
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        parts = f"read_parquet('{tmp_path}/snapshot/*.parquet')"
        replaced = "moment::VARCHAR AS moment, isnan(double) AS double"
        full = connection.execute(f"SELECT * REPLACE ({replaced}) FROM {parts} WHERE words <> ''")
        found = dict(zip((column[0] for column in full.description), full.fetchone(), strict=True))
        bare = f"SELECT count(*), count(COLUMNS(* EXCLUDE words)) FROM {parts} WHERE words = ''"
        empty = connection.execute(bare).fetchone()
    assert str(found["exact"]) == "1234567890123456.7891"
    assert (found["whole"], found["big"], found["double"], found["yes"]) == (2**31 - 1, 2**63 - 1, True, True)
    assert found["moment"] == "2026-03-01 10:00:00+00"
    assert found["words"] == 'a "quoted", \n line; Ü'
    assert (found["raw"], found["tags"], found["span"]) == (b"\x00\xff", '["a",null,"b,c"]', "P1DT2H")
    assert empty == (1, *[0] * 18)  # an empty text is none that is missing


def test_the_version_is_that_of_the_rows_whatever_their_order(server, tmp_path):
    execute(
        server,
        "CREATE TABLE there AS SELECT * FROM shop.orders ORDER BY note",
        "CREATE TABLE more AS SELECT * FROM shop.orders UNION ALL SELECT * FROM shop.orders WHERE id = 1",
    )
    assert digest(server, table="there") == digest(server, table="shop.orders")
    assert digest(server, table="more") != digest(server, table="there")
    up, down = ("SELECT * FROM shop.orders ORDER BY id", "SELECT * FROM shop.orders ORDER BY id DESC")
    assert digest(server, query=up) != digest(server, query=down)
    made = [run(server, "", {"table": name}, tmp_path / name) for name in ("there", "shop.orders")]
    assert made[0].parts[0].md5 == made[1].parts[0].md5
    run(server, "", {"query": down}, tmp_path / "down")
    first = duckdb.sql(f"SELECT id FROM read_parquet('{tmp_path}/down/*.parquet') LIMIT 2").fetchall()
    assert first == [(5000,), (4999,)]


def test_rows_that_change_after_they_were_resolved_are_noticed(server, tmp_path):
    execute(server, "CREATE TABLE moving AS SELECT 1 AS id")
    source = open_source(server, ReadOptions.of({"table": "moving"}))
    files = source.files()
    execute(server, "INSERT INTO moving VALUES (2)")
    with pytest.raises(BadInput, match=r"the rows changed while they were read \(2 now\)"):
        source.fetch(files, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"table": "shop.nothing"}, 'relation "shop.nothing" does not exist'),
        ({"query": "SELECT id, wrong FROM shop.orders"}, 'column "wrong" does not exist at character 12;'),
        ({"query": "SELECT id FORM shop.orders"}, 'syntax error at or near "shop" at character 16;'),
        ({"query": "SELECT id, id FROM shop.orders"}, "column 'id' occurs twice"),
        ({"query": "SELECT 1 / (id - 4000) AS x FROM shop.orders"}, "division by zero"),
        ({"query": "SELECT 'NaN'::numeric(10,2) AS x"}, "NaN"),
        ({"query": "DELETE FROM shop.orders"}, "would write to the database"),
        ({"query": "WITH d AS (DELETE FROM shop.orders RETURNING *) SELECT * FROM d"}, "WITH clause"),
        ({"query": "SELECT nextval('counter') AS x"}, "would write to the database"),
        ({"query": "SELECT 1 AS x; DELETE FROM shop.orders"}, "2 statements"),
        ({"query": "SELECT 1 AS x) q; DELETE FROM shop.orders; SELECT * FROM (SELECT 1"}, "multiple commands"),
        ({"table": "a", "query": "SELECT 1"}, "either read_options"),
        ({}, "either read_options"),
    ],
)
def test_a_wrong_query_is_one_sentence(server, options, sentence):
    execute(server, "CREATE SEQUENCE IF NOT EXISTS counter")
    with pytest.raises(BadInput, match=sentence.replace("(", r"\(") if "(" in sentence else sentence) as caught:
        digest(server, **options)
    assert "\n" not in str(caught.value)
    with psycopg.connect(server) as connection:
        assert connection.execute("SELECT count(*) FROM shop.orders").fetchone() == (5000,)


def test_login(server, monkeypatch):
    alice = server.replace("postgres@", "alice@")
    monkeypatch.setenv("SLUICEWAY_DATABASE_PASSWORD", "wrong")
    with pytest.raises(Unreachable, match=r"password authentication failed.*SLUICEWAY_DATABASE_PASSWORD"):
        digest(alice, table="shop.orders")
    monkeypatch.setenv("SLUICEWAY_DATABASE_PASSWORD", "right")
    monkeypatch.setenv("SLUICEWAY_DATABASE_USER", "alice")
    assert digest(server.replace("postgres@", ""), table="shop.orders") == digest(server, table="shop.orders")
    with pytest.raises(Unreachable, match="permission denied for table kinds"):
        digest(alice, table="kinds")
    with pytest.raises(Unreachable, match='database "absent" does not exist'):
        digest(server.replace("@/postgres", "@/absent"), table="kinds")
    with pytest.raises(Unreachable, match=r"Connection refused.*tried 2 times"):
        digest("postgresql://postgres@127.0.0.1:9/postgres", table="kinds")
    with pytest.raises(BadInput, match="SLUICEWAY_DATABASE_PASSWORD") as caught:
        digest("postgresql://alice:secret@db/postgres", table="kinds")
    assert "secret" not in str(caught.value)


def test_a_server_that_goes_in_the_middle_is_asked_again_from_the_start(server, monkeypatch, tmp_path):
    slow = "SELECT i AS id, repeat('x', 1000) AS t FROM generate_series(1, 60000) i"
    source = open_source(server, ReadOptions.of({"query": slow}))
    files = source.files()
    ours = "FROM pg_stat_activity WHERE application_name = 'sluiceway'"
    begun = []

    def cut(database, query, ordered):
        begun.append(query)
        with whole(database, query, ordered) as rows:
            if len(begun) == 1:
                next(rows.batches)
                execute(server, f"SELECT pg_terminate_backend(pid) {ours}")
            yield rows

    from contextlib import contextmanager

    from components.ingest.sources.databases.postgresql import PostgreSql

    whole = PostgreSql.rows
    monkeypatch.setattr(PostgreSql, "rows", contextmanager(cut))
    (path,) = source.fetch(files, tmp_path)
    assert len(begun) == 2
    assert duckdb.sql(f"SELECT count(*), count(DISTINCT id) FROM read_parquet('{path}')").fetchall() == [(60000, 60000)]
    monkeypatch.setattr(sql, "TRIES", 1)
    begun.clear()
    path.unlink()
    with pytest.raises(Unreachable, match="broke off"):
        source.fetch(files, tmp_path)
    assert not list(tmp_path.iterdir())
