"""What a user's own trainer returned, as the trainer contract wants it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from components.errors import BadInput
from components.features.schema import FeatureSchema
from components.train.contract import Data, Fitted, Flavor, NoGraph
from components.train.own import Onnx, Own
from components.train.parity import UNSEEN, onnx_predictions
from serving.mlflow_model import FLAVOR
from serving.schema import NATIVE_FILES

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import pandas as pd

_CONTRACT = ("facts", "predict", "save", "graph", "edges")
_WANTED = {
    "sklearn": "a fitted scikit-learn pipeline",
    "onnx": "components.train.own.Onnx",
    "tensorflow": "a keras.Model",
    "torch": "an object with the methods of components.train.contract.Fitted",
}
_FAILURES = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError)


def fitted(returned: Any, own: Own, data: Data) -> Fitted:
    """What was returned, once it predicts what a model of this task must, missing values included.

    Raises:
        BadInput: it is of another kind than the trainer's framework, or fails on rows that serving will meet.
    """
    made = _wrapped(returned, own, data.schema)
    rows = data.valid.inputs.head(2).reset_index(drop=True)
    empty = rows.copy()
    for feature in data.schema.features:
        empty[feature.name] = float("nan") if feature.kind == "numeric" else ["", UNSEEN][: len(empty)]
    _check(made, own, data.schema, rows, "of the valid split")
    _check(made, own, data.schema, empty, "without values, or with text never seen before")
    return made


def _wrapped(returned: Any, own: Own, schema: FeatureSchema) -> Fitted:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

    if all(hasattr(returned, name) for name in _CONTRACT):
        return cast(Fitted, returned)
    if own.framework == "onnx" and isinstance(returned, Onnx):
        return FittedOnnx(returned, schema, returned.facts)
    if own.framework == "tensorflow" and any(base.__module__.startswith("keras.") for base in type(returned).__mro__):
        return FittedKeras(returned, schema)
    if own.framework == "sklearn" and isinstance(returned, BaseEstimator):
        from components.train.sklearn.fitted import FittedPipeline

        pipeline = returned if isinstance(returned, Pipeline) else Pipeline([("model", returned)])
        _check_classes(pipeline, own, schema)
        return FittedPipeline(pipeline)
    kind = type(returned).__name__
    raise BadInput(
        f"The trainer {own.name} returned {'nothing' if returned is None else f'a {kind}'}; with "
        f"framework={own.framework!r} it must return {_WANTED[own.framework]}."
    )


def _check_classes(pipeline: Any, own: Own, schema: FeatureSchema) -> None:
    if schema.task == "regression":
        return
    if not hasattr(pipeline, "predict_proba"):
        kind = type(pipeline.steps[-1][1]).__name__
        raise BadInput(f"The trainer {own.name} returned a {kind}, which has no probabilities (predict_proba).")
    known = list(getattr(pipeline, "classes_", range(len(schema.classes))))  # one that is not fitted says so itself
    if known != list(range(len(schema.classes))):
        raise BadInput(
            f"The model of the trainer {own.name} knows the classes {', '.join(map(str, known[:5]))}; fit it on "
            "data.train.target, whose classes are counted from 0."
        )


def _check(made: Fitted, own: Own, schema: FeatureSchema, rows: "pd.DataFrame", which: str) -> None:
    import numpy as np

    try:
        scores = np.asarray(made.predict(rows))
    except _FAILURES as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"The model of the trainer {own.name} fails on rows {which}: {reason}") from error
    wanted = (len(rows),) if schema.task == "regression" else (len(rows), len(schema.classes))
    if scores.shape != wanted:
        raise BadInput(
            f"The model of the trainer {own.name} predicts an array of shape {scores.shape} for {len(rows)} rows; "
            f"{schema.task} needs {wanted}."
        )
    if not np.isfinite(scores).all():
        raise BadInput(f"The model of the trainer {own.name} predicts NaN or infinity for rows {which}.")


@dataclass(frozen=True)
class FittedOnnx:
    """A graph that is the model itself."""

    own: Onnx
    schema: FeatureSchema
    facts: Mapping[str, float] = field(default_factory=dict)

    def predict(self, frame: "pd.DataFrame") -> "np.ndarray[Any, Any]":
        """What the graph was made of predicts; without that, what the graph predicts."""
        import numpy as np

        if self.own.predict is None:
            return onnx_predictions(self.own.model.SerializeToString(), frame, self.schema)
        return np.asarray(self.own.predict(frame), "float64")

    def save(self, folder: Path) -> Flavor:
        """Write the graph."""
        import onnx

        file = NATIVE_FILES["onnx"]
        (folder / file).write_bytes(self.own.model.SerializeToString(deterministic=True))
        entry = {
            "code": None,
            "data": file,
            "onnx_session_options": None,
            "onnx_version": onnx.__version__,
            "providers": ["CPUExecutionProvider"],
        }
        return Flavor("onnx", entry, FLAVOR, ("sluiceway", "onnxruntime", "numpy", "pandas"))

    def graph(self, schema: FeatureSchema) -> "onnx.ModelProto":
        """The graph as it was given."""
        return self.own.model

    def edges(self) -> "dict[str, np.ndarray[Any, Any]]":
        """Unknown."""
        return {}


@dataclass(frozen=True)
class FittedKeras:
    """A Keras model that takes raw columns, served natively."""

    model: Any
    schema: FeatureSchema
    facts: Mapping[str, float] = field(default_factory=dict)

    def predict(self, frame: "pd.DataFrame") -> "np.ndarray[Any, Any]":
        """Probabilities ``(rows, classes)``, or values ``(rows,)``."""
        from serving.keras_model import KerasModel

        scores = KerasModel(self.model).predict([frame[feature.name].to_numpy() for feature in self.schema.features])
        return scores.reshape(-1) if self.schema.task == "regression" else scores

    def save(self, folder: Path) -> Flavor:
        """Write the model, and check that serving would load it. Raises BadBundle."""
        from serving.keras_model import load

        path = folder / NATIVE_FILES["tensorflow"]
        self.model.save(path)
        load(path, self.schema)
        return Flavor("keras", {}, FLAVOR, ("sluiceway", "tensorflow", "keras", "numpy", "pandas"))

    def graph(self, schema: FeatureSchema) -> "onnx.ModelProto":
        """Keras' own export recurses without end on models with text inputs."""
        raise NoGraph("a Keras model of your own is served by TensorFlow: there is no ONNX graph for its layers here")

    def edges(self) -> "dict[str, np.ndarray[Any, Any]]":
        """Unknown."""
        return {}
