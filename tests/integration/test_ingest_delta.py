"""Delta tables as a source."""

import json

import duckdb
import pyarrow as pa
import pytest

from components.errors import BadInput
from components.ingest.resolve import resolve
from components.ingest.run import run

deltalake = pytest.importorskip("deltalake")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "sales"
    rows = {
        "id": list(range(10)),
        "year": [2025] * 5 + [2026] * 5,
        "tags": [["a", None]] * 10,
        "note": ["é"] * 9 + [None],
    }
    deltalake.write_deltalake(path, pa.table(rows), partition_by=["year"])
    return path


def overwrite(path):
    deltalake.write_deltalake(
        path, pa.table({"id": [99], "year": [2027], "tags": [["b"]], "note": ["new"]}), mode="overwrite"
    )


def test_the_version_that_was_resolved_is_read_after_an_overwrite(table, tmp_path):
    found = resolve(f"delta+file://{table}", {})
    assert found.uri == f"delta+file://{table}?version=0"
    overwrite(table)
    made = run(found.uri, found.version, {}, tmp_path / "s")
    assert [(column.name, column.type) for column in made.columns] == [
        ("id", "BIGINT"),
        ("year", "BIGINT"),
        ("tags", "VARCHAR[]"),
        ("note", "VARCHAR"),
    ]
    rows = duckdb.sql(f"SELECT * FROM read_parquet('{tmp_path}/s/*.parquet')").fetchall()
    assert rows[0] == (0, 2025, ["a", None], "é")
    assert [row[:2] for row in rows] == [(number, 2025 + number // 5) for number in range(10)]
    again = run(found.uri, found.version, {}, tmp_path / "again")
    assert again.parts[0].md5 == made.parts[0].md5
    newest = resolve(f"delta+file://{table}", {})
    assert newest.version != found.version
    assert newest.uri.endswith("?version=1")


def test_rows_that_were_deleted_are_not_read(table, tmp_path):
    deltalake.DeltaTable(table).delete("id < 4")
    assert run(f"delta+file://{table}", "", {}, tmp_path / "s").rows == 6


def test_a_version_whose_files_are_gone_is_named(table, tmp_path):
    found = resolve(f"delta+file://{table}", {})
    overwrite(table)
    deltalake.DeltaTable(table).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(BadInput, match="version 0: files of this version are gone, as after VACUUM"):
        run(found.uri, found.version, {}, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_what_is_wrong_is_one_sentence(table, tmp_path):
    for uri, sentence in (
        (f"delta+file://{tmp_path}/absent", "There is no Delta table at"),
        (f"delta+file://{table}?version=7", "has no version 7"),
        (f"delta+file://{table}?version=last", "write delta"),
    ):
        with pytest.raises(BadInput, match=sentence) as caught:
            resolve(uri, {})
        assert "\n" not in str(caught.value)
    features = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["new"], "writerFeatures": ["new"]}
    (table / "_delta_log" / f"{1:020}.json").write_text(json.dumps({"protocol": features}) + "\n")
    with pytest.raises(BadInput, match=r"does not know \(.*'new' is not supported"):
        resolve(f"delta+file://{table}", {})
