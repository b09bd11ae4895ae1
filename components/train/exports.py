"""Other forms of the ONNX graph, for devices with little memory; each with what it loses, measured.

``int8``
    Weights of MatMul and Gemm as 8-bit integers, a quarter of the size; activations are quantised as they come, by
    the range of each call, so that a prediction depends a little on the rows that are sent with it. It is measured as
    a device uses it, one row at a time.
``fp16``
    Weights and arithmetic of the network as half-precision floats. What happens to a number before the first layer
    stays as it is: half precision ends at 65,504.
``ort``
    The graph as it is, optimised and in onnxruntime's own format, which the small onnxruntime builds for phones and
    microcontrollers read.

The first two shrink the float32 arithmetic of networks. A tree's thresholds and the doubles of a linear model have
nothing to shrink: what moves rows across thresholds is no smaller form of the same model.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.evaluate.metrics import PRIMARY, measure
from components.train.feature_set import Split
from components.train.hyperparameters import near
from components.train.parity import onnx_predictions, onnxruntime_errors
from serving.schema import Export

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from components.features.schema import FeatureSchema

FOLDER = "exports"
"""Where they lie in the bundle."""
ROWS = 5_000
"""Evenly spaced rows of a longer valid split that each form is measured on."""


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse a kind of export that there is not.

    Raises:
        BadInput: names it, and what there is.
    """
    for kind in kinds:
        if kind not in _KINDS:
            raise BadInput(f"There is no export {kind!r}{near(kind, list(_KINDS))}.")


def export(
    graph: "onnx.ModelProto | None",
    kinds: Sequence[str],
    bundle: Path,
    valid: Split,
    scores: "np.ndarray[Any, Any]",
    schema: "FeatureSchema",
) -> dict[str, Export]:
    """Write the kinds that are asked for, and measure each against the native model.

    Args:
        graph: the graph that holds parity; None where there is none.
        kinds: of ``int8``, ``fp16`` and ``ort``.
        bundle: folder to write to, under ``exports``.
        valid: rows to measure on, not empty.
        scores: the native model's predictions of them.
        schema: the task and the columns.

    Returns:
        For the manifest, by kind; one that does not apply, or whose predictions are not finite, has no file and says
        why.

    Raises:
        BadInput: there is no such kind.
    """
    check_kinds(kinds)
    every = max(1, -(-len(scores) // ROWS))
    sample = Split(valid.inputs.iloc[::every], valid.target[::every])
    return {kind: _one(graph, kind, bundle, sample, scores[::every], schema) for kind in dict.fromkeys(kinds)}


def _one(
    graph: "onnx.ModelProto | None",
    kind: str,
    bundle: Path,
    rows: Split,
    scores: "np.ndarray[Any, Any]",
    schema: "FeatureSchema",
) -> Export:
    import numpy as np

    write, name, at_once, shrinks = _KINDS[kind]
    if graph is None:
        return Export(reason="not applicable: the model has no ONNX graph that holds parity")
    if shrinks and not has_float_layers(graph):
        return Export(reason="not applicable: the graph has no float32 layer, only trees or doubles")
    path = bundle / FOLDER / name
    path.parent.mkdir(exist_ok=True)
    try:
        write(graph, path)
        given = onnx_predictions(str(path), rows.inputs, schema, at_once)
    except errors() as error:
        path.unlink(missing_ok=True)
        return Export(reason=f"onnxruntime could not make or run it: {' '.join(str(error).split())}")
    difference = np.abs(given - scores)
    bad = int((~np.isfinite(difference)).sum())
    if bad:
        path.unlink()
        return Export(rows=len(scores), reason=f"{bad:,} of {difference.size:,} predictions are not finite")
    metric = PRIMARY[schema.task]
    before, value = (measure(schema.task, rows.target, one)[metric] for one in (scores, given))
    return Export(
        file=f"{FOLDER}/{name}",
        bytes=path.stat().st_size,
        rows=len(scores),
        max_abs=float(difference.max(initial=0.0)),
        p999_abs=float(np.quantile(difference, 0.999)),
        metric=metric,
        value=value if math.isfinite(value) else None,
        change=value - before if math.isfinite(value - before) else None,
    )


def errors() -> tuple[type[Exception], ...]:
    """What the converters and onnxruntime raise over a graph that they cannot take."""
    from onnx.checker import ValidationError

    return (RuntimeError, ValueError, KeyError, AssertionError, ValidationError, *onnxruntime_errors())


def has_float_layers(graph: "onnx.ModelProto") -> bool:
    """Whether it has a layer of float32, which is what ``int8`` and ``fp16`` shrink."""
    from onnx import TensorProto

    floats = {tensor.name for tensor in graph.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    return any(node.op_type in ("MatMul", "Gemm") and node.input[1] in floats for node in graph.graph.node)


def to_int8(graph: "onnx.ModelProto", path: Path) -> None:
    """Write the form ``int8``. Raises one of :func:`errors`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    whole = _copy(graph)
    add_pre_process_metadata(whole)  # it would advise to fold constants first; the writers of the graph did
    quantize_dynamic(whole, path, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)


def _fp16(graph: "onnx.ModelProto", path: Path) -> None:
    from onnx import checker, helper
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    head, tail = _parted(graph)
    cut = helper.make_model(tail, opset_imports=graph.opset_import, ir_version=graph.ir_version)
    half = convert_float_to_float16(cut, keep_io_types=True)
    whole = _copy(graph)
    needed = {name for node in head for name in node.input}
    del whole.graph.node[:], whole.graph.initializer[:], whole.graph.value_info[:]
    whole.graph.node.extend([*head, *half.graph.node])
    whole.graph.initializer.extend([one for one in graph.graph.initializer if one.name in needed])
    whole.graph.initializer.extend(half.graph.initializer)
    OnnxModel(whole).topological_sort(is_deterministic=True)  # the converter puts its casts last
    checker.check_model(whole)
    path.write_bytes(whole.SerializeToString(deterministic=True))


def _parted(graph: "onnx.ModelProto") -> "tuple[list[onnx.NodeProto], onnx.GraphProto]":
    """The nodes that work on numbers as they came in, up to the layers, and the rest as a graph of its own.

    The nodes of a graph stand in the order of their execution.
    """
    from onnx import TensorProto, helper, shape_inference

    typed = shape_inference.infer_shapes(graph).graph
    kinds = {value.name: value for value in (*typed.input, *typed.value_info)}
    numbers = (TensorProto.FLOAT, TensorProto.DOUBLE)
    constants = {one.name: one for one in graph.graph.initializer}
    raw = {value.name for value in typed.input if value.type.tensor_type.elem_type in numbers}
    head: list[onnx.NodeProto] = []
    tail: list[onnx.NodeProto] = []
    for node in graph.graph.node:
        given = set(node.input) - set(constants)
        before = node.op_type not in ("MatMul", "Gemm") and given and given <= raw
        raw.update(node.output if before else ())
        (head if before else tail).append(_own(node))
    inside = {name for node in tail for name in node.output}
    used = dict.fromkeys(name for node in tail for name in node.input if name and name not in inside)
    for node in tail:  # a constant of both parts is two: one of them becomes half precision
        node.input[:] = [f"{name}_of_layers" if name in constants else name for name in node.input]
    inputs = [kinds[name] for name in used if name not in constants]
    weights = [_renamed(constants[name]) for name in used if name in constants]
    return head, helper.make_graph(tail, "layers", inputs, list(graph.graph.output), initializer=weights)


def _own(node: "onnx.NodeProto") -> "onnx.NodeProto":
    copied = type(node)()
    copied.CopyFrom(node)
    return copied


def _renamed(constant: "onnx.TensorProto") -> "onnx.TensorProto":
    copied = type(constant)()
    copied.CopyFrom(constant)
    copied.name = f"{constant.name}_of_layers"
    return copied


def to_ort(graph: "onnx.ModelProto", path: Path) -> None:
    """Write the form ``ort``. Raises one of :func:`errors`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(
        graph.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["NchwcTransformer"],  # its result runs on this kind of processor only
    )


def _copy(graph: "onnx.ModelProto") -> "onnx.ModelProto":
    copied = type(graph)()
    copied.CopyFrom(graph)
    return copied


_KINDS: dict[str, tuple[Callable[..., None], str, int, bool]] = {
    "int8": (to_int8, "model.int8.onnx", 1, True),
    "fp16": (_fp16, "model.fp16.onnx", 0, True),
    "ort": (to_ort, "model.ort", 0, False),
}
"""By kind: what writes it, its file's name, rows per call when it is measured, and whether it shrinks float32."""
