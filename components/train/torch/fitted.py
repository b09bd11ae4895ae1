"""A fitted network as the trainer contract wants it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.features.schema import FeatureSchema
from components.train.contract import Flavor
from serving.torch_model import TorchModel

if TYPE_CHECKING:
    import onnx
    import pandas as pd

PYFUNC = {"loader_module": "serving.mlflow_model"}
REQUIREMENTS = ("sluiceway", "torch", "safetensors", "numpy", "pandas")


@dataclass(frozen=True)
class FittedNetwork:
    """A fitted network.

    Attributes:
        model: takes raw columns, on the CPU.
        quantiles: of the numeric features' raw values, by name.
        facts: what the fit ended with.
    """

    model: TorchModel
    quantiles: Mapping[str, NDArray[np.float64]]
    facts: Mapping[str, float] = field(default_factory=dict)

    def predict(self, frame: "pd.DataFrame") -> NDArray[np.float64]:
        """Probabilities ``(rows, classes)``, or values ``(rows,)``."""
        return self.model.predict({str(name): frame[name].to_numpy() for name in frame})

    def save(self, folder: Path) -> Flavor:
        """Write the architecture as JSON and the weights as safetensors."""
        self.model.save(folder)
        return Flavor("torch", {}, PYFUNC, REQUIREMENTS)

    def graph(self, schema: FeatureSchema) -> "onnx.ModelProto":
        """Numbers in doubles until they are squashed, then the network in float32, then its link in doubles."""
        from components.train.torch.graph import build

        return build(self.model, schema)

    def edges(self) -> Mapping[str, NDArray[np.float64]]:
        """The quantiles, about where a piecewise embedding bends."""
        return self.quantiles
