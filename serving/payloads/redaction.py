"""Takes the values of listed columns out of a request's body, and leaves its form.

Whatever is not an input of the model is taken out, too: a client may send more than the model reads, under any name.
A body that does not read as the protocol has it is not let through.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from components.errors import SluicewayError
from serving.payloads.exchange import Exchange
from serving.server.columns import Reader
from serving.server.failures import Failure
from serving.server.v1 import parsed
from serving.server.v2 import DTYPES, as_bytes, texts_of


class Unreadable(SluicewayError):
    """Columns were to be redacted in a body that does not read as its protocol has it."""


class Redaction:
    """Redacts the requests of one model."""

    def __init__(self, reader: Reader, columns: Sequence[str]) -> None:
        """Prepare for a model's inputs and the columns whose values are taken out."""
        self._names = reader.names
        self._known = frozenset(reader.names)
        self._is_matrix = reader.is_matrix
        self._hidden = frozenset(columns)
        self._places = [place for place, name in enumerate(reader.names) if name in self._hidden]

    def request(self, exchange: Exchange) -> tuple[bytes, int | None]:
        """The body of an exchange's request without the values, and the length of its JSON where bytes follow.

        Raises:
            Unreadable: the body cannot be let through.
        """
        try:
            if exchange.protocol == "v1":
                return self._v1(exchange.request), None
            return self._v2(exchange.request, exchange.request_header_length)
        except (Failure, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise Unreadable(f"A {exchange.protocol} body cannot be read: {type(error).__name__}.") from error

    def _v1(self, body: bytes) -> bytes:
        return orjson.dumps({"instances": [self._instance(one) for one in parsed(body)["instances"]]})

    def _instance(self, instance: Any) -> Any:
        if type(instance) is dict:
            return {
                name: None if name in self._hidden else _scalar(value)
                for name, value in instance.items()
                if name in self._known
            }
        if type(instance) is not list or len(instance) != len(self._names):
            raise Unreadable("An instance is neither an object nor an array of all inputs.")
        row = [_scalar(value) for value in instance]
        for place in self._places:
            row[place] = None
        return row

    def _v2(self, body: bytes, head: int | None) -> tuple[bytes, int | None]:
        payload = parsed(body if head is None else body[:head])
        rest = b"" if head is None else body[head:]
        tensors = payload["inputs"]
        kept: list[dict[str, Any]] = []
        raw: list[bytes] = []
        used = 0
        for tensor in tensors:
            size = _binary_size(tensor)
            given = rest[used : used + (size or 0)]
            if len(given) != (size or 0):
                raise Unreadable("A tensor is longer than the body.")
            used += len(given)
            form = self._tensor(tensor, given if size is not None else None, alone=len(tensors) == 1)
            if form is not None:
                kept.append(form[0])
                raw.append(form[1])
        if used != len(rest):
            raise Unreadable("The tensors are shorter than the body.")
        told: dict[str, Any] = {"inputs": kept}
        if type(payload.get("id")) is str:
            told["id"] = payload["id"]
        if outputs := payload.get("outputs"):
            told["outputs"] = [{"name": str(output["name"]), **_flags(output, "binary_data")} for output in outputs]
        told |= _flags(payload, "binary_data_output")
        told_head = orjson.dumps(told)
        return told_head + b"".join(raw), None if head is None else len(told_head)

    def _tensor(self, tensor: dict[str, Any], raw: bytes | None, *, alone: bool) -> tuple[dict[str, Any], bytes] | None:
        """A tensor and the bytes that belong to it, redacted; None for one that is no input."""
        name, datatype, shape = tensor["name"], tensor["datatype"], tensor["shape"]
        if not (type(name) is str and all(type(size) is int for size in shape)):
            raise Unreadable("A tensor's name or shape is none.")
        width = len(self._names)
        if (
            alone
            and self._is_matrix
            and len(shape) == 2
            and shape[1] == width
            and (name not in self._known or width > 1)
        ):
            hidden: Any = [slice(place, None, width) for place in self._places]
        elif name not in self._known:
            return None
        else:
            hidden = [slice(None)] if name in self._hidden else []
        told = {"name": name, "datatype": _datatype(datatype), "shape": shape}
        if raw is None:
            told["data"] = _blanked(_flat(tensor["data"]), hidden)
            return told, b""
        encoded = _blanked_bytes(raw, datatype, hidden)
        return told | {"parameters": {"binary_data_size": len(encoded)}}, encoded


def _blanked(values: list[Any], hidden: Sequence[slice]) -> list[Any]:
    for part in hidden:
        values[part] = [None] * len(values[part])
    return values


def _blanked_bytes(raw: bytes, datatype: str, hidden: Sequence[slice]) -> bytes:
    """Binary values: a missing number is NaN where the datatype has it, else 0; a missing text is empty."""
    if not hidden:
        return raw
    if datatype == "BYTES":
        texts = texts_of(raw, "")
        for part in hidden:
            texts[part] = [b""] * len(texts[part])
        return as_bytes([text.decode() for text in texts])
    values = np.frombuffer(raw, DTYPES[datatype]).copy()
    for part in hidden:
        values[part] = np.nan if values.dtype.kind == "f" else 0
    return values.tobytes()


def _flat(data: list[Any]) -> list[Any]:
    if type(data) is not list:
        raise Unreadable("A tensor's data are no list.")
    flat: list[Any] = []
    for value in data:
        if type(value) is list:
            flat += value
        else:
            flat.append(value)
    return [_scalar(value) for value in flat]


def _scalar(value: Any) -> Any:
    if type(value) in (dict, list):
        raise Unreadable("A value is an object or an array.")
    return value


def _datatype(name: str) -> str:
    if name != "BYTES" and name not in DTYPES:
        raise Unreadable("A tensor's datatype is none of the protocol's.")
    return name


def _binary_size(tensor: dict[str, Any]) -> int | None:
    size = (tensor.get("parameters") or {}).get("binary_data_size") if tensor.get("data") is None else None
    if size is not None and (type(size) is not int or size < 0):
        raise Unreadable("A tensor's size is no number of bytes.")
    return size


def _flags(owner: dict[str, Any], name: str) -> dict[str, Any]:
    value = (owner.get("parameters") or {}).get(name)
    return {"parameters": {name: value}} if type(value) is bool else {}
