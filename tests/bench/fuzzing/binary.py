"""V2's binary tensors with sizes, shapes and types that lie."""

import json
import random
import struct
from typing import Any

from tests.bench.fuzzing.attack import Attack, request
from tests.bench.fuzzing.bodies import TYPES
from tests.bench.fuzzing.target import Target

SIZES: list[Any] = [0, -1, 1, 3, 7, 2**31, 2**32, 2**63, 10**25, 1.5, "8", None, True, [], {}]
HEADS: list[Any] = [0, -1, 1, 2**31, 2**64, 10**30, "", "x", "0x10", "1 1", "+5", "٣", "1e2", "007"]


def binary_attack(draw: random.Random, target: Target) -> Attack:
    """One request with binary tensors, one or two things wrong with it."""
    rows = draw.choice([0, 1, 1, 2, 5])
    tensors, parts = [], []
    for name, kind in target.columns:
        raw = _raw(draw, kind, rows)
        kinds = {"number": "FP64", "boolean": "BOOL"}
        tensors.append(
            {
                "name": name,
                "shape": [rows],
                "datatype": kinds.get(kind, "BYTES"),
                "parameters": {"binary_data_size": len(raw)},
            }
        )
        parts.append(raw)
    for _ in range(draw.choice([0, 1, 1, 2])):
        _damage(draw, draw.choice(tensors), parts)
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": draw.random() < 0.3}}).encode()
    tail = b"".join(parts)
    if draw.random() < 0.2:
        tail = draw.choice([tail[:-1], tail + b"\0", b"", tail * 2, draw.randbytes(len(tail))])
    length: Any = len(head)
    if draw.random() < 0.2:
        length = draw.choice([*HEADS, len(head) - 1, len(head) + 1, len(head) + len(tail), len(head) + len(tail) + 1])
    headers: list[tuple[str, str | bytes]] = [
        ("Inference-Header-Content-Length", str(length).encode()),
        ("Content-Type", draw.choice(["application/octet-stream", "application/json"])),
    ]
    return Attack("v2 binary", request(target.v2_path, head + tail, headers), names_field=True)


def _raw(draw: random.Random, kind: str, rows: int) -> bytes:
    if kind == "number":
        return b"".join(struct.pack("<d", draw.uniform(-1e3, 1e3)) for _ in range(rows))
    if kind == "boolean":
        return bytes(draw.choice([0, 1]) for _ in range(rows))
    texts = [draw.choice([b"large", b"", "é".encode(), b"\xff\xfe", b"\0"]) for _ in range(rows)]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _damage(draw: random.Random, tensor: dict[str, Any], parts: list[bytes]) -> None:
    what = draw.randrange(6)
    if what == 0:
        tensor["parameters"] = {"binary_data_size": draw.choice(SIZES)}
    elif what == 1:
        tensor["shape"] = draw.choice([[], [1, 1, 1], [2**31, 2**31], [-1], [10**20], [1.0], None, "1", [[1]]])
    elif what == 2:
        tensor["datatype"] = draw.choice([*TYPES, "FP8", None, ""])
    elif what == 3:
        tensor["data"] = draw.choice([[], [1], "x", None])
    elif what == 4:
        index = draw.randrange(len(parts))
        parts[index] = draw.choice(
            [struct.pack("<I", 0xFFFFFFFF), struct.pack("<I", 5) + b"ab", struct.pack("<d", float("nan")), b"\2", b""]
        )
        tensor["parameters"] = {"binary_data_size": len(parts[index])}
    else:
        tensor["parameters"] = draw.choice([None, [], "x", {}, {"binary_data_size": {"a": 1}}])
