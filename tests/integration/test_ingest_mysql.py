"""MySQL as a source, against a real MariaDB where one is installed."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import duckdb
import pymysql
import pytest

from components.errors import BadInput, Unreachable
from components.ingest.options import ReadOptions
from components.ingest.run import run
from components.ingest.sources import open_source, sql
from serving.local.processes import free_port

pytestmark = pytest.mark.skipif(not shutil.which("mariadbd"), reason="MariaDB is not installed")

TYPES = """CREATE TABLE kinds (tiny tinyint, whole int unsigned, big bigint unsigned, exact decimal(20,4),
single float, dbl double, born date, placed datetime(6), moment timestamp NULL, clock time,
words varchar(50), note text, raw varbinary(9), doc json, kind enum('a','b'), bits bit(9))"""
ROW = """INSERT INTO kinds VALUES (-1, 4294967295, 18446744073709551615, 1234567890123456.7891, 1.5, 0.1, '2026-02-28',
'2026-03-01 12:00:00.000001', '2026-03-01 12:00:00', '100:00:00', 'ü', '', x'00ff', '{"a": 1}', 'b', b'100000001')"""


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to the user that the server runs as
        yield from started(Path(folder))


def started(folder):
    port = free_port()
    user = ["--user=mysql"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "mysql")
    options = ["--no-defaults", f"--datadir={folder}/data", *user]
    subprocess.run(
        ["mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True,
        capture_output=True,
    )
    process = subprocess.Popen(
        ["mariadbd", *options, f"--socket={folder}/s", f"--port={port}", "--bind-address=127.0.0.1"],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"mysql://root@127.0.0.1:{port}/shop", connected(port)
    finally:
        process.terminate()
        process.wait(30)


def connected(port):
    for _ in range(200):
        try:
            connection = pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True)
        except pymysql.Error:
            time.sleep(0.1)
            continue
        with connection.cursor() as cursor:
            for statement in (
                "CREATE DATABASE shop",
                "USE shop",
                "SET time_zone = '+02:00'",
                TYPES,
                ROW,
                "INSERT INTO kinds (words) VALUES ('bare')",
                "CREATE TABLE orders AS SELECT seq AS id, md5(seq) AS note FROM seq_1_to_25000",
                "CREATE TABLE copy AS SELECT * FROM orders ORDER BY note",
                "CREATE USER alice@'127.0.0.1' IDENTIFIED BY 'right'",
                "GRANT SELECT ON shop.orders TO alice@'127.0.0.1'",
            ):
                cursor.execute(statement)
        return connection
    raise AssertionError("MariaDB did not start")


def digest(uri, **options):
    (file,) = open_source(uri, ReadOptions.of(options)).files()
    return file.digest


def test_types_come_through(server, tmp_path):
    made = run(server[0], "", {"table": "kinds"}, tmp_path / "snapshot")
    assert {column.name: column.type for column in made.columns} == {
        "tiny": "SMALLINT",
        "whole": "BIGINT",
        "big": "UBIGINT",
        "exact": "DECIMAL(20,4)",
        "single": "FLOAT",
        "dbl": "DOUBLE",
        "born": "DATE",
        "placed": "TIMESTAMP",
        "moment": "TIMESTAMP WITH TIME ZONE",
        **dict.fromkeys(("clock", "words", "note"), "VARCHAR"),
        "raw": "BLOB",
        **dict.fromkeys(("doc", "kind"), "VARCHAR"),
        "bits": "UBIGINT",
    }
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        parts = f"read_parquet('{tmp_path}/snapshot/*.parquet')"
        replaced = (
            "moment::VARCHAR AS moment, exact::VARCHAR AS exact, placed::VARCHAR AS placed, born::VARCHAR AS born"
        )
        rows = connection.execute(f"SELECT * REPLACE ({replaced}) FROM {parts} ORDER BY tiny").fetchall()
    assert rows[0][:6] == (-1, 2**32 - 1, 2**64 - 1, "1234567890123456.7891", 1.5, 0.1)
    assert rows[0][6:9] == ("2026-02-28", "2026-03-01 12:00:00.000001", "2026-03-01 10:00:00+00")
    assert rows[0][9:] == ("100:00:00", "ü", "", b"\x00\xff", '{"a": 1}', "b", 257)
    assert [value for value in rows[1] if value is not None] == ["bare"]


def test_the_version_is_that_of_the_rows(server, tmp_path):
    assert digest(server[0], table="orders") == digest(server[0], table="copy")
    run(server[0], "", {"query": "SELECT id FROM orders ORDER BY id DESC"}, tmp_path / "down")
    first = duckdb.sql(f"SELECT count(*), first(id) FROM read_parquet('{tmp_path}/down/*.parquet')").fetchall()
    assert first == [(25000, 25000)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"table": "nothing"}, "Table 'shop.nothing' doesn't exist"),
        ({"query": "SELECT wrong FROM orders"}, "Unknown column 'wrong'"),
        ({"query": "SELECT id FORM orders x"}, "near 'orders x' at line 1"),
        ({"query": "DROP TABLE orders"}, "would write to the database"),
        ({"query": "ANALYZE TABLE orders"}, "is no SELECT"),
        ({"query": "SELECT id FROM orders FOR UPDATE"}, "would write to the database"),
    ],
)
def test_a_wrong_query_is_one_sentence_and_changes_nothing(server, options, sentence):
    with pytest.raises(BadInput, match=sentence):
        digest(server[0], **options)


def test_login(server, monkeypatch):
    alice = server[0].replace("root@", "alice@")
    monkeypatch.setattr(sql, "TRIES", 1)
    monkeypatch.setenv("SLUICEWAY_DATABASE_PASSWORD", "wrong")
    with pytest.raises(Unreachable, match="Access denied for user 'alice'"):
        digest(alice, table="orders")
    monkeypatch.setenv("SLUICEWAY_DATABASE_PASSWORD", "right")
    assert digest(alice, table="orders")
    with pytest.raises(Unreachable, match="SELECT command denied"):
        digest(alice, table="kinds")
    monkeypatch.delenv("SLUICEWAY_DATABASE_PASSWORD")
    with pytest.raises(Unreachable, match="Unknown database 'absent'"):
        digest(server[0].replace("/shop", "/absent"), table="kinds")
    with pytest.raises(Unreachable, match="Can't connect"):
        digest("mysql://root@127.0.0.1:9/shop", table="kinds")


def test_a_server_that_goes_in_the_middle_is_one_sentence(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sql, "TRIES", 1)
    source = open_source(server[0], ReadOptions(query="SELECT a.id, b.note FROM orders a JOIN orders b ON b.id < 40"))
    with (
        pytest.raises(Unreachable, match=r"broke off .*Lost connection"),
        source._database.rows(source._query, False) as rows,
    ):
        next(rows.batches)
        with server[1].cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = 'shop' AND id <> connection_id()")
            for (found,) in cursor.fetchall():
                cursor.execute(f"KILL {found}")
        for _ in rows.batches:
            pass
