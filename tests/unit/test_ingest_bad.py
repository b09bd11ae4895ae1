"""What is wrong with a source is said in one sentence, and nothing half-written is left."""

import gzip
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import BadInput
from components.ingest.resolve import resolve
from components.ingest.run import run
from components.ingest.snapshot import Snapshot

ROWS = b"a,b\n" + b"".join(b"%d,text %d\n" % (i, i * 7919 % 1000) for i in range(60_000))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(source: Path | str, tmp_path: Path, **options: object) -> str:
    with pytest.raises(BadInput) as caught:
        run(str(source), "", options, tmp_path / "out" / "snapshot")
    assert not list((tmp_path / "out").glob("**/*")), "nothing half-written"
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def snap(source: Path, tmp_path: Path, **options: object) -> tuple[Snapshot, list[tuple[object, ...]]]:
    out = tmp_path / "out" / "snapshot"
    made = run(str(source), "", options, out)
    return made, duckdb.sql(f"FROM read_parquet('{out}/part-*.parquet', hive_partitioning = false)").fetchall()


def types(made: Snapshot) -> dict[str, str]:
    return {column.name: column.type for column in made.columns}


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def flipped(content: bytes, place: float, count: int = 2) -> bytes:
    start = int(len(content) * place)
    return content[:start] + bytes(byte ^ 255 for byte in content[start : start + count]) + content[start + count :]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv.gz", lambda: gzip.compress(ROWS)[:40_000], "is cut off: its gzip stream ends too early"),
        ("a.csv.gz", lambda: gzip.compress(ROWS)[:-8], "is cut off"),  # all rows are there, the checksum is not
        ("a.csv.gz", lambda: flipped(gzip.compress(ROWS), 0.5), "is damaged"),
        ("a.csv.gz", lambda: gzip.compress(ROWS)[:-8] + bytes(8), "is damaged"),  # DuckDB compares no checksum
        ("a.jsonl.gz", lambda: gzip.compress(b'{"a": 1}\n' * 90_000)[:-10], "is cut off"),
        ("a.csv.gz", lambda: ROWS, "not compressed as its suffix says"),
        ("a.csv.zst", lambda: zstd(ROWS)[:40_000], "is cut off: its zstd stream ends too early"),
        ("a.csv.zst", lambda: zstd(ROWS)[:-5], "is cut off"),  # for DuckDB, a shorter table
        ("a.jsonl.zst", lambda: zstd(b'{"a": 1}\n' * 90_000)[:-3], "is cut off"),
    ],
)
def test_packed_files_that_are_cut_off_or_damaged(tmp_path, name, content, says):
    message = refused(write(tmp_path / name, content()), tmp_path)
    assert message.startswith(name)
    assert says in message


def parquet(path: Path) -> bytes:
    noise = random.Random(1)
    words = [noise.randbytes(8).hex() for _ in range(30_000)]
    pq.write_table(pa.table({"n": range(30_000), "t": words}), path, compression="zstd", row_group_size=10_000)
    return path.read_bytes()


def _in_footer(whole: bytes) -> bytes:
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    return whole[:start] + bytes(40) + whole[start + 40 :]


@pytest.mark.parametrize(
    ("damaged", "says"),
    [
        (lambda whole: whole[: len(whole) // 2], "not a whole Parquet file"),
        (lambda whole: whole[:-60], "not a whole Parquet file"),
        (lambda whole: flipped(whole, 0.5, 4_000), "is damaged"),
        (lambda whole: _in_footer(whole), "is damaged"),
        (lambda whole: whole[:-8] + (2**31 - 1).to_bytes(4, "little") + whole[-4:], "a.parquet"),
        (lambda _whole: b"PAR1", "not a whole Parquet file"),
        (lambda _whole: b"", "a.parquet"),
    ],
)
def test_parquet_that_is_cut_off_or_damaged(tmp_path, damaged: Callable[[bytes], bytes], says):
    whole = parquet(tmp_path / "whole")
    message = refused(write(tmp_path / "a.parquet", damaged(whole)), tmp_path)
    assert message.startswith("a.parquet")
    assert says in message


def table(path: Path, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ({"a": [1]}, {"a": ["x"]}, "2.parquet has VARCHAR in column 'a', where the files before it, from 1.parquet on"),
        ({"a": [1]}, {"a": [1], "b": [2]}, "2.parquet has b in addition"),
        ({"a": [[1]]}, {"a": [["x"]]}, "2.parquet has VARCHAR[] in column 'a'"),
        ({"a": [1.5]}, {"a": [2**53 + 1]}, "Numbers in column 'a' are too long for the fractions"),
    ],
)
def test_typed_files_that_do_not_go_together(tmp_path, one, other, says):
    table(tmp_path / "d" / "1.parquet", **one)
    table(tmp_path / "d" / "2.parquet", **other)
    assert says in refused(tmp_path / "d", tmp_path)


def test_typed_files_that_go_together_are_widened_and_found_by_name(tmp_path):
    table(tmp_path / "d" / "1.parquet", a=pa.array([1], pa.int8()), b=pa.nulls(1), c=[1])
    table(tmp_path / "d" / "2.parquet", c=[2.5], b=["x"], a=pa.array([70_000], pa.uint32()))
    made, rows = snap(tmp_path / "d", tmp_path)
    assert types(made) == {"a": "BIGINT", "b": "VARCHAR", "c": "DOUBLE"}
    assert rows == [(1, None, 1.0), (70_000, "x", 2.5)]


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ("a,b\n1,2\n", "b,a\n1,2\n", "in another order or with another delimiter"),
        ("a,b\n1,2\n", "a;b\n1;2\n", "2.csv"),
        ("a,b\n1,2\n", "1,2\n3,4\n", "2.csv: its first line looks like data"),
        ("a,b\n1,2\n", "a,b\n1\n", "2.csv, line 2: 1 values where the header has 2 columns"),
    ],
)
def test_text_files_that_do_not_go_together(tmp_path, one, other, says):
    write(tmp_path / "d" / "1.csv", one)
    write(tmp_path / "d" / "2.csv", other)
    assert says in refused(tmp_path / "d", tmp_path)


def test_text_files_of_other_types_are_read_as_what_holds_both(tmp_path):
    write(tmp_path / "d" / "1.csv", "n,t,d,e\n1,1,2026-01-02,\n")
    write(tmp_path / "d" / "2.csv", "n,t,d,e\n2.5,007,2026-01-02 10:30:00,5\n")
    made, rows = snap(tmp_path / "d", tmp_path)
    assert types(made) == {"n": "DOUBLE", "t": "VARCHAR", "d": "TIMESTAMP", "e": "BIGINT"}
    assert [row[:2] for row in rows] == [(1.0, "1"), (2.5, "007")]


def test_dates_written_differently_in_two_files_stay_text(tmp_path):
    write(tmp_path / "d" / "1.csv", "d\n2026-01-02\n")
    write(tmp_path / "d" / "2.csv", "d\n31/12/2026\n")
    assert snap(tmp_path / "d", tmp_path)[1] == [("2026-01-02",), ("31/12/2026",)]


@pytest.mark.parametrize(
    ("usual", "late", "kind"),
    [
        ("1", "0x1F", "VARCHAR"),
        ("1", "1e2", "DOUBLE"),
        ("1", "1_000", "VARCHAR"),
        ("1", " 5", "BIGINT"),
        ("2026-01-02 10:30:00", "2026-01-02 10:30:00+02", "VARCHAR"),
        ("2026-01-02 10:30:00", "2026-1-1 1:30-02:00", "VARCHAR"),
        ("2026-01-02 10:30:00", "2026-01-02T10:30:00.25", "TIMESTAMP"),
        ("2026-01-02", "2026-1-2 1:00", "TIMESTAMP"),
        ("", "5", "VARCHAR"),
    ],
)
def test_a_late_value_is_not_altered_by_its_column_type(tmp_path, usual, late, kind):
    path = write(tmp_path / "late.csv", "a,b\n" + f"{usual},1\n" * 30_000 + f"{late},1\n")
    made, rows = snap(path, tmp_path)
    text = rows[-1][0]
    if types(made)["a"] == "VARCHAR":
        assert text == late
    else:
        assert types(made)["a"] == kind


@pytest.mark.parametrize(
    ("lines", "kinds", "last"),
    [
        (['{"a": 1}'] * 30_000 + ['{"a": 2.5}'], {"a": "DOUBLE"}, (2.5,)),
        (['{"a": 1}'] * 30_000 + ['{"a": "x"}'], {"a": "VARCHAR"}, ("x",)),
        (['{"a": 1}'] * 30_000 + ['{"a": 2, "late": true}'], {"a": "BIGINT", "late": "BOOLEAN"}, (2, True)),
        (['{"a": 1, "b": null}', "{}", '{"b": 3}'], {"a": "BIGINT", "b": "BIGINT"}, (None, 3)),
        (['{"a": 12345678901234567890}'], {"a": "VARCHAR"}, ("12345678901234567890",)),
        (['{"a": {"x": 1}}', '{"a": "t"}'], {"a": "VARCHAR"}, ("t",)),
        (['{"a": "2026-01-02"}', '{"a": "2026-01-02 10:30:00"}'], {"a": "VARCHAR"}, ("2026-01-02 10:30:00",)),
    ],
)
def test_json_lines_that_change_half_way_are_kept_exactly(tmp_path, lines, kinds, last):
    made, rows = snap(write(tmp_path / "a.jsonl", "\n".join(lines) + "\n"), tmp_path)
    assert types(made) == kinds
    assert rows[-1] == last


def test_json_lines_of_several_files_have_the_columns_of_all(tmp_path):
    write(tmp_path / "d" / "1.jsonl", '{"b": 1, "a": 1}\n')
    write(tmp_path / "d" / "2.jsonl", '{"z": "x", "c": 1.5, "a": 2.5}\n')
    made, rows = snap(tmp_path / "d", tmp_path)
    assert types(made) == {"b": "BIGINT", "a": "DOUBLE", "c": "DOUBLE", "z": "VARCHAR"}
    assert rows == [(1, 1.0, None, None), (None, 2.5, 1.5, "x")]


GOOD = '{"a": "x"}\n' * 30_000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (GOOD + '{"a":}\n', "a.jsonl, line 30001: not JSON"),
        (GOOD + '{"a": "cut', "a.jsonl, line 30001: not JSON"),
        (GOOD.encode() + b'{"a": "caf\xe9"}\n', "a.jsonl, line 30001: not UTF-8"),
        (GOOD + "[1, 2]\n", "a.jsonl, line 30001: not a JSON object"),
        (GOOD + '{"a": 1, "a": 2}\n', "the key 'a' occurs twice"),
        (GOOD + '{"a": "' + "x" * 40_000_000 + '"}\n', "longer than 16 MB"),
        ("1\n2\n", "a.jsonl, line 1: not a JSON object"),
    ],
)
def test_json_lines_that_are_none(tmp_path, content, says):
    assert says in refused(write(tmp_path / "a.jsonl", content), tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a,b\n" + b"1,x\n" * 30_000 + b"2,y\x00z\n", "has a NUL byte after"),
        (b"a\n" + b"1\n" * 40_000 + bytes(4_096), "has a NUL byte after 80,002 bytes"),
        ("a,b\n1,2\n".encode("utf-32"), "is UTF-32"),
        ("a,b\n1,2\n".encode("utf-16-be"), "binary"),
        (b"a,b\n1,x\r\n2,y\n3,z\r\n", "lines end in different ways"),
        (b"a,b\n1,x\n2," + b"y" * 3_000_000 + b"\n", "longer than 2 MB"),
        (b"caf\xe9,b\n1,2\n", "a.csv, line 1: not UTF-8"),
        (b"\xef\xbb\xbf", "is empty"),
        (b" \n\n", "is empty"),
    ],
)
def test_text_that_is_none(tmp_path, content, says):
    message = refused(write(tmp_path / "a.csv", content), tmp_path)
    assert message.startswith("a.csv")
    assert says in message


def test_lines_that_end_in_a_carriage_return_only_are_lines(tmp_path):
    assert snap(write(tmp_path / "a.csv", "a,b\r1,x\r2,y\r"), tmp_path)[1] == [(1, "x"), (2, "y")]


def test_utf_16_is_read_where_the_options_say_so(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\n1,é\n".encode("utf-16"))
    assert snap(path, tmp_path, encoding="utf-16")[1] == [(1, "é")]


def test_line_breaks_inside_quotes_are_kept_across_the_borders_of_buffers(tmp_path):
    noise = random.Random(3)
    texts = ["x" * noise.randrange(1, 60) + '\n,""\r\n' + "y" * noise.randrange(60) for _ in range(1_000)]
    lines = "".join(f'{index},"{text}",end\n' for index, text in enumerate(texts))
    repeats = 34 * 2**20 // len(lines) + 1  # DuckDB's buffers are of 32 MB
    path = write(tmp_path / "a.csv", "n,t,e\n" + lines * repeats)
    out = tmp_path / "out"
    made = run(str(path), "", {}, out)
    assert made.rows == 1_000 * repeats
    expected = repeats * sum(len(text.replace('""', '"')) for text in texts)
    found = duckdb.sql(f"SELECT sum(length(t)), sum(n), count(*) FILTER (e = 'end') FROM '{out}/part-*.parquet'")
    assert found.fetchall() == [(expected, repeats * 499_500, made.rows)]


def test_empty_files_among_full_ones_are_no_harm(tmp_path):
    for name, content in {"1.csv": "", "2.csv": "a,b\n", "3.csv": "a,b\n1,x\n", "4.csv": "\n"}.items():
        write(tmp_path / "d" / name, content)
    made, rows = snap(tmp_path / "d", tmp_path)
    assert (types(made), rows) == ({"a": "BIGINT", "b": "VARCHAR"}, [(1, "x")])
    assert [file.name for file in made.files] == ["1.csv", "2.csv", "3.csv", "4.csv"]


@pytest.mark.parametrize("contents", [["", ""], ["a\n", "a\n"], ["", "a\n"]])
def test_nothing_but_empty_files_is_refused(tmp_path, contents):
    for index, content in enumerate(contents):
        write(tmp_path / "d" / f"{index}.csv", content)
    assert "nothing can be learned" in refused(tmp_path / "d", tmp_path)


def test_a_file_put_in_the_place_of_another_while_it_is_read(tmp_path, monkeypatch):
    from components.ingest import making

    path = write(tmp_path / "a.csv", "a\n1\n")
    copy = making.write_parquet

    def disturbed(*given):
        times = path.stat()
        write(tmp_path / "other", "a\n2\n").replace(path)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        return copy(*given)

    monkeypatch.setattr(making, "write_parquet", disturbed)
    assert "changed while it was read" in refused(str(path), tmp_path)


def test_what_was_read_is_what_was_resolved(tmp_path):
    """The content is digested while it is read: a version that was resolved is compared with that."""
    path = write(tmp_path / "a.csv", "a\n1\n")
    version = resolve(str(path), {}).version
    made = run(str(path), version, {}, tmp_path / "out")
    assert made.version == version
    assert made.files[0].digest == resolve(str(path), {}).files[0].digest


def peak(source: Path, out: Path) -> tuple[int, str]:
    """Run in a process of its own; its peak memory in MB, and what it said."""
    program = (
        "import re, sys\nfrom pathlib import Path\nfrom components.errors import BadInput\n"
        "from components.ingest.run import run\n"
        "try:\n    print(len(run(sys.argv[1], '', {}, Path(sys.argv[2])).columns))\n"
        "except BadInput as error:\n    print(error)\n"
        # getrusage would tell the peak of the process that this one was forked from.
        "print(re.search('VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, source, out], capture_output=True, text=True, check=True, timeout=300
    )
    said, used = ended.stdout.strip().splitlines()
    return int(used) // 1_000, said


def test_a_line_of_a_gigabyte_fails_at_once_and_in_little_memory(tmp_path):
    packer = zlib.compressobj(1, wbits=31)
    block = b"x" * 2**20
    with (tmp_path / "a.csv.gz").open("wb") as stream:
        stream.write(packer.compress(b"a,b\n1,"))
        for _ in range(64):
            stream.write(packer.compress(block))
        stream.write(packer.flush())
    memory, said = peak(tmp_path / "a.csv.gz", tmp_path / "out")
    assert "longer than" in said
    assert memory < 700
    with (tmp_path / "b.csv").open("wb") as stream:  # a file with a hole, of no size on the disk
        stream.write(b"x" * 5_000_000)
        stream.truncate(2**30)
    assert "b.csv, line 1: a line is longer than 2 MB" in refused(tmp_path / "b.csv", tmp_path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_ten_thousand_columns(tmp_path, kind):
    names = [f"c{index}" for index in range(10_000)]
    path = tmp_path / f"wide.{kind}"
    if kind == "csv":
        write(path, ",".join(names) + "\n" + (",".join(["1"] * 10_000) + "\n") * 5)
    else:
        pq.write_table(pa.table({name: [1] * 5 for name in names}), path)
    memory, said = peak(path, tmp_path / "out")
    assert said == "10000"
    assert memory < 1_500


def test_many_keys_are_columns(tmp_path):
    line = "{" + ", ".join(f'"c{index}": {index}' for index in range(500)) + "}\n"
    made, rows = snap(write(tmp_path / "a.jsonl", line), tmp_path)
    assert (len(made.columns), rows) == (500, [tuple(range(500))])


def test_nothing_is_left_open(tmp_path):
    """A long-lived process can ingest again and again."""
    path = write(tmp_path / "a.csv", "a\n1\n")
    run(str(path), "", {}, tmp_path / "out")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        run(str(path), "", {}, tmp_path / "out")
        refused(write(tmp_path / "b.csv", "a,b\n1,2\n3\n"), tmp_path / "bad")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
