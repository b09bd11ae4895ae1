"""The fast typing of requests gives what the slow one gives, or leaves the request to it."""

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.errors import BadInput
from components.features.schema import FeatureColumn, FeatureSchema, InputColumn
from serving import inputs
from serving.server import v1
from serving.server.columns import Asked, Reader
from serving.server.failures import BadRequest
from serving.server.limits import Limits

KINDS = {"a": "number", "b": "boolean", "c": "string", "d": "timestamp"}
LIMITS = Limits()


def schema(*names):
    return FeatureSchema(
        task="regression",
        target="y",
        inputs=tuple(InputColumn(name=name, type=KINDS[name]) for name in names),
        features=tuple(FeatureColumn(name=name, kind="numeric") for name in names),
        data_version="1",
    )


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", " ", "1", "1_000", "yes", "x", "2020-01-02", "2020-01-02T03:04:05+02:00", "\u00a0"]),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
)


def outcome(call):
    try:
        return call()
    except BadInput as error:
        return str(error)


def same(left, right):
    if isinstance(left, str) or isinstance(right, str):
        return left == right
    return all(
        left[name].dtype == right[name].dtype
        and [v if v == v else None for v in left[name].tolist()]
        == [v if v == v else None for v in right[name].tolist()]
        for name in right
    )


def as_columns(typed, names):
    if isinstance(typed, np.ndarray):
        return {name: typed[:, place] for place, name in enumerate(names)}
    return typed


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["a", "ab", "abcd", "c", "d", "bc"]), st.data())
def test_rows_are_typed_as_the_slow_way_types_them(names, data):
    reader = Reader(schema(*names))
    plain = {"a": st.floats(-1e9, 1e9) | st.none(), "b": st.booleans(), "c": st.text(max_size=3), "d": st.none()}
    rows = data.draw(
        st.lists(
            st.tuples(*(plain[name] | scalars if data.draw(st.booleans()) else plain[name] for name in names))
        ).filter(bool)
    )
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    slow = outcome(lambda: inputs.coerce(columns, reader.schema))
    by_row = outcome(lambda: as_columns(reader.typed(Asked(len(rows), rows=rows)), names))
    by_column = outcome(lambda: as_columns(reader.typed(Asked(len(rows), columns=columns)), names))
    assert same(by_row, slow)
    assert same(by_column, slow)


@pytest.mark.parametrize("value", [2, "maybe", 0.5])
def test_a_truth_value_in_a_tensor_of_numbers_is_checked(value):
    reader = Reader(schema("a", "b"))
    with pytest.raises(BadInput, match="'b', row 1"):
        reader.rows([(1.0, True), (2.0, value)])
    if not isinstance(value, str):
        with pytest.raises(BadInput, match="'b', row 1"):
            reader.matrix(np.array([[1.0, 1], [2.0, value]]))


def test_infinities_are_missing_values():
    typed = Reader(schema("a")).matrix(np.array([[np.inf], [1.0]], dtype=np.float32))
    np.testing.assert_array_equal(typed, [[np.nan], [1.0]])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "c", "instances"]), inner),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(json_values)
@example({"instances": [{"a": 1, "c": "x"}]})
@example({"instances": [[1, "x"], {"a": 1, "c": "x"}]})
def test_any_json_is_read_or_refused(value):
    reader = Reader(schema("a", "c"))
    try:
        rows = v1.rows_of(orjson.dumps(value), reader, LIMITS)
    except BadRequest:
        return
    assert len(rows) == len(value["instances"])
    assert all(len(row) == 2 for row in rows)


@pytest.mark.parametrize(("deep", "refused"), [(28, False), (33, True), (200, True)])
def test_nesting_is_limited(deep, refused):
    body = b'{"instances": [{"a": 1, "more": ' + b"[" * deep + b"]" * deep + b"}]}"
    reader = Reader(schema("a"))
    if refused:
        with pytest.raises(BadRequest, match="nested more than 32 deep"):
            v1.rows_of(body, reader, LIMITS)
    else:
        assert v1.rows_of(body, reader, LIMITS) == [(1,)]


def test_rows_and_texts_are_limited():
    limits = Limits(rows=2, text_chars=3)
    reader = Reader(schema("c"))
    with pytest.raises(BadRequest, match="has 3 instances; the most is 2"):
        v1.rows_of(b'{"instances": [["a"], ["b"], ["c"]]}', reader, limits)
    with pytest.raises(BadRequest, match="'c', row 1: the text has 4 characters"):
        v1.rows_of(b'{"instances": [["abc"], ["abcd"]]}', reader, limits)


@pytest.mark.parametrize("names", ["a", "ab", "abcd"])
def test_no_rows_are_typed_as_no_rows(names):
    reader = Reader(schema(*names))
    typed = as_columns(reader.typed(Asked(0, rows=[])), names)
    assert {name: len(values) for name, values in typed.items()} == dict.fromkeys(names, 0)


def test_unicode_s_spaces_and_digits_are_what_they_are_in_training():
    reader = Reader(schema("c"))
    assert reader.rows([("\u2003",), ("\u00a0x",), (" \t",)])["c"].tolist() == ["\u2003", "\u00a0x", None]
    with pytest.raises(BadInput, match="is not a number"):
        Reader(schema("a")).rows([("\uff15",)])
