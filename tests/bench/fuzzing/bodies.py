"""JSON bodies near the proper ones, by Hypothesis."""

import json
import random
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.bench.fuzzing.attack import Attack, request
from tests.bench.fuzzing.target import DATATYPES, Target

TYPES = ["FP64", "FP32", "FP16", "INT64", "INT32", "INT8", "UINT64", "UINT8", "BOOL", "BYTES"]
ODD_TYPES = ["", "fp64", "FP128", "STRING", "BYTES ", "\0", None, 1, [], {}, True]

texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", " ", "NaN", "nan", "inf", "-inf", "1e999", "0x10", "1_000", "١٢", "true", "null", "None"]),
    st.sampled_from(
        ["\0", "a\0b", "\ud800", "\udfff\ud800", "\uffff", "\u202e", "é" * 50, "💥", "\r\nX: y", "' OR 1=1--"]
    ),
    st.sampled_from(
        ["1970-01-01", "9999-12-31T23:59:60Z", "0000-00-00", "-271821-04-20", "2020-02-30", "T", "2020-W01"]
    ),
    st.sampled_from(["x" * 70_000, "{{7*7}}", "${jndi:ldap://x}", "../../etc/passwd", "%00", "\\", '"']),
)
numbers = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from([2**53, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400, -(10**309), 1e308, 5e-324, -0.0, 1e400]),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)
rarely = st.integers(0, 9).map(lambda drawn: drawn == 0)


def proper(kind: str) -> st.SearchStrategy[Any]:
    """Values that fit a column."""
    return {
        "number": st.one_of(st.floats(-1e6, 1e6), st.integers(-1000, 1000), st.none()),
        "boolean": st.sampled_from([True, False, None]),
        "string": st.sampled_from(["large", "medium", "small", "never seen", None]),
        "timestamp": st.sampled_from(["2024-01-31T12:00:00Z", None]),
    }[kind]


@st.composite
def v1_documents(draw: st.DrawFn, target: Target) -> Any:
    """V1 bodies: rows as objects or arrays, a few things wrong with them."""
    rows: list[Any] = []
    as_objects = draw(st.booleans())
    for _ in range(draw(st.integers(0, 4))):
        row = {name: draw(proper(kind)) for name, kind in target.columns}
        for _ in range(draw(st.integers(0, 2))):
            name = draw(st.sampled_from([*row, "unknown"]))
            fault = draw(st.integers(0, 4))
            if fault <= 2:
                row[name] = draw(anything)
            elif fault == 3:
                row.pop(name, None)
            else:
                row[draw(texts)] = draw(leaves)
        rows.append(row if as_objects != draw(rarely) else list(row.values()))
    if draw(rarely):
        rows.insert(draw(st.integers(0, len(rows))), draw(anything))
    document: Any = {"instances": rows}
    if draw(rarely):
        document = draw(
            st.sampled_from(
                [rows, {"instances": {"0": rows}}, {"inputs": rows}, {"instances": rows, "instances ": 1}, {}, None, 7]
            )
        )
    if isinstance(document, dict) and draw(rarely):
        document[draw(st.one_of(texts, st.sampled_from(["signature_name", "parameters", "id"])))] = draw(anything)
    if isinstance(document, dict) and draw(rarely):
        document["instances"] = draw(anything)
    return document


@st.composite
def v2_documents(draw: st.DrawFn, target: Target) -> Any:
    """V2 bodies: a tensor per column, a few things wrong with them."""
    rows = draw(st.integers(0, 3))
    tensors: list[Any] = []
    for name, kind in target.columns:
        data = [draw(proper(kind)) for _ in range(rows)]
        tensor: dict[str, Any] = {"name": name, "shape": [rows], "datatype": DATATYPES[kind], "data": data}
        tensors.append(tensor)
    sizes = st.one_of(st.integers(-2, 5), st.sampled_from([2**31, 2**63, 10**30, 1.0, None, "1", True]))
    for _ in range(draw(st.integers(0, 3))):
        tensor = draw(st.sampled_from(tensors))
        field = draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters", "value"]))
        if field == "name":
            tensor["name"] = draw(st.one_of(texts, leaves, st.sampled_from([name for name, _ in target.columns])))
        elif field == "shape":
            tensor["shape"] = draw(st.one_of(st.lists(sizes, max_size=4), anything))
        elif field == "datatype":
            tensor["datatype"] = draw(st.sampled_from(TYPES + ODD_TYPES))
        elif field == "data":
            tensor["data"] = draw(st.one_of(anything, st.lists(leaves, max_size=4), st.lists(st.lists(leaves))))
        elif field == "parameters":
            tensor["parameters"] = draw(
                st.one_of(anything, st.fixed_dictionaries({"binary_data_size": st.one_of(sizes, anything)}))
            )
        elif isinstance(tensor.get("data"), list) and tensor["data"]:
            tensor["data"][0] = draw(anything)
    if draw(rarely):
        tensors.append(draw(st.one_of(anything, st.sampled_from(tensors))))
    if draw(rarely):
        del tensors[draw(st.integers(0, len(tensors) - 1))]
    document: dict[str, Any] = {"inputs": tensors}
    if draw(st.booleans()):
        document["id"] = draw(st.one_of(texts, anything))
    if draw(rarely):
        document["outputs"] = draw(
            st.one_of(
                anything,
                st.lists(
                    st.fixed_dictionaries(
                        {"name": st.one_of(st.sampled_from(["label", "probabilities"]), texts)},
                        optional={"parameters": st.one_of(anything, st.just({"binary_data": True}))},
                    ),
                    max_size=3,
                ),
            )
        )
    if draw(rarely):
        document["parameters"] = draw(st.one_of(anything, st.just({"binary_data_output": True})))
    if draw(rarely):
        document["inputs"] = draw(anything)
    return document


@st.composite
def encoded(draw: st.DrawFn, document: Any) -> bytes:
    """A document as bytes that may be a little broken."""
    text = json.dumps(document, ensure_ascii=draw(st.booleans()))  # NaN and Infinity as Python writes them
    body = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)):
        return body
    at = draw(st.integers(0, len(body)))
    fault = draw(st.integers(0, 5))
    if fault == 0:
        return body[:at]
    if fault == 1:
        return body[:at] + draw(st.binary(min_size=1, max_size=4)) + body[at:]
    if fault == 2:
        return body + body
    if fault == 3:
        return b"\xef\xbb\xbf" + body
    if fault == 4:
        return text.encode("utf-16", "surrogatepass")
    depth = draw(st.sampled_from([30, 34, 100, 1_000, 5_000, 100_000]))
    opening, closing = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}")]))
    return body[:at] + opening * depth + b"1" + closing * depth + body[at:]


CONTENT_TYPES = [
    "application/json",
    "application/json; charset=utf-8",
    "application/json;charset=utf-16",
    "text/plain",
    "",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    'a/b; c="',
    "application/cloudevents+json",
]


@st.composite
def json_attacks(draw: st.DrawFn, target: Target) -> Attack:
    """A whole request with such a body."""
    is_v2 = draw(st.booleans())
    document = draw(v2_documents(target) if is_v2 else v1_documents(target))
    body = draw(encoded(document))
    headers: list[tuple[str, str | bytes]] = []
    if draw(rarely):
        headers.append(("Content-Type", draw(st.sampled_from(CONTENT_TYPES))))
    if draw(rarely):
        headers.append(("X-Request-Id", draw(st.text("abc-é{}'\"\\<>%", max_size=60))))
    if draw(rarely):
        headers.append(
            ("Traceparent", draw(st.sampled_from(["", "00-0-0-0", "x" * 500, "00-" + "0" * 32 + "-" + "0" * 16])))
        )
    path = target.v2_path if is_v2 else target.v1_path
    if draw(rarely):
        path = target.v1_path if is_v2 else target.v2_path
    return Attack("v2 json" if is_v2 else "v1 json", request(path, body, headers), names_field=True)


def mutant(draw: random.Random, attack: Attack) -> Attack:
    """The same with bytes of its body changed; the head stays, and with it the length."""
    head = attack.wire.index(b"\r\n\r\n") + 4
    wire = bytearray(attack.wire)
    if len(wire) > head:
        for _ in range(draw.choice([1, 1, 3])):
            wire[draw.randrange(head, len(wire))] = draw.choice(_BYTES)
    return replace(attack, wire=bytes(wire), kind=attack.kind + ", mutated")


_BYTES = b'0123456789-+.eE"\\{}[]:, \t\n\0\x7f\x80\xc3\xffaNtfnu/'
