import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.payloads.cloudevents import Events
from serving.payloads.redaction import Redaction, Unreadable
from serving.payloads.rows import Layout, Table
from serving.payloads.settings import Settings
from serving.server import v2
from serving.server.columns import Reader
from serving.server.limits import Limits
from tests.payloads import binary, exchange, numbers, v1_reply
from tests.serving_bundle import schema
from tests.serving_process import ROW

HIDDEN = ("size", "mean_radius")
KEPT = ("mean_texture", "mean_smoothness", "mean_concavity", "rough")
OURS = Redaction(Reader(schema()), HIDDEN)


def redacted(given, by=OURS):
    return by.request(given)


def test_v1_objects_keep_their_form_and_lose_values_and_unknown_keys():
    body, head = redacted(exchange({"instances": [{**ROW, "email": "x@y"}], "customer": "x@y"}))
    assert orjson.loads(body) == {"instances": [{**ROW, "size": None, "mean_radius": None}]}
    assert head is None


def test_v1_arrays_lose_the_values_in_the_columns_places():
    body, _ = redacted(exchange({"instances": [[14.2, None, 0.1, 0.08, "large", True]]}))
    assert orjson.loads(body) == {"instances": [[None, None, 0.1, 0.08, None, True]]}


def test_of_keys_that_come_twice_none_is_left():
    body, _ = redacted(exchange(b'{"instances": [{"size": "secret", "size": "large", "rough": true}]}'))
    assert orjson.loads(body) == {"instances": [{"size": None, "rough": True}]}


def test_v2_tensors_lose_their_data_and_unknown_tensors_go():
    tensors = [
        {"name": "size", "datatype": "BYTES", "shape": [2], "data": ["large", "small"], "parameters": {"x": "large"}},
        {"name": "rough", "datatype": "BOOL", "shape": [2, 1], "data": [[True], [False]]},
        {"name": "email", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
    ]
    given = exchange({"id": "7", "inputs": tensors, "parameters": {"who": "me"}, "more": 1}, protocol="v2")
    assert orjson.loads(redacted(given)[0]) == {
        "id": "7",
        "inputs": [
            {"name": "size", "datatype": "BYTES", "shape": [2], "data": [None, None]},
            {"name": "rough", "datatype": "BOOL", "shape": [2, 1], "data": [True, False]},
        ],
    }


def test_v2_binary_tensors_are_filled_with_what_means_missing_and_read_as_before():
    body, head = binary(
        [("size", "BYTES", [2], ["large", "é"]), ("mean_radius", "FP64", [2], [1.5, 2.5])]
        + [(name, "FP32", [2], [0.5, 0.25]) for name in KEPT[:3]]
        + [("rough", "BOOL", [2], [True, False])],
        {"id": "7", "outputs": [{"name": "label", "parameters": {"binary_data": True}}]},
    )
    given = exchange(body, protocol="v2", request_header_length=head)
    body, head = redacted(given)
    asked, wanted = v2.asked(body, head, Reader(schema()), schema(), Limits())
    typed = Reader(schema()).typed(asked)
    assert typed["size"].tolist() == [None, None]
    assert np.isnan(typed["mean_radius"]).all()
    assert typed["mean_texture"].tolist() == [0.5, 0.25]
    assert typed["rough"].tolist() == [1.0, 0.0]
    assert (wanted.id, wanted.outputs, wanted.binary) == ("7", ("label",), {"label"})


@pytest.mark.parametrize("is_binary", [False, True])
def test_one_matrix_loses_the_columns_in_their_places(is_binary):
    by = Redaction(Reader(numbers("a", "b", "c")), ["b"])
    rows = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    if is_binary:
        body, head = binary([("a", "FP64", [2, 3], rows)])
    else:
        body, head = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [2, 3], "data": rows}]}, None
    body, head = redacted(exchange(body, protocol="v2", request_header_length=head), by)
    asked, _ = v2.asked(body, head, Reader(numbers("a", "b", "c")), numbers("a", "b", "c"), Limits())
    typed = Reader(numbers("a", "b", "c")).typed(asked)
    assert np.array_equal(typed, [[1, np.nan, 3], [4, np.nan, 6]], equal_nan=True)


@pytest.mark.parametrize(
    "given",
    [
        exchange(b"{not JSON"),
        exchange(b"[]"),
        exchange({"instances": 7}),
        exchange({"instances": [[1, 2, 3]]}),
        exchange({"instances": [{**ROW, "rough": {"size": "large"}}]}),
        exchange({"instances": ["large"]}),
        exchange({"inputs": [{"name": "rough", "shape": [1]}]}, protocol="v2"),
        exchange(b'{"inputs": []}large', protocol="v2", request_header_length=14),
        exchange({"inputs": [{"name": "size", "datatype": "TEXT", "shape": [1], "data": ["x"]}]}, protocol="v2"),
    ],
)
def test_a_body_that_does_not_read_is_not_let_through(given):
    with pytest.raises(Unreadable):
        redacted(given)


SECRETS = st.text("abcdefghij", min_size=10, max_size=20).map(lambda text: f"secret-{text}")


@st.composite
def requests(draw):
    """A request of any form, well or badly made, and the secrets in it; their numbers are as rare as their texts."""
    rows = draw(st.integers(1, 3))
    texts = draw(st.lists(SECRETS, min_size=rows, max_size=rows))
    radii = draw(st.lists(st.integers(10**14, 10**15), min_size=rows, max_size=rows))
    extra = draw(st.sampled_from([{}, {"note": texts[0]}, {"email": {"deep": [texts[0]]}}, {"Size": texts[0]}]))
    form = draw(st.sampled_from(["objects", "arrays", "tensors", "bytes"]))
    status = draw(st.sampled_from([200, 400]))
    reply = v1_reply(*[0.75] * rows) if status == 200 else {"error": f"Input column 'size': {texts[0]!r} is wrong."}
    rest = dict.fromkeys(KEPT, 1)
    if form == "objects":
        instances = [
            {"size": text, "mean_radius": radius, **rest, **extra} for text, radius in zip(texts, radii, strict=True)
        ]
        body, more = orjson.dumps({"instances": instances, **extra}), {}
    elif form == "arrays":
        body = orjson.dumps({"instances": [[r, 1, 1, 1, t, True] for t, r in zip(texts, radii, strict=True)], **extra})
        more = {}
    elif form == "tensors":
        columns = {"size": texts, "mean_radius": radii, **{name: [1] * rows for name in KEPT}}
        inputs = [
            {"name": name, "datatype": "BYTES" if name == "size" else "INT64", "shape": [rows], "data": data, **extra}
            for name, data in columns.items()
        ]
        body, more = orjson.dumps({"inputs": inputs, **extra}), {"protocol": "v2"}
    else:
        tensors = [("size", "BYTES", [rows], texts), ("mean_radius", "INT64", [rows], radii)]
        tensors += [(name, "FP32", [rows], [1] * rows) for name in KEPT]
        body, head = binary(tensors, extra)
        more = {"protocol": "v2", "request_header_length": head}
    cut = draw(st.one_of(st.none(), st.integers(1, len(body) - 1)))
    if cut is not None:
        body = body[:cut] + draw(st.sampled_from([b"", body[cut + 1 :]]))
    secrets = [text.encode() for text in texts]
    secrets += [str(radius).encode() for radius in radii] + [np.int64(radius).tobytes() for radius in radii]
    if more.get("protocol") == "v2" and status == 200:
        reply = {"outputs": [{"name": "label", "datatype": "BYTES", "shape": [rows], "data": ["Yes"] * rows}]}
    return exchange(body, reply, status=status, **more), secrets


@settings(max_examples=200, deadline=None)
@given(requests())
def test_no_redacted_value_is_in_anything_that_goes_out(made):
    given, secrets = made
    layout = Layout(schema(), HIDDEN, raw=True)
    out = []
    try:
        events = Events(Settings(source="pod")).of(given, layout.redaction)
        out += [part for event in events for part in (event.body, repr(event.headers).encode())]
    except Unreadable:
        pass
    table = Table(layout)
    table.add(given)
    out += [repr(values.tolist()).encode() for values in table.columns().values()]
    out += [value for values in (table.columns()["request"], table.columns()["reply"]) for value in values if value]
    for content in out:
        for secret in secrets:
            assert secret not in content
