"""Joins a scikit-learn preparation and the graph of another library's model."""

from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.features.schema import FeatureSchema
from components.train.graph import OPSETS, Draft, probabilities
from components.train.sklearn.preparation import matrix, prepared

if TYPE_CHECKING:
    import onnx


def joined(prepare: Any, model: "onnx.ModelProto", schema: FeatureSchema) -> "onnx.ModelProto":
    """See :func:`components.train.own.behind`."""
    from onnx import TensorProto

    model = _alike(model)
    constants = {constant.name for constant in model.graph.initializer}
    inputs = [given for given in model.graph.input if given.name not in constants]
    if len(inputs) != 1:
        raise BadInput(f"The graph takes {len(inputs)} inputs; behind a preparation it takes one matrix.")
    draft = Draft()
    steps = [step for _, step in prepare.steps] if hasattr(prepare, "steps") else [prepare]
    ready = matrix(draft, prepared(draft, steps, schema)).tensor
    draft.node("Cast", ready, to=inputs[0].type.tensor_type.elem_type, output=inputs[0].name)
    draft.nodes += model.graph.node
    draft.constants += model.graph.initializer
    last = draft.node("Cast", model.graph.output[-1].name, to=TensorProto.DOUBLE)
    if schema.task != "regression":
        return draft.finish(probabilities(draft, last), schema)
    draft.node("Identity", last, output="value")
    return draft.finish(["value"], schema)


def _alike(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The graph with our operator versions, and names that are not ours."""
    import onnx
    from onnx import compose, inliner, version_converter

    if model.functions:
        model = inliner.inline_local_functions(model)
    foreign = sorted({node.domain for node in model.graph.node} - {"ai.onnx", *OPSETS})
    if foreign:
        raise BadInput(f"The graph uses operators of {', '.join(foreign)}, which not every ONNX runtime has.")
    found = {opset.domain: opset.version for opset in model.opset_import}
    if found.get("", OPSETS[""]) != OPSETS[""]:
        try:
            model = version_converter.convert_version(model, OPSETS[""])
        except RuntimeError as error:
            raise BadInput(f"The graph cannot be brought to ONNX opset {OPSETS['']}: {error}") from error
    prefixed: onnx.ModelProto = compose.add_prefix(model, prefix="model/")
    return prefixed
