"""One row of the small bundle as requests of the Open Inference Protocol, over REST, binary and gRPC."""

import json
import struct

import numpy as np

from tests.serving_bundle import NUMBERS
from tests.serving_process import ROW

KINDS = {**dict.fromkeys(NUMBERS, "FP64"), "size": "BYTES", "rough": "BOOL"}
FULL_ROW = {**ROW, "mean_texture": 20.0}


def tensors(row=FULL_ROW, **changed):
    """JSON tensors by column, with other fields for some of them; None leaves one out."""
    made = {
        name: {"name": name, "shape": [1], "datatype": kind, "data": [row[name]], **(changed.get(name) or {})}
        for name, kind in KINDS.items()
    }
    return [tensor for name, tensor in made.items() if changed.get(name, "") is not None]


def raw(name, value):
    """A value in the binary form of its column's datatype; NaN where it is missing."""
    if KINDS[name] == "BYTES":
        encoded = value.encode()
        return struct.pack("<I", len(encoded)) + encoded
    dtype = "<f8" if KINDS[name] == "FP64" else "?"
    return np.array([np.nan if value is None else value], dtype).tobytes()


def binary(row=FULL_ROW, **more):
    """The content and headers of a binary request."""
    parts = {name: raw(name, row[name]) for name in KINDS}
    inputs = [
        {"name": name, "shape": [1], "datatype": KINDS[name], "parameters": {"binary_data_size": len(part)}}
        for name, part in parts.items()
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    return {"content": head + b"".join(parts.values()), "headers": headers}


def message(types, row=FULL_ROW, *, is_raw=False, **fields):
    """A ``ModelInferRequest``."""
    request = types.ModelInferRequest(model_name="ours", **fields)
    contents = {"FP64": "fp64_contents", "BYTES": "bytes_contents", "BOOL": "bool_contents"}
    for name, kind in KINDS.items():
        tensor = request.inputs.add(name=name, datatype=kind, shape=[1])
        if is_raw:
            request.raw_input_contents.append(raw(name, row[name]))
        else:
            value = np.nan if row[name] is None else row[name]
            getattr(tensor.contents, contents[kind]).append(value.encode() if kind == "BYTES" else value)
    return request
