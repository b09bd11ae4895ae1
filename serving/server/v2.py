"""The V2 protocol, also called Open Inference Protocol: tensors to columns, predictions to tensors.

A request has one tensor per input column, of shape (n) or (n, 1); where all inputs are numbers it may have a single one
of shape (n, number of inputs) instead. Tensors are JSON, or bytes after the JSON: the binary tensor data extension.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from components.errors import BadInput
from serving.bundle import Predictions
from serving.inputs import require
from serving.protocol import V2_TYPES, labels
from serving.schema import BundleManifest
from serving.server.columns import Asked, Reader
from serving.server.failures import BadRequest
from serving.server.limits import Limits
from serving.server.v1 import check_depth, check_texts, parsed

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{
        f"{sign}INT{bits}": np.dtype(f"<{kind}{bits // 8}")
        for sign, kind in (("", "i"), ("U", "u"))
        for bits in (8, 16, 32, 64)
    },
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
"""NumPy's types of the protocol's fixed-size datatypes; ``BYTES`` is the other one."""

_FEW_ROWS = 16
"""Tensors of so few numbers are better merged with other requests than kept as arrays."""
_SIZES = frozenset({int})  # and so no bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input tensor.

    Attributes:
        name: of an input column.
        datatype: the protocol's, such as ``FP64``.
        shape: its dimensions.
        data: flat values, in row-major order; texts of ``BYTES`` may still be bytes.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    data: Sequence[Any] | np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the reply shall look.

    Attributes:
        id: the request's id, given back.
        outputs: names of the output tensors; None for all.
        binary: which of them are sent as bytes.
    """

    id: str | None = None
    outputs: tuple[str, ...] | None = None
    binary: frozenset[str] = frozenset()


def asked(
    body: bytes | bytearray, head: int | None, reader: Reader, manifest: BundleManifest, limits: Limits
) -> tuple[Asked, Wanted]:
    """Read a request's body.

    Args:
        body: JSON, or JSON and then the tensors' bytes.
        head: length of the JSON in bytes, the header ``Inference-Header-Content-Length``; None for all of it.
        reader: of the model's inputs.
        manifest: names the outputs.
        limits: what is refused.

    Raises:
        BadRequest: names the field.
    """
    if head is None:
        payload = parsed(body)
        rest: memoryview | None = None
    else:
        if not 0 < head <= len(body):
            raise BadRequest(f"Inference-Header-Content-Length is {head}, but the body has {len(body)} bytes.")
        view = memoryview(body)
        body = bytes(view[:head])
        payload = parsed(body)
        rest = view[head:]
    if type(payload) is not dict:
        raise BadRequest('The V2 request cannot be read: it is not an object with "inputs".')
    given = payload.get("inputs")
    if type(given) is not list:
        raise BadRequest("The V2 request cannot be read: inputs: Field required, a list of tensors.")
    if len(given) > limits.columns:
        raise BadRequest(f"The request has {len(given):,} tensors; the most is {limits.columns:,}.")
    check_depth(payload, body, 2 + 4 * len(given), limits)
    wanted = _wanted(payload, manifest)
    tensors = []
    used = 0
    for index, one in enumerate(given):
        tensor, size = _tensor(index, one, rest, used)
        used += size
        tensors.append(tensor)
    if rest is not None and used != len(rest):
        raise BadRequest(f"The tensors take {used} bytes, but {len(rest)} follow the JSON.")
    return columns_of(tensors, reader, limits), wanted


def columns_of(tensors: Sequence[Tensor], reader: Reader, limits: Limits) -> Asked:
    """The input columns of a request's tensors; tensors that are no input are left out.

    Raises:
        BadRequest: names the tensor that is missing or has another shape.
    """
    if len(tensors) == 1 and reader.is_matrix and list(tensors[0].shape[1:]) == [len(reader.names)] != [1]:
        return _matrix(tensors[0], limits)
    columns: dict[str, Any] = {}
    rows = 0
    for tensor in tensors:
        if tensor.name not in reader.index:
            continue
        if tensor.name in columns:
            raise BadRequest(f"Input tensor {tensor.name!r} is there twice.")
        count = len(tensor.data)
        shape = tensor.shape
        if list(shape) not in ([count], [count, 1]):
            raise BadRequest(
                f"Input tensor {tensor.name!r} has shape {list(shape)} and {count} values; send one value per row, "
                "shape [n] or [n, 1]."
            )
        if columns and count != rows:
            raise BadRequest(f"Input column {tensor.name!r} has {count} rows, others have {rows}.")
        rows = count
        columns[tensor.name] = _texts(tensor, limits) if tensor.datatype == "BYTES" else tensor.data
    try:
        require(reader.names, columns)
    except BadInput as error:
        raise BadRequest(str(error)) from error
    _check_rows(rows, limits)
    ordered = [columns[name] for name in reader.names]
    if rows <= _FEW_ROWS:
        ordered = [
            values.tolist() if isinstance(values, np.ndarray) and name in reader.numbers else values
            for name, values in zip(reader.names, ordered, strict=True)
        ]
    if all(type(values) is list for values in ordered):
        return Asked(rows, rows=list(zip(*ordered, strict=True)))  # rows of many requests are typed together
    return Asked(rows, columns=columns)


def outputs(
    scores: Predictions, manifest: BundleManifest, wanted: Sequence[str] | None = None
) -> list[tuple[str, list[int], str, Any]]:
    """Name, shape, datatype and data of each output tensor: an array, or a list of texts for ``BYTES``."""
    rows = len(scores)
    if manifest.task == "regression":
        made: list[tuple[str, list[int], str, Any]] = [("value", [rows], "FP64", scores)]
    else:
        made = [("probabilities", [rows, len(manifest.classes)], "FP64", scores)]
        if wanted is None or "label" in wanted:
            made.append(("label", [rows], "BYTES", labels(scores, manifest)))
    return made if wanted is None else [one for name in wanted for one in made if one[0] == name]


def output_names(manifest: BundleManifest) -> tuple[str, ...]:
    """The names of the output tensors."""
    return ("value",) if manifest.task == "regression" else ("probabilities", "label")


def reply(
    scores: Predictions, manifest: BundleManifest, wanted: Wanted, name: str, version: str, made_id: str
) -> tuple[bytes, int | None]:
    """The reply's body, and the length of its JSON where bytes follow it."""
    tensors: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for output, shape, datatype, data in outputs(scores, manifest, wanted.outputs):
        tensor: dict[str, Any] = {"name": output, "shape": shape, "datatype": datatype}
        if output in wanted.binary:
            encoded = as_bytes(data)
            tensor["parameters"] = {"binary_data_size": len(encoded)}
            raw.append(encoded)
        else:
            tensor["data"] = data if datatype == "BYTES" else data.reshape(-1).tolist()
        tensors.append(tensor)
    head = orjson.dumps({"model_name": name, "model_version": version, "id": wanted.id or made_id, "outputs": tensors})
    return (b"".join([head, *raw]), len(head)) if raw else (head, None)


def as_bytes(data: Any) -> bytes:
    """An output tensor as the binary extension has it: little-endian values, or texts each after its length."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data, dtype="<f8").tobytes()
    encoded = [text.encode() for text in data]
    return b"".join(part for text in encoded for part in (struct.pack("<I", len(text)), text))


def texts_of(raw: memoryview | bytes, name: str) -> list[bytes]:
    """The texts of a ``BYTES`` tensor in binary form, each after its length in four bytes, little-endian.

    Raises:
        BadRequest: a length leads beyond the end.
    """
    texts = []
    at = 0
    end = len(raw)
    while at < end:
        if at + 4 > end:
            raise BadRequest(f"Input tensor {name!r}: {end - at} bytes are left over after the last text.")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > end:
            raise BadRequest(f"Input tensor {name!r}: a text of {size} bytes leads beyond the tensor's end.")
        texts.append(bytes(raw[at : at + size]))
        at += size
    return texts


def metadata(served: Any) -> dict[str, Any]:
    """The model metadata reply of a :class:`serving.server.served.Served`."""
    manifest, schema = served.model.manifest, served.model.schema
    given = [{"name": c.name, "datatype": V2_TYPES[c.type], "shape": [-1]} for c in schema.inputs]
    sizes: dict[str, tuple[list[int], str]] = {
        "value": ([-1], "FP64"),
        "probabilities": ([-1, len(manifest.classes)], "FP64"),
        "label": ([-1], "BYTES"),
    }
    made = [{"name": n, "datatype": sizes[n][1], "shape": sizes[n][0]} for n in output_names(manifest)]
    return {
        "name": served.name,
        "versions": [served.version],
        "platform": f"sluiceway_{served.runtime}",
        "inputs": given,
        "outputs": made,
    }


def _wanted(payload: Mapping[str, Any], manifest: BundleManifest) -> Wanted:
    request_id = payload.get("id")
    if request_id is not None and type(request_id) is not str:
        raise BadRequest("The V2 request cannot be read: id: a text is needed.")
    parameters = _parameters(payload, "")
    every = parameters.get("binary_data_output") is True
    known = output_names(manifest)
    asked_for = payload.get("outputs")
    if asked_for is None or asked_for == []:
        return Wanted(request_id, None, frozenset(known) if every else frozenset())
    if type(asked_for) is not list:
        raise BadRequest("The V2 request cannot be read: outputs: a list is needed.")
    names: list[str] = []
    binary = set()
    for index, output in enumerate(asked_for):
        name = output.get("name") if type(output) is dict else None
        if name not in known:
            raise BadRequest(f"outputs.{index}.name: this model's outputs are {', '.join(known)}.")
        if name not in names:
            names.append(name)
        if _parameters(output, f"outputs.{index}.").get("binary_data", every) is True:
            binary.add(name)
    return Wanted(request_id, tuple(names), frozenset(binary))


def _parameters(owner: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise BadRequest(f"The V2 request cannot be read: {where}parameters: an object is needed.")
    return parameters


def _tensor(index: int, given: Any, rest: memoryview | None, used: int) -> tuple[Tensor, int]:
    """A tensor of the request, and how many of the bytes after the JSON it takes."""
    if type(given) is not dict:
        raise BadRequest(f"The V2 request cannot be read: inputs.{index}: a tensor is an object.")
    name, shape, datatype = given.get("name"), given.get("shape"), given.get("datatype")
    if type(name) is not str:
        raise BadRequest(f"The V2 request cannot be read: inputs.{index}.name: Field required, a text.")
    if type(shape) is not list or not _SIZES.issuperset(map(type, shape)) or min(shape, default=0) < 0:
        raise BadRequest(f"The V2 request cannot be read: inputs.{index}.shape: Field required, a list of sizes.")
    if type(datatype) is not str or (datatype != "BYTES" and datatype not in DTYPES):
        raise BadRequest(
            f"The V2 request cannot be read: inputs.{index}.datatype: Field required, BYTES or {', '.join(DTYPES)}."
        )
    data = given.get("data")
    if data is not None:
        if type(data) is not list:
            raise BadRequest(f"The V2 request cannot be read: inputs.{index}.data: a list is needed.")
        return Tensor(name, datatype, shape, _flat(data, index) if data and type(data[0]) is list else data), 0
    size = _parameters(given, f"inputs.{index}.").get("binary_data_size")
    if size is None:
        raise BadRequest(f"The V2 request cannot be read: inputs.{index}.data: Field required.")
    if rest is None:
        raise BadRequest(f"Input tensor {name!r} is binary, but the header Inference-Header-Content-Length is missing.")
    if type(size) is not int or size < 0 or used + size > len(rest):
        raise BadRequest(
            f"inputs.{index}.parameters.binary_data_size: {size!r} does not fit the {len(rest) - used} bytes left."
        )
    raw = rest[used : used + size]
    if datatype == "BYTES":
        return Tensor(name, datatype, shape, texts_of(raw, name)), size
    dtype = DTYPES[datatype]
    if size % dtype.itemsize:
        raise BadRequest(f"Input tensor {name!r}: {size} bytes are no whole number of {datatype} values.")
    return Tensor(name, datatype, shape, np.frombuffer(raw, dtype)), size


def _flat(data: list[Any], index: int) -> list[Any]:
    flat: list[Any] = []
    for part in data:
        if type(part) is not list:
            raise BadRequest(f"inputs.{index}.data holds lists and other values side by side.")
        flat += part
    return flat


def _matrix(tensor: Tensor, limits: Limits) -> Asked:
    rows, width = tensor.shape
    if len(tensor.data) != rows * width:
        raise BadRequest(f"Input tensor {tensor.name!r} has shape {[rows, width]} and {len(tensor.data)} values.")
    _check_rows(rows, limits)
    if isinstance(tensor.data, np.ndarray):
        return Asked(rows, matrix=tensor.data.reshape(rows, width))
    data = tensor.data
    return Asked(rows, rows=[data[start : start + width] for start in range(0, rows * width, width)])


def _check_rows(rows: int, limits: Limits) -> None:
    if rows > limits.rows:
        raise BadRequest(f"The request has {rows:,} rows; the most is {limits.rows:,}. Send several.")


def _texts(tensor: Tensor, limits: Limits) -> list[Any]:
    texts: list[Any] = []
    for row, value in enumerate(tensor.data):
        if type(value) is bytes:
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                raise BadRequest(f"Input tensor {tensor.name!r}, row {row}: the bytes are not UTF-8 text.") from error
        texts.append(value)
        if type(value) is str and len(value) > limits.text_chars:
            check_texts([(value,)], (tensor.name,), limits)
    return texts
