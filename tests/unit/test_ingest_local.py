"""Local files become snapshots; bad ones are refused in one sentence."""

import datetime
import gzip
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from components.errors import BadInput
from components.ingest.resolve import resolve
from components.ingest.run import run
from components.ingest.snapshot import Snapshot, read


def snap(source: Path | str, tmp_path: Path, **options: object) -> tuple[Snapshot, list[tuple[object, ...]]]:
    out = tmp_path / "out" / "snapshot"
    made = run(str(source), "", options, out)
    rows = duckdb.sql(f"FROM read_parquet('{out}/part-*.parquet')").fetchall()
    return made, rows


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(source: Path | str, tmp_path: Path, **options: object) -> str:
    with pytest.raises(BadInput) as caught:
        run(str(source), "", options, tmp_path / "out" / "snapshot")
    assert not list((tmp_path / "out").glob("**/*")), "nothing half-written"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_csv_keeps_its_order_labels_blanks_and_leading_zeros(tmp_path):
    path = write(tmp_path / "a.csv", 'zip,label,charge,n\n00123,Yes,29.5,2\n04567,No, ,1\n00009,Yes,7,\n"1,5",No,8,4\n')
    made, rows = snap(path, tmp_path)
    assert [(c.name, c.type, c.nulls) for c in made.columns] == [
        ("zip", "VARCHAR", 0),
        ("label", "VARCHAR", 0),
        ("charge", "VARCHAR", 0),
        ("n", "BIGINT", 1),
    ]
    assert rows == [
        ("00123", "Yes", "29.5", 2),
        ("04567", "No", " ", 1),
        ("00009", "Yes", "7", None),
        ("1,5", "No", "8", 4),
    ]
    assert read(tmp_path / "out" / "snapshot") == made
    assert (made.rows, made.parts[0].rows) == (4, 4)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.tsv", "a\tb\n1\tx\n2\ty\n"),
        ("t.csv", "a;b\n1;x\n2;y\n"),
        ("t.csv", b"\xef\xbb\xbfa,b\r\n1,x\r\n2,y\r\n"),
        ("t.jsonl", '{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n'),
        ("t.csv.gz", gzip.compress(b"a,b\n1,x\n2,y\n", mtime=0)),
    ],
)
def test_every_text_format_gives_the_same_table(tmp_path, name, content):
    made, rows = snap(write(tmp_path / name, content), tmp_path)
    assert rows == [(1, "x"), (2, "y")]
    assert [c.name for c in made.columns] == ["a", "b"]


def test_parquet_comes_through_with_its_types(tmp_path):
    path = tmp_path / "t.parquet"
    duckdb.execute(
        f"COPY (SELECT 1::UTINYINT AS a, DATE '2026-01-02' AS d, [1, 2] AS l) TO '{path}' (FORMAT parquet)"
    ).fetchall()
    made, _ = snap(path, tmp_path)
    assert [(c.name, c.type) for c in made.columns] == [("a", "UTINYINT"), ("d", "DATE"), ("l", "INTEGER[]")]


def test_a_folder_and_a_glob_are_read_in_name_order_and_hidden_files_left_out(tmp_path):
    for index in (2, 0, 1):
        write(tmp_path / "d" / f"p{index}.csv", f"a\n{index}\n")
    write(tmp_path / "d" / "_SUCCESS", "")
    write(tmp_path / "d" / ".hidden.csv", "b\n9\n")
    folder, rows = snap(tmp_path / "d", tmp_path)
    assert rows == [(0,), (1,), (2,)]
    globbed, _ = snap(f"file://{tmp_path}/d/p?.csv", tmp_path)
    assert globbed.version == folder.version


def test_partition_folders_become_columns(tmp_path):
    write(tmp_path / "above=1" / "d" / "year=2025" / "x.csv", "a\n1\n")
    write(tmp_path / "above=1" / "d" / "year=2026" / "x.csv", "a\n2\n")
    made, rows = snap(tmp_path / "above=1" / "d", tmp_path)
    assert [c.name for c in made.columns] == ["a", "year"]
    assert rows == [(1, 2025), (2, 2026)]


def test_the_version_is_of_content_and_options_and_not_of_the_path(tmp_path):
    one = resolve(str(write(tmp_path / "x" / "one.csv", "a,b\n1,2\n")), {})
    same = resolve(str(write(tmp_path / "y" / "two.csv", "a,b\n1,2\n")), {})
    other = resolve(str(write(tmp_path / "z" / "one.csv", "a,b\n1,3\n")), {})
    optioned = resolve(str(tmp_path / "x" / "one.csv"), {"null_values": ["2"]})
    assert one.version == same.version
    assert len({one.version, other.version, optioned.version}) == 3


def test_the_parquet_bytes_are_the_same_when_made_again(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\n" + "".join(f"{i},x{i % 7}\n" for i in range(300_000)))
    first = run(str(path), "", {}, tmp_path / "1")
    second = run(str(path), "", {}, tmp_path / "2")
    assert first.parts == second.parts


@pytest.mark.parametrize(
    ("usual", "late", "kind", "value"),
    [
        ("1", "2.5", "DOUBLE", 2.5),  # DuckDB alone would make it 3
        ("1", "007", "VARCHAR", "007"),
        ("1", "9007199254740993", "BIGINT", 9007199254740993),
        ("1", "n/a", "VARCHAR", "n/a"),
        ("2026-01-02", "2026-01-02 10:30:00", "TIMESTAMP", datetime.datetime(2026, 1, 2, 10, 30)),
        ("31/12/2026", "soon", "VARCHAR", "soon"),
    ],
)
def test_a_late_value_of_another_kind_is_kept_exactly(tmp_path, usual, late, kind, value):
    path = write(tmp_path / "late.csv", "a,b\n" + f"{usual},1\n" * 30_000 + f"{late},1\n")
    made, rows = snap(path, tmp_path)
    assert made.columns[0].type == kind
    assert rows[-1] == (value, 1)


def test_numbers_too_long_for_any_type_stay_text(tmp_path):
    _, rows = snap(write(tmp_path / "a.csv", "card\n12345678901234567890\n1\n"), tmp_path)
    assert rows == [("12345678901234567890",), ("1",)]


def test_options_describe_a_file_without_header(tmp_path):
    path = write(tmp_path / "r.tsv", "196\t242\tNA\n186\t302\t3\n")
    made, rows = snap(path, tmp_path, header=False, names=["user", "item", "rating"], null_values=["NA"])
    assert rows == [(196, 242, None), (186, 302, 3)]
    assert made.options == {"header": False, "names": ["user", "item", "rating"], "null_values": ["NA"]}


def test_a_source_that_changed_since_it_was_resolved_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", "a\n1\n")
    version = resolve(str(path), {}).version
    write(path, "a\n2\n")
    with pytest.raises(BadInput, match="changed between resolve"):
        run(str(path), version, {}, tmp_path / "out")


def test_a_file_written_to_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", "a\n1\n")
    from components.ingest import making as module

    copy = module.write_parquet

    def disturbed(*arguments):
        rows = copy(*arguments)
        path.write_text("a\n1\n2\n")
        return rows

    monkeypatch.setattr(module, "write_parquet", disturbed)
    assert "changed while it was read" in refused(path, tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "nope.csv", tmp_path)


def test_a_glob_that_matches_nothing_is_refused(tmp_path):
    assert "No file matches" in refused(tmp_path / "*.csv", tmp_path)


def test_an_unknown_scheme_and_an_unknown_built_in_set_are_refused(tmp_path):
    assert "no source reads ftp://" in refused("ftp://host/x.csv", tmp_path)
    assert "breast_cancer, wine, digits, diabetes" in refused("sklearn://iris", tmp_path)


def test_unknown_options_are_refused_with_the_known_ones(tmp_path):
    message = refused(write(tmp_path / "a.csv", "a\n1\n"), tmp_path, seperator=";")
    assert "'seperator'" in message
    assert "delimiter" in message


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("e.csv", "", "is empty"),
        ("h.csv", "a,b\n", "column names and no rows"),
        ("b.csv", bytes(range(256)) * 4, "binary"),
        ("p.csv", b"PAR1rest", "looks like Parquet"),
        ("u.csv", b"a,b\n1,x\n2,caf\xe9\n", "u.csv, line 3: not UTF-8"),
        ("m.csv", b"a,b\n" + b"1,\xc3\xa9\n" * 700_000 + b"2,\xe9\n", "m.csv, line 700002: not UTF-8"),
        ("w.csv", "a,b\n1,2\n".encode("utf-16"), "is UTF-16"),
        ("d.csv", "a,b,a\n1,2,3\n", "column 'a' occurs twice"),
        ("c.csv", "a,b,A\n1,2,3\n", "case is not told apart"),
        ("j.jsonl", '{"a": 1, "A": 2}\n', "occurs twice"),
        ("j.jsonl", '[{"a": 1},\n{"a": 2}]\n', "j.jsonl, line 1"),
        ("r.csv", "a,b,c\n1,2,3\n4,5\n6,7,8,9\n", "r.csv, line 3: 2 values where the header has 3"),
        ("l.csv", "a,b\n" + "1,2\n" * 50_000 + "1,2,3\n", "l.csv, line 50002: 3 values"),
        ("q.csv", 'a,b\n1,"x\n2,y\n', "q.csv, line 2: a quoted value"),
        ("n.csv", "196,242\n186,302\n", "looks like data"),
        ("z.csv.gz", gzip.compress(os.urandom(50_000))[:20_000], "cut off"),
        ("t.parquet", b"PAR1 not really", "not a whole Parquet file"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, name, content, says):
    assert says in refused(write(tmp_path / name, content), tmp_path)


def test_files_with_other_columns_are_refused_with_the_difference(tmp_path):
    write(tmp_path / "d" / "1.csv", "a,b\n1,2\n")
    write(tmp_path / "d" / "2.csv", "a,c\n1,2\n")
    assert "2.csv lacks b and has c in addition" in refused(tmp_path / "d", tmp_path)


FILLING = """
import resource, signal, sys
from pathlib import Path
from components.errors import StorageFull
from components.ingest.run import run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    run(sys.argv[1], "", {}, Path(sys.argv[2]))
except StorageFull as error:
    print(error)
"""


def test_a_disk_that_fills_ends_in_one_sentence_and_the_old_snapshot_stays(tmp_path):
    out = tmp_path / "out" / "snapshot"
    old = run(str(write(tmp_path / "old.csv", "a\n1\n")), "", {}, out)
    lines = "".join(f"{i},{os.urandom(8).hex()}\n" for i in range(40_000))
    path = write(tmp_path / "big.csv", "a,b\n" + lines)
    ended = subprocess.run([sys.executable, "-c", FILLING, path, out], capture_output=True, text=True, check=True)
    assert "No space left while writing" in ended.stdout
    assert read(out) == old
    assert [entry.name for entry in out.parent.iterdir()] == ["snapshot"]
