"""Writes ONNX graphs node by node, in doubles wherever a rounding could change a branch.

Converters that go through float32 move rows across tree thresholds: on the telco set 62 of 1,761 probabilities, by up
to 0.14. Here numbers stay doubles, thresholds and leaf values are doubles, and a set of categories is a membership
test, so that the graph takes the same branches as scikit-learn for every input, next to a threshold too.

The graph has one input of shape ``[N, 1]`` per feature, named as the column: double or string. Its outputs are
``label`` (int64 ``[N]``) and ``probabilities`` (double ``[N, classes]``) for classification, ``value`` (double
``[N, 1]``) for regression.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.features.schema import FeatureSchema
from components.train.contract import NoGraph

if TYPE_CHECKING:
    import onnx

OPSETS = {"": 18, "ai.onnx.ml": 5}
IR_VERSION = 10


class Draft:
    """The nodes and constants of a graph while it is being written."""

    def __init__(self) -> None:
        """Start empty."""
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any) -> str:
        """A constant; its type is the array's."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        """A node with one output; returns the output's name."""
        from onnx import helper

        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attributes))
        return output

    def encode(self, column: str, codes: Mapping[str, float], unknown: float, kind: str = "float64") -> str:
        """A text column ``[N, 1]`` as doubles, or numbers of another kind, by category."""
        import numpy as np
        from onnx import numpy_helper

        return self.node(
            "LabelEncoder",
            column,
            domain="ai.onnx.ml",
            keys_strings=list(codes),
            values_tensor=numpy_helper.from_array(np.array(list(codes.values()), kind), "values"),
            default_tensor=numpy_helper.from_array(np.array([unknown], kind), "default"),
        )

    def finish(self, outputs: list[str], schema: FeatureSchema) -> "onnx.ModelProto":
        """The checked model, with the schema's features as inputs."""
        import onnx
        from onnx import TensorProto, helper

        inputs = [
            helper.make_tensor_value_info(
                feature.name, TensorProto.DOUBLE if feature.kind == "numeric" else TensorProto.STRING, ["N", 1]
            )
            for feature in schema.features
        ]
        shapes: dict[str, tuple[int, list[str | int | None]]] = {
            "label": (TensorProto.INT64, ["N"]),
            "probabilities": (TensorProto.DOUBLE, ["N", len(schema.classes)]),
            "value": (TensorProto.DOUBLE, ["N", 1]),
        }
        ends = [helper.make_tensor_value_info(name, *shapes[name]) for name in outputs]
        graph = helper.make_graph(self.nodes, "sluiceway", inputs, ends, initializer=self.constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="sluiceway")
        onnx.checker.check_model(model)
        return model


def outputs(draft: Draft, raw: str, link: str) -> list[str]:
    """The graph's outputs for raw predictions ``[N, k]`` under a link function; returns their names.

    Raises:
        NoGraph: a link function that has no counterpart here.
    """
    import numpy as np

    if link == "IdentityLink":
        draft.node("Identity", raw, output="value")
        return ["value"]
    if link == "LogLink":
        draft.node("Exp", raw, output="value")
        return ["value"]
    if link in ("LogitLink", "HalfLogitLink"):
        last = draft.node("Sigmoid", raw)
        first = draft.node("Sub", draft.constant(np.array(1.0)), last)
        return probabilities(draft, draft.node("Concat", first, last, axis=1))
    if link == "MultinomialLogit":
        return probabilities(draft, draft.node("Softmax", raw, axis=1))
    raise NoGraph(f"there is no ONNX graph for the link function {link}")


def probabilities(draft: Draft, shares: str) -> list[str]:
    """The graph's outputs for probabilities ``[N, classes]``; returns their names."""
    draft.node("Identity", shares, output="probabilities")
    draft.node("ArgMax", "probabilities", axis=1, keepdims=0, output="label")
    return ["label", "probabilities"]


def concatenated(draft: Draft, columns: list[str]) -> str:
    """Columns ``[N, k]`` side by side."""
    return columns[0] if len(columns) == 1 else draft.node("Concat", *columns, axis=1)
