"""Offline features, computed over a snapshot, equal online ones, computed from a request."""

import datetime
import math
from functools import lru_cache
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.features.encodings import bucket, looked_up
from components.features.expressions import derive, feature_of, parsed
from components.features.rowwise import compile_rows
from components.features.schema import Encoding, FeatureColumn, FeatureSchema, InputColumn
from components.ingest.engine import sql, table
from serving.inputs import coerce

INPUTS = (
    InputColumn(name="a", type="number"),
    InputColumn(name="b", type="number"),
    InputColumn(name="s", type="string"),
    InputColumn(name="n", type="number"),  # numbers stored as text, as telco's TotalCharges are
    InputColumn(name="t", type="boolean"),
    InputColumn(name="d", type="timestamp"),
)
DERIVED = {
    "ratio": "a / b",
    "logs": "log(a) + log1p(b) * sqrt(a)",
    "rounded": "round(a, 2) + round(b)",
    "remainder": "a % b - a // b",
    "power": "a ** 2 + exp(b)",
    "clipped": "clip(a, -1, b)",
    "small": "min(a, b, n)",
    "filled": "coalesce(a, n, 0)",
    "lost": "is_missing(a) or is_missing(s)",
    "chosen": "a if s == 'é' else b",
    "within": "s in ('x', '') or 0 <= a < 10",
    "long": "length(s) + length(lower(s))",
    "shout": "upper(s) + '!'",
    "has": "contains(s, 'a') and not startswith(s, 'b')",
    "truth": "1 if t else n",
    "when": "year(d) * 366 + month(d) * 31 + day(d) + weekday(d) + hour(d)",
    "later": "d >= '2001-02-03 04:05:06'",
}
RATES = Encoding(how="rate", total=7, counts=(("", 1), ("a\x00b", 2), ("x", 1), ("é", 3)))
COUNTS = Encoding(how="count", counts=((-1.5, 2), (0.0, 4), (2.5, 1)))
ENCODED = {
    "s_rate": ("s", RATES),
    "loud_rate": ("lower(s)", RATES),
    "a_count": ("a", COUNTS),
    "t_count": ("t", Encoding(how="count", counts=((0.0, 5), (1.0, 6)))),
    "s_bucket": ("s", Encoding(how="hash", buckets=7)),
}
TEXTS = ("s", "shout", "s_bucket")


def feature(name: str, expression: str = "") -> FeatureColumn:
    return FeatureColumn(name=name, kind="categorical" if name in TEXTS else "numeric", expression=expression)


FEATURES = (
    *(feature(column.name) for column in INPUTS if column.type != "timestamp"),
    *(feature(name, expression) for name, expression in DERIVED.items()),
    *(
        feature(name, expression).model_copy(update={"encoding": encoding})
        for name, (expression, encoding) in ENCODED.items()
    ),
)
SCHEMA = FeatureSchema(task="regression", target="y", inputs=INPUTS, features=FEATURES, data_version="v")
STORED = pa.schema(
    [
        ("a", pa.float64()),
        ("b", pa.int64()),
        ("s", pa.string()),
        ("n", pa.string()),
        ("t", pa.bool_()),
        ("d", pa.timestamp("us")),
        ("place", pa.int64()),
    ]
)

numbers = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 1e308, 5e-324, 2.5]))
odd_texts = ["", " ", "\t\n", "\x85", "\u2003", "é", "e\u0301", "ß", "İ", "a\x00b", "💧"]
texts = st.one_of(st.text(max_size=8), st.sampled_from(odd_texts))
odd_numbers = [" ", "1_0", "\uff11\uff12", "0x1f", "1e400"]
written = st.one_of(st.floats().map(str), st.integers().map(str), st.text(max_size=5), st.sampled_from(odd_numbers))
moments = st.datetimes(min_value=datetime.datetime(1, 1, 1), max_value=datetime.datetime(9999, 12, 31, 23, 59, 59))
rows = st.fixed_dictionaries(
    {
        "a": st.none() | numbers,
        "b": st.none() | st.integers(-(2**63), 2**63 - 1),
        "s": st.none() | texts,
        "n": st.none() | written,
        "t": st.none() | st.booleans(),
        "d": st.none() | moments,
    }
)


@lru_cache
def offline_query() -> str:
    import ibis

    with duckdb.connect() as connection:
        connection.register("stored", STORED.empty_table())
        connection.execute("CREATE VIEW snapshot AS FROM stored")
        source = table(connection, "snapshot")
    values = parsed(source, INPUTS)
    made = source.select("place", **{column.name: feature_of(column, values) for column in FEATURES})
    for column in FEATURES:
        if column.encoding is not None and column.encoding.how == "hash":
            made = made.mutate(**{column.name: bucket(made[column.name], column.encoding.buckets)})
        elif column.encoding is not None:
            schema = {"category": made[column.name].type(), "count": "int64"}
            counts = ibis.table(schema, name=f"learnt_{column.name}")
            joined = made.left_join(counts, made[column.name] == counts["category"])
            made = joined.mutate(**{column.name: looked_up(joined[column.name], joined["count"], column.encoding)})
            made = made.drop("category", "count")
    return sql(made.order_by("place").drop("place"))


def offline(table_rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        placed = [row | {"place": place} for place, row in enumerate(table_rows)]
        connection.register("snapshot", pa.Table.from_pylist(placed, STORED))
        for name, (_, encoding) in ENCODED.items():
            if encoding.how == "hash":
                continue
            counts = [{"category": category, "count": count} for category, count in encoding.counts]
            connection.register(f"learnt_{name}", pa.Table.from_pylist(counts))
        return connection.execute(offline_query()).fetchall()


def same(one: Any, other: Any) -> bool:
    missing = [value is None or value != value for value in (one, other)]
    return all(missing) if any(missing) else one == other


def assert_equal(expected: list[tuple[Any, ...]], frame: pd.DataFrame) -> None:
    assert list(frame.columns) == [column.name for column in FEATURES]
    for row, stored in enumerate(expected):
        for column, value in zip(FEATURES, stored, strict=True):
            online = frame[column.name].iloc[row]
            assert same(value, online), (row, column.name, value, online)
            assert column.kind == "categorical" or value is None or math.isfinite(value)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rows, min_size=1, max_size=12))
def test_offline_equals_online_whatever_the_rows(table_rows):
    expected = offline(table_rows)
    assert_equal(expected, derive(pd.DataFrame(table_rows, columns=[c.name for c in INPUTS]), SCHEMA))
    one_by_one = [derive(pd.DataFrame([row]), SCHEMA) for row in table_rows[:2]]
    assert_equal(expected[:2], pd.concat(one_by_one))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rows, min_size=1, max_size=12))
def test_offline_equals_the_model_server_whatever_the_rows(table_rows):
    sent = [row | {"n": None} for row in table_rows]  # a text that is no number is refused there, and missing here
    columns = coerce({column.name: [row[column.name] for row in sent] for column in INPUTS}, SCHEMA)
    compiled = compile_rows(SCHEMA)
    assert compiled is not None
    assert_equal(offline(sent), pd.DataFrame(compiled(columns)))


@pytest.mark.parametrize("as_objects", [False, True])
def test_the_form_of_the_request_does_not_matter(as_objects):
    table_rows = [
        {"a": 1.5, "b": 2, "s": "x", "n": "3", "t": True, "d": datetime.datetime(2026, 1, 2)},
        {"a": 4.0, "b": 5, "s": " ", "n": "6.5", "t": False, "d": datetime.datetime(1970, 1, 1)},
    ]
    frame = pd.DataFrame(table_rows)
    frame["n"] = frame["n"].astype(float)
    assert_equal(offline(table_rows), derive(frame.astype(object) if as_objects else frame, SCHEMA))
