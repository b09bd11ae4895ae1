"""Requests and replies in every form of the two protocols, for tests of payload logging."""

import struct

import numpy as np
import orjson

from components.features.schema import FeatureColumn, FeatureSchema, InputColumn
from serving.payloads import Exchange

AT = 1_700_000_000.25


def exchange(request, reply=b"", **more):
    fields = {
        "id": "a-1",
        "model": "ours",
        "revision": "r1",
        "protocol": "v1",
        "request_type": "application/json",
        "request_header_length": None,
        "status": 200,
        "reply_type": "application/json",
        "reply_header_length": None,
        "at": AT,
        "seconds": 0.002,
    } | more
    request = request if isinstance(request, bytes) else orjson.dumps(request)
    reply = reply if isinstance(reply, bytes) else orjson.dumps(reply)
    return Exchange(request=request, reply=reply, **fields)


def numbers(*names, classes=("No", "Yes")):
    """The schema of a model whose inputs are numbers."""
    return FeatureSchema(
        task="binary" if classes else "regression",
        target="y",
        classes=classes,
        inputs=tuple(InputColumn(name=name, type="number") for name in names),
        features=tuple(FeatureColumn(name=name, kind="numeric") for name in names),
        data_version="test",
    )


def v1_reply(*probabilities):
    """What a binary classifier answers."""
    return {
        "predictions": [
            {"label": "Yes" if p > 0.5 else "No", "probabilities": {"No": 1 - p, "Yes": p}} for p in probabilities
        ]
    }


def binary(tensors, head=None):
    """A V2 body with tensors as bytes, and the length of its JSON; tensors are (name, datatype, shape, values)."""
    inputs, raw = [], []
    for name, datatype, shape, values in tensors:
        if datatype == "BYTES":
            texts = [value.encode() for value in values]
            encoded = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        else:
            kinds = {"FP64": "<f8", "FP32": "<f4", "INT64": "<i8", "BOOL": "?"}
            encoded = np.array(values, dtype=kinds[datatype]).tobytes()
        parameters = {"binary_data_size": len(encoded)}
        inputs.append({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})
        raw.append(encoded)
    told = orjson.dumps({"inputs": inputs, **(head or {})})
    return told + b"".join(raw), len(told)
