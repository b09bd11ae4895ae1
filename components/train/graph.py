"""Builds the ONNX graph of a fitted pipeline, in doubles from end to end.

Converters that go through float32 move rows across tree thresholds: on the telco set 62 of 1,761 probabilities, by up
to 0.14. Here numbers stay doubles, thresholds and leaf values are doubles, and a set of categories is a membership
test, so that the graph takes the same branches as scikit-learn for every input, next to a threshold too.

The graph has one input of shape ``[N, 1]`` per feature, named as the column: double or string. Its outputs are
``label`` (int64 ``[N]``) and ``probabilities`` (double ``[N, classes]``) for classification, ``value`` (double
``[N, 1]``) for regression.
"""

from typing import TYPE_CHECKING, Any

from components.features.schema import FeatureSchema
from components.train.trainers import prepared_columns
from components.train.trees import ensemble

if TYPE_CHECKING:
    import onnx

OPSETS = {"": 18, "ai.onnx.ml": 5}
IR_VERSION = 10


class NoGraph(Exception):
    """A pipeline that this module has no graph for; the message says which part."""


def build(pipeline: Any, schema: FeatureSchema) -> "onnx.ModelProto":
    """The ONNX model of a pipeline made by one of ``components.train.trainers``.

    Raises:
        NoGraph: a step, loss or output that has no counterpart here.
    """
    draft = Draft()
    model = pipeline.named_steps["model"]
    kind = type(model).__name__
    if kind.startswith("HistGradientBoosting"):
        raw = _boosted_trees(draft, pipeline)
        link = type(model._loss.link).__name__
    elif kind in ("LogisticRegression", "Ridge"):
        raw = _linear(draft, pipeline)
        link = "MultinomialLogit" if kind == "LogisticRegression" and len(schema.classes) > 2 else ""
        link = link or ("LogitLink" if kind == "LogisticRegression" else "IdentityLink")
    else:
        raise NoGraph(f"there is no ONNX graph for {kind}")
    return draft.finish(_outputs(draft, raw, link), schema)


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

    def encode(self, column: str, codes: dict[str, float], unknown: float) -> str:
        """A text column ``[N, 1]`` as doubles, by category."""
        import numpy as np
        from onnx import numpy_helper

        return self.node(
            "LabelEncoder",
            column,
            domain="ai.onnx.ml",
            keys_strings=list(codes),
            values_tensor=numpy_helper.from_array(np.array(list(codes.values()), "float64"), "values"),
            default_tensor=numpy_helper.from_array(np.array([unknown], "float64"), "default"),
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


def _outputs(draft: Draft, raw: str, link: str) -> list[str]:
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
        draft.node("Concat", first, last, axis=1, output="probabilities")
    elif link == "MultinomialLogit":
        draft.node("Softmax", raw, axis=1, output="probabilities")
    else:
        raise NoGraph(f"there is no ONNX graph for the link function {link}")
    draft.node("ArgMax", "probabilities", axis=1, keepdims=0, output="label")
    return ["label", "probabilities"]


def _concatenated(draft: Draft, columns: list[str]) -> str:
    return columns[0] if len(columns) == 1 else draft.node("Concat", *columns, axis=1)


def _boosted_trees(draft: Draft, pipeline: Any) -> str:
    """Raw predictions ``[N, trees per iteration]``; TreeEnsemble-5 of the ai.onnx.ml operators."""
    import numpy as np

    model = pipeline.named_steps["model"]
    codes = _category_codes(pipeline)
    columns = [draft.encode(name, code, float("nan")) for name, code in codes.items()]
    columns += prepared_columns(pipeline, "numeric")  # the estimator puts categories first
    trees = draft.node("TreeEnsemble", _concatenated(draft, columns), domain="ai.onnx.ml", **ensemble(model))
    baseline = np.asarray(model._baseline_prediction, "float64").reshape(1, -1)
    return draft.node("Add", trees, draft.constant(baseline))


def _category_codes(pipeline: Any) -> dict[str, dict[str, float]]:
    """The code that the trees see for each category, by column.

    The estimator encodes the pipeline's codes once more; asking the fitted parts for the code of every category
    follows whatever they do.
    """
    import pandas as pd

    prepare, model = pipeline.named_steps["prepare"], pipeline.named_steps["model"]
    columns = prepared_columns(pipeline, "categorical")
    if not columns:
        return {}
    categories = dict(zip(columns, prepare.named_transformers_["categorical"].categories_, strict=True))
    rows = max(map(len, categories.values()))
    frame = pd.DataFrame({name: [0.0] * rows for name in prepare.feature_names_in_})
    for name, values in categories.items():
        frame[name] = pd.Series([*values, *[values[0]] * (rows - len(values))], dtype="object")
    codes = model._preprocessor.transform(prepare.transform(frame))
    return {
        name: dict(zip(map(str, values), codes[: len(values), column].tolist(), strict=True))
        for column, (name, values) in enumerate(categories.items())
    }


def _linear(draft: Draft, pipeline: Any) -> str:
    """Decision values ``[N, 1]`` or ``[N, classes]``."""
    import numpy as np

    prepare, model = pipeline.named_steps["prepare"], pipeline.named_steps["model"]
    columns = []
    if numeric := prepared_columns(pipeline, "numeric"):
        columns.append(_scaled(draft, prepare.named_transformers_["numeric"], _concatenated(draft, numeric)))
    encoder = prepare.named_transformers_.get("categorical")
    for index, name in enumerate(prepared_columns(pipeline, "categorical")):
        columns.append(_one_hot(draft, name, encoder, index))
    coefficients = np.atleast_2d(np.asarray(model.coef_, "float64")).T
    product = draft.node("MatMul", _concatenated(draft, columns), draft.constant(np.ascontiguousarray(coefficients)))
    return draft.node("Add", product, draft.constant(np.asarray(model.intercept_, "float64").reshape(1, -1)))


def _scaled(draft: Draft, numbers: Any, column: str) -> str:
    imputed = draft.constant(numbers.named_steps["impute"].statistics_.reshape(1, -1).astype("float64"))
    known = draft.node("Where", draft.node("IsNaN", column), imputed, column)
    scaler = numbers.named_steps["scale"]
    centred = draft.node("Sub", known, draft.constant(scaler.mean_.reshape(1, -1)))
    return draft.node("Div", centred, draft.constant(scaler.scale_.reshape(1, -1)))


def _one_hot(draft: Draft, name: str, encoder: Any, index: int) -> str:
    """A text column as ``[N, width]``: lit at its category, at the infrequent one where there is one, or nowhere."""
    import numpy as np
    from onnx import TensorProto

    names = [str(category) for category in encoder.categories_[index]]
    infrequent = encoder.infrequent_categories_[index]
    rare = set() if infrequent is None else {str(category) for category in infrequent}
    frequent = [category for category in names if category not in rare]
    codes = {category: float(code) for code, category in enumerate(frequent)}
    codes |= dict.fromkeys(rare, float(len(frequent)))
    width = len(frequent) + bool(rare)
    code = draft.encode(name, dict(sorted(codes.items())), float(len(frequent)) if rare else -1.0)
    lit = draft.node("Equal", code, draft.constant(np.arange(width, dtype="float64").reshape(1, -1)))
    return draft.node("Cast", lit, to=TensorProto.DOUBLE)
