"""The ONNX graph of a network made by :mod:`components.train.keras.network`, written node by node.

Columns are standardised in doubles and looked up as text, as in the model; the dense part is float32 in both, and the
last step, from logits to probabilities or values, is in doubles again. Keras's own export does not end with the
tf2onnx of today.
"""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from components.features.schema import FeatureSchema
from components.train.graph import Draft, concatenated, outputs
from components.train.keras.encoding import Encoding
from components.train.keras.network import EPSILON, OUTPUT, Shape

if TYPE_CHECKING:
    import onnx


def build(core: keras.Model, encoding: Encoding, shape: Shape, schema: FeatureSchema) -> "onnx.ModelProto":
    """The ONNX model: see :mod:`components.train.graph` for its inputs and outputs."""
    from onnx import TensorProto

    draft = Draft()
    parts = [*_numbers(draft, encoding), *_categories(draft, encoding, core)]
    hidden = _dense(draft, core, "first", concatenated(draft, parts))
    for block in range(shape.blocks):
        inner = _dense(draft, core, f"wide_{block}", _norm(draft, core, f"norm_{block}", hidden))
        inner = _dense(draft, core, f"back_{block}", draft.node("Relu", inner))
        hidden = draft.node("Add", hidden, inner)
    logits = _dense(draft, core, OUTPUT, _norm(draft, core, "norm", hidden))
    raw = draft.node("Cast", logits, to=TensorProto.DOUBLE)
    if schema.task == "regression":
        scaled = draft.node("Mul", raw, draft.constant(np.array([encoding.scale])))
        raw = draft.node("Add", scaled, draft.constant(np.array([encoding.centre])))
    link = {"binary": "LogitLink", "multiclass": "MultinomialLogit", "regression": "IdentityLink"}[schema.task]
    return draft.finish(outputs(draft, raw, link), schema)


def _numbers(draft: Draft, encoding: Encoding) -> list[str]:
    """The bins and the gaps of the numeric columns, float32 ``[N, k]`` each."""
    from onnx import TensorProto

    numbers = encoding.numbers
    if not numbers.inputs:
        return []
    centred = draft.node("Sub", concatenated(draft, list(numbers.names)), draft.constant(numbers.centre))
    scaled = draft.node("Div", centred, draft.constant(numbers.scale))
    values = draft.node("Cast", scaled, to=TensorProto.FLOAT)
    missing = draft.node("IsNaN", values)
    parts = []
    if len(numbers.column):
        known = draft.node("Where", missing, draft.constant(np.float32(0)), values)
        taken = draft.node("Gather", known, draft.constant(numbers.column), axis=1)
        inside = draft.node("Sub", taken, draft.constant(numbers.low))
        share = draft.node("Div", inside, draft.constant(numbers.width))
        parts.append(draft.node("Clip", share, draft.constant(np.float32(0)), draft.constant(np.float32(1))))
    if len(numbers.gaps):
        gaps = draft.node("Gather", missing, draft.constant(numbers.gaps), axis=1)
        parts.append(draft.node("Cast", gaps, to=TensorProto.FLOAT))
    return parts


def _categories(draft: Draft, encoding: Encoding, core: keras.Model) -> list[str]:
    """The embeddings of the categorical columns side by side, float32 ``[N, k]``."""
    from onnx import TensorProto

    if not encoding.vocabularies:
        return []
    columns = []
    for (name, vocabulary), offset in zip(encoding.vocabularies.items(), encoding.offsets, strict=True):
        known = {word: float(offset + index) for index, word in enumerate(vocabulary.words, 1)}
        columns.append(draft.encode(name, known, float(offset)))
    codes = draft.node("Cast", concatenated(draft, columns), to=TensorProto.INT64)
    vectors = draft.node("Gather", draft.constant(_weights(core, "categories")[0]), codes, axis=0)
    return [draft.node("Flatten", vectors, axis=1)]


def _dense(draft: Draft, core: keras.Model, name: str, given: str) -> str:
    kernel, bias = _weights(core, name)
    return draft.node("Add", draft.node("MatMul", given, draft.constant(kernel)), draft.constant(bias))


def _norm(draft: Draft, core: keras.Model, name: str, given: str) -> str:
    gamma, beta = _weights(core, name)
    scale, shift = draft.constant(gamma), draft.constant(beta)
    return draft.node("LayerNormalization", given, scale, shift, axis=-1, epsilon=EPSILON)


def _weights(core: keras.Model, name: str) -> list[Any]:
    return list(core.get_layer(name).get_weights())
