"""Avro files become Parquet."""

import datetime
import decimal
import gzip
import random
import uuid

import duckdb
import fastavro
import pyarrow.parquet as pq
import pytest

from components.errors import BadInput
from components.ingest.avro import to_parquet
from components.ingest.resolve import resolve
from components.ingest.run import run

MOMENT = datetime.datetime(2026, 3, 1, 8, 0, 0, 123000, tzinfo=datetime.UTC)
ID = uuid.UUID(int=7)


def logical(kind, name, **more):
    return {"type": kind, "logicalType": name, **more}


def record(name, **types):
    return {"type": "record", "name": name, "fields": [{"name": field, "type": kind} for field, kind in types.items()]}


def written(path, schema, records, codec="null"):
    with path.open("wb") as stream:
        fastavro.writer(stream, schema, records, codec=codec)
    return path


def converted(tmp_path, schema, records, codec="null"):
    return to_parquet(written(tmp_path / "a.avro", schema, records, codec), "a.avro", tmp_path / "a.parquet")


def test_types_come_through(tmp_path):
    point = record("shop.point", x="double", tags={"type": "map", "values": ["null", logical("string", "uuid")]})
    schema = record(
        "row",
        id="long",
        small="int",
        ratio="float",
        yes="boolean",
        raw="bytes",
        code={"type": "fixed", "name": "code", "size": 2},
        kind={"type": "enum", "name": "kind", "symbols": ["a", "b"]},
        note=["null", "string"],
        price=logical("bytes", "decimal", precision=20, scale=4),
        born=logical("int", "date"),
        clock=logical("long", "time-micros"),
        moment=logical("long", "timestamp-millis"),
        there=["null", point],
        back=["null", "shop.point"],
        many={"type": "array", "items": ["null", "int"]},
        number=["null", "int", "double"],
        mixed=["null", "int", "string", {"type": "array", "items": "int"}],
    )
    full = {
        "id": 2**62,
        "small": -1,
        "ratio": 1.5,
        "yes": True,
        "raw": b"\x00\xff",
        "code": b"ab",
        "kind": "b",
        "note": "ü",
        "price": decimal.Decimal("1234567890123456.7891"),
        "born": datetime.date(2026, 2, 28),
        "clock": datetime.time(23, 59, 59, 1),
        "moment": MOMENT,
        "there": {"x": 0.5, "tags": {"k": ID, "none": None}},
        "back": None,
        "many": [1, None],
        "number": 3,
        "mixed": [1, 2],
    }
    bare = {**full, "note": None, "there": None, "back": {"x": 1.0, "tags": {}}, "number": None, "mixed": "text"}
    table = pq.read_table(converted(tmp_path, schema, [full, bare]))
    assert [str(kind) for kind in table.schema.types] == [
        *(
            "int64",
            "int32",
            "float",
            "bool",
            "binary",
            "binary",
            "string",
            "string",
            "decimal128(20, 4)",
            "date32[day]",
        ),
        *("time64[us]", "timestamp[us, tz=UTC]", "struct<x: double, tags: map<string, string ('tags')>>"),
        *("struct<x: double, tags: map<string, string ('tags')>>", "list<element: int32>", "double", "string"),
    ]
    first, second = table.to_pylist()
    assert first == {**full, "there": {"x": 0.5, "tags": [("k", str(ID)), ("none", None)]}, "mixed": "[1, 2]"}
    assert second == {**bare, "back": {"x": 1.0, "tags": []}}


@pytest.mark.parametrize("codec", ["deflate", "snappy", "zstandard", "bzip2", "xz"])
def test_compressed_blocks(tmp_path, codec):
    records = [{"id": number, "note": f"note {number}"} for number in range(20_000)]
    path = converted(tmp_path, record("row", id="long", note="string"), records, codec)
    assert duckdb.sql(f"SELECT count(*), sum(id), max(note) FROM '{path}'").fetchall() == [
        (20_000, 199_990_000, "note 9999")
    ]


def complaint(folder):
    try:
        to_parquet(folder / "bad.avro", "in/bad.avro", folder / "bad.parquet")
    except BadInput as error:
        return str(error)
    return None


def test_a_file_that_is_cut_off_or_damaged_is_named_and_leaves_nothing(tmp_path):
    schema = record("row", id="long", note="string", price=logical("bytes", "decimal", precision=5, scale=2))
    records = [{"id": number, "note": f"é {number}", "price": decimal.Decimal("1.25")} for number in range(3000)]
    for codec in ("null", "deflate", "snappy", "xz"):
        whole = written(tmp_path / "whole.avro", schema, records, codec).read_bytes()
        chance = random.Random(7)
        damaged = [whole[: len(whole) - 5], whole[: len(whole) // 2], whole[:100], b"", b"id,note\n1,x\n" * 50]
        for _ in range(15):
            place = chance.randrange(0, len(whole) - 8)
            damaged.append(whole[:place] + chance.randbytes(8) + whole[place + 8 :])
        told = 0
        for content in damaged:
            (tmp_path / "bad.avro").write_bytes(content)
            said = complaint(tmp_path)
            assert said is None or said.startswith("in/bad.avro")
            assert (tmp_path / "bad.parquet").exists() == (said is None)
            told += said is not None
            (tmp_path / "bad.parquet").unlink(missing_ok=True)
        assert told >= 5 + (10 if codec != "null" else 3)  # changed numbers are numbers, where nothing checks them


@pytest.mark.parametrize(
    ("schema", "records", "sentence"),
    [
        ("long", [1], "its schema is not a record"),
        (record("node", id="int", next=["null", "node"]), [{"id": 1, "next": None}], "the type node refers to itself"),
    ],
)
def test_a_schema_that_is_no_table_is_refused(tmp_path, schema, records, sentence):
    with pytest.raises(BadInput, match=rf"a.avro: .*{sentence}"):
        converted(tmp_path, schema, records)


def test_a_partitioned_folder_of_avro_files_becomes_a_snapshot(tmp_path):
    schema = record("row", id="long", note=["null", "string"])
    for year in (2025, 2026):
        folder = tmp_path / "in" / f"year={year}"
        folder.mkdir(parents=True)
        written(folder / "a.avro", schema, [{"id": year, "note": None}, {"id": 2, "note": "x"}])
    packed = tmp_path / "in" / "year=2026" / "b.avro.gz"
    packed.write_bytes(gzip.compress((tmp_path / "in" / "year=2026" / "a.avro").read_bytes()))
    uri = str(tmp_path / "in")
    made = run(uri, resolve(uri, {}).version, {}, tmp_path / "s")
    assert [column.name for column in made.columns] == ["id", "note", "year"]
    assert duckdb.sql(f"SELECT sum(id), sum(year) FROM read_parquet('{tmp_path}/s/*.parquet')").fetchall() == [
        (2025 + 2 * 2026 + 6, 2 * 2025 + 4 * 2026)
    ]
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(BadInput, match=r"b.avro.gz"):
        run(uri, "", {}, tmp_path / "t")
    assert not (tmp_path / "t").exists()
