"""The ONNX graph of a network, written from its architecture; see :mod:`serving.torch_net`."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from components.features.schema import FeatureSchema
from components.train.graph import Draft, concatenated
from serving.torch_model import FAR, Architecture, TorchModel

if TYPE_CHECKING:
    import onnx

_EPSILON = 1e-5  # of nn.LayerNorm


def build(model: TorchModel, schema: FeatureSchema) -> "onnx.ModelProto":
    """The graph: numbers in doubles until they are squashed, the network in float32, its link in doubles."""
    draft = Draft()
    layers = _Layers(draft, model)
    hidden = layers.network(_numbers(draft, model), _codes(draft, model.architecture))
    return draft.finish(_linked(draft, hidden, model), schema)


def _numbers(draft: Draft, model: TorchModel) -> tuple[str, str]:
    """Prepared numbers and missing indicators, float32; empty names where there are none."""
    from onnx import TensorProto

    architecture = model.architecture
    if not architecture.numeric:
        return "", ""
    raw = concatenated(draft, [feature.name for feature in architecture.numeric])
    centred = draft.node("Sub", raw, draft.constant(model.encoder.centre.reshape(1, -1)))
    scaled = draft.node("Mul", centred, draft.constant(model.encoder.factor.reshape(1, -1)))
    known = draft.node("Where", draft.node("IsNaN", scaled), draft.constant(np.array(0.0)), scaled)
    near = draft.node("Clip", known, draft.constant(np.array(-FAR)), draft.constant(np.array(FAR)))
    third = draft.node("Div", near, draft.constant(np.array(3.0)))
    root = draft.node("Sqrt", draft.node("Add", draft.node("Mul", third, third), draft.constant(np.array(1.0))))
    numbers = draft.node("Cast", draft.node("Div", near, root), to=TensorProto.FLOAT)
    if not architecture.indicators:
        return numbers, ""
    indicators = draft.constant(np.array(architecture.indicators, "int64"))
    missing = draft.node("Gather", draft.node("IsNaN", raw), indicators, axis=1)
    return numbers, draft.node("Cast", missing, to=TensorProto.FLOAT)


def _codes(draft: Draft, architecture: Architecture) -> str:
    """Rows of the embedding table ``[N, categories]``; an empty name where there are none."""
    columns = []
    for feature, offset in zip(architecture.categorical, architecture.offsets, strict=True):
        codes = {category: offset + code for code, category in enumerate(feature.vocabulary, 1)}
        known = codes or {"": offset}  # the operator wants a key; a missing category is an unseen one then
        columns.append(draft.encode(feature.name, known, offset, "int64"))
    return concatenated(draft, columns) if columns else ""


class _Layers:
    """The network's layers, written with the weights of the same names."""

    def __init__(self, draft: Draft, model: TorchModel) -> None:
        self._draft, self._architecture = draft, model.architecture
        self._weights = {name: value.numpy() for name, value in model.net.state_dict().items()}

    def network(self, numbers: tuple[str, str], codes: str) -> str:
        """The raw outputs ``[members, N, outputs]``, float32."""
        draft, architecture = self._draft, self._architecture
        h = draft.node("Unsqueeze", self._inputs(numbers, codes), self._axes(0))
        if architecture.members > 1:
            h = draft.node("Mul", h, self._weight("scale"))
        h = self._linear(h, "first")
        for index in range(architecture.blocks):
            deeper = draft.node("Relu", self._linear(self._norm(h, f"blocks.{index}.norm"), f"blocks.{index}.up"))
            h = draft.node("Add", h, self._linear(deeper, f"blocks.{index}.down"))
        h = draft.node("Relu", self._norm(h, "norm"))
        return draft.node("Add", draft.node("MatMul", h, self._weight("head")), self._weight("bias"))

    def _inputs(self, numbers: tuple[str, str], codes: str) -> str:
        draft = self._draft
        parts = [name for name in numbers if name]
        if numbers[0] and self._architecture.numeric_embedding != "none":
            parts.append(self._embedded(numbers[0]))
        if codes:
            gathered = draft.node("Gather", self._weight("category.weight"), codes, axis=0)
            parts.append(draft.node("Flatten", gathered, axis=1))
        return concatenated(draft, parts)

    def _embedded(self, numbers: str) -> str:
        draft = self._draft
        alone = draft.node("Unsqueeze", numbers, self._axes(2))
        if self._architecture.numeric_embedding == "piecewise":
            through = draft.node(
                "Mul", draft.node("Sub", alone, self._weight("embedded.start")), self._weight("embedded.inverse")
            )
            zero, one = (draft.constant(np.array(value, "float32")) for value in (0, 1))
            seen = draft.node("Clip", through, zero, one)
        else:
            frequency = np.float32(2 * math.pi) * self._weights["embedded.frequency"]
            angle = draft.node("Mul", alone, draft.constant(frequency))
            seen = draft.node("Concat", draft.node("Sin", angle), draft.node("Cos", angle), axis=2)
        by_feature = draft.node("Transpose", seen, perm=[1, 0, 2])
        product = draft.node("MatMul", by_feature, self._weight("embedded.linear.weight"))
        added = draft.node("Add", product, self._weight("embedded.linear.bias"))
        return draft.node("Relu", draft.node("Flatten", draft.node("Transpose", added, perm=[1, 0, 2]), axis=1))

    def _linear(self, h: str, name: str) -> str:
        product = self._draft.node("MatMul", h, self._constant(self._weights[f"{name}.weight"].T))
        return self._draft.node("Add", product, self._weight(f"{name}.bias"))

    def _norm(self, h: str, name: str) -> str:
        scale, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._draft.node("LayerNormalization", h, scale, bias, axis=-1, epsilon=_EPSILON)

    def _weight(self, name: str) -> str:
        return self._constant(self._weights[name])

    def _constant(self, values: Any) -> str:
        return self._draft.constant(np.ascontiguousarray(values))

    def _axes(self, axis: int) -> str:
        return self._draft.constant(np.array([axis], "int64"))


def _linked(draft: Draft, raw: str, model: TorchModel) -> list[str]:
    """The graph's outputs from raw outputs ``[members, N, outputs]``: the mean of the members' own."""
    from onnx import TensorProto

    raw = draft.node("Cast", raw, to=TensorProto.DOUBLE)
    members = draft.constant(np.array([0], "int64"))
    if model.architecture.task == "regression":
        mean = draft.node("ReduceMean", raw, members, keepdims=0)
        spread = draft.node("Mul", mean, draft.constant(np.array(model.spread)))
        draft.node("Add", spread, draft.constant(np.array(model.centre)), output="value")
        return ["value"]
    if model.architecture.task == "binary":
        last = draft.node("ReduceMean", draft.node("Sigmoid", raw), members, keepdims=0)
        first = draft.node("Sub", draft.constant(np.array(1.0)), last)
        draft.node("Concat", first, last, axis=1, output="probabilities")
    else:
        draft.node("ReduceMean", draft.node("Softmax", raw, axis=2), members, keepdims=0, output="probabilities")
    draft.node("ArgMax", "probabilities", axis=1, keepdims=0, output="label")
    return ["label", "probabilities"]
