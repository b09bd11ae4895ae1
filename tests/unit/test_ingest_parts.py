"""Sources of several files: parts, and what later runs take over."""

import shutil
from pathlib import Path

import duckdb
import pytest

from components.errors import BadInput
from components.ingest import earlier, groups
from components.ingest.groups import groups as cut
from components.ingest.run import run
from components.ingest.snapshot import FILE, Snapshot
from components.ingest.sources import SourceFile


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    """A part is made of 100 bytes of source, so that parts need no gigabytes."""
    monkeypatch.setattr(groups, "PART", 100)
    monkeypatch.setattr(earlier, "LEAD", 50)
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path / "home"))


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def days(folder: Path, *numbers: int, value: str = "1.5", rows: int = 12) -> Path:
    for number in numbers:
        write(folder / f"day-{number:02d}.csv", "day,value\n" + f"{number},{value}\n" * rows)
    return folder


class Told:
    """Lines of progress."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)


def made(source: Path | str, out: Path, **options: object) -> tuple[Snapshot, list[str]]:
    told = Told()
    return run(str(source), "", options, out, "sales", told), told.lines


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def rows_of(folder: Path) -> list[tuple[object, ...]]:
    return duckdb.sql(f"FROM read_parquet('{folder}/part-*.parquet', hive_partitioning = false)").fetchall()


def listed(*names: str, size: int = 40) -> list[SourceFile]:
    return [SourceFile(name, f"sha256:{name}", size) for name in names]


def names(parts):
    return [[file.name for file in part] for part in parts]


def test_files_fill_parts_in_their_order():
    assert names(cut(listed("a", "b", "c", "d", "e", "f", "g"))) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert names(cut(listed("a", "b"))) == [["a", "b"]]
    assert cut([]) == []


def test_a_file_in_one_folder_leaves_the_parts_of_the_others_as_they_are():
    before = listed(*(f"region={region}/day={day}/x.csv" for region in "abc" for day in range(4)))
    after = sorted([*before, *listed("region=a/day=4/x.csv")], key=lambda file: file.name)
    changed = set(cut(after)) - set(cut(before))
    assert names(changed) == [["region=a/day=3/x.csv", "region=a/day=4/x.csv"]]


def test_a_folder_larger_than_a_part_shares_none_with_its_neighbours():
    parts = names(cut(listed("a/1", "b/1", "b/2", "b/3", "b/4", "c/1", "c/2")))
    assert parts == [["a/1"], ["b/1", "b/2", "b/3"], ["b/4"], ["c/1", "c/2"]]


def test_a_snapshot_of_several_parts_has_the_rows_in_order(tmp_path):
    snapshot, _ = made(days(tmp_path / "d", *range(7)), tmp_path / "out")
    assert [part.rows for part in snapshot.parts] == [24, 24, 24, 12]
    assert [row[0] for row in rows_of(tmp_path / "out")] == [day for day in range(7) for _ in range(12)]
    assert len({part.origin for part in snapshot.parts}) == 4


def test_only_new_files_are_read_and_the_outcome_is_the_same(tmp_path, monkeypatch):
    source = days(tmp_path / "d", *range(4))
    first, told = made(source, tmp_path / "1")
    assert told == []
    days(source, 4, 5)
    read = []
    from components.ingest.sources.local import LocalSource

    fetch = LocalSource.fetch
    monkeypatch.setattr(LocalSource, "fetch", lambda *given: read.extend(given[1]) or fetch(*given))
    second, told = made(source, tmp_path / "2")
    assert [file.name for file in read] == ["day-04.csv", "day-05.csv"]
    assert told == [f"4 of 6 files unchanged, taken from version {first.version[:12]}; the others are read."]
    assert second.reused.model_dump() == {"version": first.version, "files": 4}
    scratch = run(str(source), "", {}, tmp_path / "3")
    assert second.version == scratch.version
    assert bytes_of(tmp_path / "2") == bytes_of(tmp_path / "3")
    assert second.model_copy(update={"reused": None}) == scratch


def test_a_changed_file_is_read_again(tmp_path):
    source = days(tmp_path / "d", *range(6))
    made(source, tmp_path / "1")
    days(source, 3, value="9.5")
    _, told = made(source, tmp_path / "2")
    assert "4 of 6 files unchanged" in told[0]
    assert (3, 9.5) in rows_of(tmp_path / "2")
    assert bytes_of(tmp_path / "2") == bytes_of(_scratch(source, tmp_path))


def test_a_source_that_has_not_changed_is_not_read_at_all(tmp_path):
    source = days(tmp_path / "d", *range(4))
    first, _ = made(source, tmp_path / "1")
    again, told = made(source, tmp_path / "2")
    assert "4 of 4 files unchanged" in told[0]
    assert (again.version, again.parts) == (first.version, first.parts)


@pytest.mark.parametrize(
    ("value", "says", "kind"),
    [
        ("soon", "day-04.csv needs VARCHAR in column 'value', which was DOUBLE", "VARCHAR"),
        ("1.5\n7,1.5\n9,x", "needs VARCHAR", "VARCHAR"),
    ],
)
def test_a_new_file_that_widens_a_type_has_everything_read_again(tmp_path, value, says, kind):
    source = days(tmp_path / "d", *range(4))
    made(source, tmp_path / "1")
    days(source, 4, value=value)
    snapshot, told = made(source, tmp_path / "2")
    assert says in told[1]
    assert {column.name: column.type for column in snapshot.columns}["value"] == kind
    assert snapshot.reused is None
    assert bytes_of(tmp_path / "2") == bytes_of(_scratch(source, tmp_path))


def test_a_late_value_in_a_new_file_has_everything_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr("components.ingest.reader._SAMPLE", 5)
    source = days(tmp_path / "d", *range(4), value="1")
    made(source, tmp_path / "1")
    write(source / "day-04.csv", "day,value\n" + "4,1\n" * 3_000 + "4,2.5\n")
    _, told = made(source, tmp_path / "2")
    assert "all values are looked at" in told[-1]
    assert rows_of(tmp_path / "2")[-1] == (4, 2.5)
    assert bytes_of(tmp_path / "2") == bytes_of(_scratch(source, tmp_path))
    days(source, 5, value="3")
    grown, told = made(source, tmp_path / "3")
    assert "5 of 6 files unchanged" in told[0]
    assert grown.reading.thorough
    assert bytes_of(tmp_path / "3") == bytes_of(_scratch(source, tmp_path))


def test_a_changed_first_file_has_everything_read_again(tmp_path):
    source = days(tmp_path / "d", *range(4))
    made(source, tmp_path / "1")
    days(source, 0, value="4.5")
    snapshot, told = made(source, tmp_path / "2")
    assert (snapshot.reused, told) == (None, [])


def test_other_options_take_nothing_over(tmp_path):
    source = days(tmp_path / "d", *range(4))
    made(source, tmp_path / "1")
    snapshot, _ = made(source, tmp_path / "2", types={"day": "VARCHAR"})
    assert snapshot.reused is None


def test_a_part_that_the_remote_has_lost_is_read_again(tmp_path):
    source = days(tmp_path / "d", *range(4))
    made(source, tmp_path / "1")
    shutil.rmtree(tmp_path / "home" / "store" / "dvc")
    snapshot, _ = made(source, tmp_path / "2")
    assert snapshot.reused is None
    assert len(rows_of(tmp_path / "2")) == 48


def test_personal_data_is_treated_alike_in_all_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_HASH_KEY", "k" * 32)
    options = {"personal_data": {"policy": "hash"}}
    source = tmp_path / "d"
    for day in range(3):
        write(source / f"{day}.csv", "mail,n\n" + "".join(f"user{day}{i}@example.com,{i}\n" for i in range(12)))
    first, _ = made(source, tmp_path / "1", **options)
    assert [(one.column, one.policy) for one in first.personal] == [("mail", "hash")]
    write(source / "3.csv", "mail,n\n" + "nobody,1\n" * 12)
    second, told = made(source, tmp_path / "2", **options)
    assert "3 of 4 files" in told[0]
    scratch = run(str(source), "", options, tmp_path / "3")
    assert bytes_of(tmp_path / "2") == bytes_of(tmp_path / "3")
    assert second.personal == scratch.personal
    assert b"example.com" not in b"".join(bytes_of(tmp_path / "2").values())


def test_folders_make_columns_of_one_type_in_all_parts(tmp_path):
    for key in ("7", "08", "a%20b", "__HIVE_DEFAULT_PARTITION__"):
        write(tmp_path / "d" / f"k={key}" / "x.csv", "a\n" + "1\n" * 60)
    snapshot, _ = made(tmp_path / "d", tmp_path / "out")
    assert len(snapshot.parts) == 4
    assert [(one.name, one.type, one.nulls) for one in snapshot.columns] == [
        ("a", "BIGINT", 0),
        ("k", "VARCHAR", 60),
    ]
    assert {row[1] for row in rows_of(tmp_path / "out")} == {"7", "08", "a b", None}


def test_folders_of_numbers_and_of_dates_are_typed(tmp_path):
    write(tmp_path / "d" / "year=2026" / "day=2026-01-02" / "x.jsonl", '{"a": 1}\n')
    write(tmp_path / "d" / "year=2027" / "day=__HIVE_DEFAULT_PARTITION__" / "x.jsonl", '{"a": 2}\n')
    snapshot, _ = made(tmp_path / "d", tmp_path / "out")
    assert [(one.name, one.type) for one in snapshot.columns] == [("a", "BIGINT"), ("year", "BIGINT"), ("day", "DATE")]


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ("year=2026/x.csv", "x.csv", "lie in folders of different columns"),
        ("a=1/x.csv", "a=2/x.csv", "column 'a' is in the file, and its folder a=… says it again"),
    ],
)
def test_folders_that_make_no_sense_are_refused(tmp_path, one, other, says):
    for name in (one, other):
        write(tmp_path / "d" / name, "a\n1\n")
    with pytest.raises(BadInput, match=says):
        run(str(tmp_path / "d"), "", {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_packed_differently_are_one_table(tmp_path):
    import gzip

    import pyarrow as pa

    folder = tmp_path / "d"
    write(folder / "1.csv", "a\n1\n")
    (folder / "2.csv.gz").write_bytes(gzip.compress(b"a\n2\n"))
    (folder / "3.csv.zst").write_bytes(pa.compress(b"a\n3\n", codec="zstd", asbytes=True))
    made(folder, tmp_path / "out")
    assert rows_of(tmp_path / "out") == [(1,), (2,), (3,)]


def test_copies_of_what_was_read_are_deleted(tmp_path, monkeypatch):
    from components.ingest import making
    from components.ingest.sources.local import LocalSource

    def copied(self, files, folder):
        for file in files:
            shutil.copy(self._root / file.name, folder / file.name)
        return [folder / file.name for file in files]

    monkeypatch.setattr(LocalSource, "fetch", copied)
    most = 0
    copy = making.write_parquet

    def watched(*given):
        nonlocal most
        most = max(most, len(list(tmp_path.glob(".fetched-*/*/*"))))
        return copy(*given)

    monkeypatch.setattr(making, "write_parquet", watched)
    source = days(tmp_path / "d", *range(10))
    made(source, tmp_path / "out")
    assert 2 <= most <= 4, "two files a part, and the next part's are fetched meanwhile"
    assert len(rows_of(tmp_path / "out")) == 120
    days(source, 9, value="x")
    shutil.rmtree(tmp_path / "home")
    _, told = made(source, tmp_path / "out")
    assert "day-08.csv needs VARCHAR" in told[0]
    assert bytes_of(tmp_path / "out") == bytes_of(_scratch(source, tmp_path))
    assert (tmp_path / "out" / FILE).exists()


def _scratch(source: Path, tmp_path: Path) -> Path:
    run(str(source), "", {}, tmp_path / "scratch")
    return tmp_path / "scratch"
