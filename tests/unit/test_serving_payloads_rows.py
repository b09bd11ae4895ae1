import datetime
import tempfile
import time

import duckdb
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.payloads.rows import Layout
from serving.payloads.settings import Settings
from serving.payloads.store import Store
from tests.payloads import AT, binary, exchange, numbers, v1_reply
from tests.serving_bundle import schema
from tests.serving_process import ROW


def parts(folder, exchanges, of, **more):
    """The rows that the store writes for exchanges with a model of one schema, as dictionaries."""
    layout = Layout(of, more.get("redact", ()), raw=more.get("raw", False))
    store = Store(Settings(store=f"file://{folder}", **more), lambda _: layout, lambda *_: None, print)
    for one in exchanges:
        store.offer(one)
    store.close(time.monotonic() + 60)
    found = duckdb.sql(f"FROM read_parquet('{folder}/**/*.parquet', hive_partitioning=false)").order("time, index")
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def test_a_row_has_its_request_its_typed_inputs_and_its_prediction(tmp_path):
    asked = exchange({"instances": [ROW, [1, 2, 3, 4, None, False]]}, v1_reply(0.75, 0.25))
    first, second = parts(tmp_path, [asked], schema())
    assert first == {
        "id": "a-1",
        "index": 0,
        "time": datetime.datetime(2023, 11, 14, 22, 13, 20, 250_000),
        "model": "ours",
        "revision": "r1",
        "protocol": "v1",
        "status": 200,
        "seconds": 0.002,
        **ROW,
        "label": "Yes",
        "probability_No": 0.25,
        "probability_Yes": 0.75,
    }
    assert (second["index"], second["size"], second["rough"], second["label"]) == (1, None, False, "No")


def test_every_form_of_a_request_makes_the_same_rows(tmp_path):
    of = numbers("a", "b")
    v2 = {
        "inputs": [
            {"name": name, "datatype": "FP64", "shape": [2], "data": [x, None]} for name, x in (("a", 1), ("b", 2))
        ]
    }
    bytes_in, head_in = binary([("a", "FP64", [2], [1, np.nan]), ("b", "INT64", [2], [2, 4])])
    probabilities = {"name": "probabilities", "datatype": "FP64", "shape": [2, 2]}
    told = orjson.dumps({"outputs": [{**probabilities, "parameters": {"binary_data_size": 32}}]})
    bytes_out = told + np.array([0.25, 0.75, 0.5, 0.5]).tobytes()
    heads = {"request_header_length": head_in, "reply_header_length": len(told)}
    json_reply = {
        "outputs": [
            {**probabilities, "data": [0.25, 0.75, 0.5, 0.5]},
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["Yes", "No"]},
        ]
    }
    exchanges = [
        exchange({"instances": [{"a": 1, "b": 2}, {"a": None, "b": 4}]}, v1_reply(0.75, 0.5)),
        exchange(v2, json_reply, protocol="v2", at=AT + 1),
        exchange(bytes_in, bytes_out, protocol="v2", **heads, at=AT + 2),
    ]
    rows = parts(tmp_path, exchanges, of)
    assert [(row["a"], row["b"]) for row in rows] == [(1, 2), (None, 4), (1, 2), (None, None), (1, 2), (None, 4)]
    assert [row["probability_Yes"] for row in rows] == [0.75, 0.5] * 3
    assert [row["label"] for row in rows] == ["Yes", "No", "Yes", "No", None, None]


def test_failed_requests_have_rows_and_unreadable_ones_a_single_one(tmp_path):
    exchanges = [
        exchange({"instances": [ROW, ROW]}, b'{"error": "full"}', status=503),
        exchange(b"{", b'{"error": "not JSON"}', status=400, at=AT + 1),
        exchange({"instances": []}, {"predictions": []}, at=AT + 2),
    ]
    rows = parts(tmp_path, exchanges, schema(), raw=True)
    assert [(row["status"], row["index"], row["mean_radius"], row["label"]) for row in rows] == [
        (503, 0, 14.2, None),
        (503, 1, 14.2, None),
        (400, 0, None, None),
    ]
    assert [row["request"] is not None for row in rows] == [True, False, True]
    assert [row["reply"] for row in rows] == [b'{"error": "full"}', None, b'{"error": "not JSON"}']


def test_values_of_a_regression_and_inputs_with_taken_names(tmp_path):
    of = numbers("id", "value", "Status", "x", "X", classes=())
    (row,) = parts(tmp_path, [exchange({"instances": [[1, 2, 3, 4, 5]]}, {"predictions": [6.5]})], of)
    names = ["input_id", "input_value", "input_Status", "x", "input_X", "value"]
    assert [row[name] for name in names] == [1, 2, 3, 4, 5, 6.5]


def test_many_exchanges_are_rolled_into_parts_and_none_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr("serving.payloads.store.MOST_ROWS", 700)
    exchanges = [exchange({"instances": [ROW]}, v1_reply(0.75), id=f"r{n}", at=AT + n) for n in range(1500)]
    rows = parts(tmp_path, exchanges, schema())
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(1500)]
    assert len(list(tmp_path.rglob("*.parquet"))) == 3
    assert [path for path in tmp_path.rglob("*") if "partial" in path.name] == []


def test_a_part_that_cannot_be_written_is_tried_again_and_then_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("serving.payloads.store._BACKOFF_SECONDS", 0.01)
    (tmp_path / "file").write_text("in the way")
    counted, said = [], []
    layout = Layout(schema(), (), raw=False)
    store = Store(
        Settings(store=f"file://{tmp_path}/file"), lambda _: layout, lambda *count: counted.append(count), said.append
    )
    store.offer(exchange({"instances": [ROW]}, v1_reply(0.75)))
    store.close(time.monotonic() + 60)
    assert counted == [("failed", 1)]
    assert len(said) == 6
    assert f"{tmp_path}/file" in said[0]


def test_another_bundle_under_the_same_revision_gets_a_part_of_its_own(tmp_path):
    layouts = {"one": Layout(numbers("a"), (), raw=False), "two": Layout(numbers("b"), (), raw=False)}
    store = Store(Settings(store=f"file://{tmp_path}"), lambda one: layouts[one.id], lambda *_: None, print)
    for name in ("one", "two"):
        store.offer(exchange({"instances": [{"a": 1, "b": 2}]}, v1_reply(0.75), id=name))
    store.close(time.monotonic() + 60)
    found = duckdb.sql(f"SELECT id, a, b FROM read_parquet('{tmp_path}/**/*.parquet', union_by_name=true) ORDER BY id")
    assert found.fetchall() == [("one", 1, None), ("two", None, 2)]


@pytest.mark.parametrize("name", ["a/b", "../up", "é x"])
def test_odd_names_stay_inside_the_store(tmp_path, name):
    rows = parts(tmp_path / "in", [exchange({"instances": [ROW]}, v1_reply(0.75), model=name, revision=name)], schema())
    assert (rows[0]["model"], rows[0]["revision"]) == (name, name)
    (path,) = tmp_path.rglob("*.parquet")
    assert len(path.relative_to(tmp_path / "in").parts) == 5


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=5), st.text(st.characters(max_codepoint=255)))
def test_any_text_comes_out_as_it_went_in(texts, request_id):
    with tempfile.TemporaryDirectory() as folder:
        asked = exchange({"instances": [{**ROW, "size": text} for text in texts]}, v1_reply(*[0.75] * len(texts)))
        asked.id = request_id
        rows = parts(folder, [asked], schema())
    assert [row["size"] for row in rows] == [text if text.strip() else None for text in texts]
    assert {row["id"] for row in rows} == {request_id}
