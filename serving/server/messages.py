"""gRPC's messages of the Open Inference Protocol: tensors to columns, predictions to tensors.

The message types are KServe's own, as protobuf generated them, so that they are the ones its clients use. Their module
is read from its file: ``import kserve`` would take two seconds and 190 MB for them.
"""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import orjson

from components.errors import SluicewayError
from serving.bundle import Predictions
from serving.schema import BundleManifest
from serving.server import v2
from serving.server.columns import Asked, Reader
from serving.server.failures import BadRequest
from serving.server.limits import Limits
from serving.server.v2 import Tensor, Wanted

_MODULE = "grpc_predict_v2_pb2"
_FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where a tensor of each datatype keeps its values; FP16 has no such field and comes raw."""


class NoMessages(SluicewayError):
    """KServe's package, which holds the message types, is not installed."""


def messages() -> ModuleType:
    """The module of the message types; the same classes that ``kserve`` has, however often and by whom it is loaded.

    Raises:
        NoMessages: ``kserve`` is not installed.
    """
    name = f"{__package__}._{_MODULE}"
    if name in sys.modules:
        return sys.modules[name]
    kserve = importlib.util.find_spec("kserve")
    if kserve is None or kserve.origin is None:
        raise NoMessages("gRPC needs the message types of the package kserve; install it, or leave --grpc-port out.")
    path = Path(kserve.origin).parent / "protocol" / "grpc" / f"{_MODULE}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module


def asked(request: Any, reader: Reader, manifest: BundleManifest, limits: Limits) -> tuple[Asked, Wanted]:
    """Read a ``ModelInferRequest``.

    Raises:
        BadRequest: names the field.
    """
    if len(request.inputs) > limits.columns:
        raise BadRequest(f"The request has {len(request.inputs):,} tensors; the most is {limits.columns:,}.")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(f"raw_input_contents: there are {len(raw)}, but {len(request.inputs)} inputs.")
    tensors = [
        _raw(index, given, raw[index]) if raw else _typed(index, given) for index, given in enumerate(request.inputs)
    ]
    return v2.columns_of(tensors, reader, limits), _wanted(request, manifest)


def reply(
    scores: Predictions, manifest: BundleManifest, wanted: Wanted, name: str, version: str, made_id: str
) -> bytes:
    """The encoded ``ModelInferResponse``."""
    response = messages().ModelInferResponse(model_name=name, model_version=version, id=wanted.id or made_id)
    for output, shape, datatype, data in v2.outputs(scores, manifest, wanted.outputs):
        tensor = response.outputs.add(name=output, datatype=datatype, shape=shape)
        if wanted.binary:  # all or none: protobuf's raw contents have the outputs' order
            response.raw_output_contents.append(v2.as_bytes(data))
        elif datatype == "BYTES":
            tensor.contents.bytes_contents.extend([text.encode() for text in data])
        else:
            tensor.contents.fp64_contents.extend(data.reshape(-1).tolist())
    encoded: bytes = response.SerializeToString()
    return encoded


def metadata(described: Mapping[str, Any]) -> Any:
    """The ``ModelMetadataResponse`` of what :func:`serving.server.v2.metadata` gives."""
    return messages().ModelMetadataResponse(**described)


def as_rest(request: Any) -> bytes:
    """A request's JSON, had it come over REST: the payload log has one form for both."""
    raw = request.raw_input_contents
    tensors = []
    for index, given in enumerate(request.inputs):
        tensor = _raw(index, given, raw[index]) if raw else _typed(index, given)
        data = tensor.data.tolist() if isinstance(tensor.data, np.ndarray) else tensor.data
        texts = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in data]
        tensors.append({"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype, "data": texts})
    return orjson.dumps({"id": request.id, "inputs": tensors})


def _wanted(request: Any, manifest: BundleManifest) -> Wanted:
    known = v2.output_names(manifest)
    names: list[str] = []
    for index, output in enumerate(request.outputs):
        if output.name not in known:
            raise BadRequest(f"outputs.{index}.name: this model's outputs are {', '.join(known)}.")
        if output.name not in names:
            names.append(output.name)
    is_raw = bool(request.raw_input_contents)
    if "binary_data_output" in request.parameters:
        is_raw = request.parameters["binary_data_output"].bool_param
    return Wanted(request.id or None, tuple(names) or None, frozenset(known) if is_raw else frozenset())


def _typed(index: int, given: Any) -> Tensor:
    datatype = given.datatype
    field = _FIELDS.get(datatype)
    if field is None:
        raise BadRequest(_unknown(index, datatype, "; FP16 comes in raw_input_contents" if datatype == "FP16" else ""))
    contents = given.contents
    data = list(getattr(contents, field))
    if not data and contents.ByteSize():
        there = ", ".join(descriptor.name for descriptor, _ in contents.ListFields())
        raise BadRequest(f"inputs.{index}.contents: values of {datatype} belong in {field}, not in {there}.")
    return Tensor(given.name, datatype, list(given.shape), data)


def _raw(index: int, given: Any, raw: bytes) -> Tensor:
    if given.HasField("contents"):
        raise BadRequest(f"inputs.{index}.contents: a request with raw_input_contents has no contents.")
    name, datatype, shape = given.name, given.datatype, list(given.shape)
    if datatype == "BYTES":
        return Tensor(name, datatype, shape, v2.texts_of(raw, name))
    dtype = v2.DTYPES.get(datatype)
    if dtype is None:
        raise BadRequest(_unknown(index, datatype, ""))
    if len(raw) % dtype.itemsize:
        raise BadRequest(f"Input tensor {name!r}: {len(raw)} bytes are no whole number of {datatype} values.")
    return Tensor(name, datatype, shape, np.frombuffer(raw, dtype))


def _unknown(index: int, datatype: str, more: str) -> str:
    return f"inputs.{index}.datatype: {datatype!r} is none of BYTES, {', '.join(v2.DTYPES)}{more}."
