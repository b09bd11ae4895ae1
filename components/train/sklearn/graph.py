"""The ONNX graph of a scikit-learn pipeline made by :mod:`components.train.sklearn.trainers`."""

from typing import TYPE_CHECKING, Any

from components.features.schema import FeatureSchema
from components.train.contract import NoGraph
from components.train.graph import Draft, concatenated, outputs
from components.train.sklearn.columns import prepared_columns
from components.train.sklearn.trees import ensemble

if TYPE_CHECKING:
    import onnx


def build(pipeline: Any, schema: FeatureSchema) -> "onnx.ModelProto":
    """The ONNX model of a pipeline made by one of ``components.train.sklearn.trainers``.

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
    return draft.finish(outputs(draft, raw, link), schema)


def _boosted_trees(draft: Draft, pipeline: Any) -> str:
    """Raw predictions ``[N, trees per iteration]``; TreeEnsemble-5 of the ai.onnx.ml operators."""
    import numpy as np

    model = pipeline.named_steps["model"]
    codes = _category_codes(pipeline)
    columns = [draft.encode(name, code, float("nan")) for name, code in codes.items()]
    columns += prepared_columns(pipeline, "numeric")  # the estimator puts categories first
    trees = draft.node("TreeEnsemble", concatenated(draft, columns), domain="ai.onnx.ml", **ensemble(model))
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
        columns.append(_scaled(draft, prepare.named_transformers_["numeric"], concatenated(draft, numeric)))
    encoder = prepare.named_transformers_.get("categorical")
    for index, name in enumerate(prepared_columns(pipeline, "categorical")):
        columns.append(_one_hot(draft, name, encoder, index))
    coefficients = np.atleast_2d(np.asarray(model.coef_, "float64")).T
    product = draft.node("MatMul", concatenated(draft, columns), draft.constant(np.ascontiguousarray(coefficients)))
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
