"""A fitted Keras model as the trainer contract wants it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from components.features.schema import FeatureSchema
from components.train.contract import Flavor
from components.train.keras.encoding import Encoding
from components.train.keras.network import Shape
from serving.keras_model import KerasModel, check
from serving.schema import NATIVE_FILES

if TYPE_CHECKING:
    import onnx
    import pandas as pd

REQUIREMENTS = ("tensorflow", "keras", "numpy", "pandas")
_FILE = NATIVE_FILES["tensorflow"]


@dataclass(frozen=True)
class FittedNetwork:
    """A fitted network.

    Attributes:
        model: takes raw columns.
        core: the network inside it, in float32.
        encoding: of the columns, which the model holds as well.
        shape: of the network.
        task: what it predicts.
        facts: what the fit ended with.
    """

    model: KerasModel
    core: keras.Model
    encoding: Encoding
    shape: Shape
    schema: FeatureSchema
    facts: Mapping[str, float] = field(default_factory=dict)

    def predict(self, frame: "pd.DataFrame") -> NDArray[Any]:
        """Probabilities ``(rows, classes)``, or values ``(rows,)``."""
        scores = self.model.predict([frame[feature.name].to_numpy() for feature in self.schema.features])
        return scores.reshape(-1) if self.schema.task == "regression" else scores

    def save(self, folder: Path) -> Flavor:
        """Write the model, and check that serving would load it."""
        path = folder / _FILE
        self.model.model.save(path)
        check(path)
        # MLflow looks for model.keras in the folder "data"; its own pyfunc takes one tensor, not columns of two kinds.
        entry = {
            "code": None,
            "data": ".",
            "keras_module": "keras",
            "keras_version": keras.__version__,
            "model_type": "keras",
            "save_format": "tf",
        }
        return Flavor("tensorflow", entry, {"loader_module": "serving.mlflow_model"}, REQUIREMENTS)

    def graph(self, schema: FeatureSchema) -> "onnx.ModelProto":
        """The model as an ONNX graph. Raises NoGraph."""
        from components.train.keras.graph import build

        return build(self.core, self.encoding, self.shape, schema)

    def edges(self) -> Mapping[str, NDArray[np.float64]]:
        """The ends of the bins by numeric column: the prediction bends there, and stops beyond the outermost."""
        numbers = self.encoding.numbers
        found = {}
        for index, name in enumerate(numbers.names):
            own = numbers.column == index
            knots = np.union1d(numbers.low[own], numbers.low[own] + numbers.width[own]).astype("float64")
            if len(knots):
                found[name] = knots * numbers.scale[index] + numbers.centre[index]
        return found
