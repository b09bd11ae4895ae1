"""Lets MLflow load a bundle of any framework: the ``loader_module`` of its ``python_function`` flavor.

Nothing of the model's own runs: the bundle is verified and read as the server reads it. MLflow checks rows against the
model's signature, so what arrives here is the model frame.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from serving.bundle import Model, Predictions, load

if TYPE_CHECKING:
    import pandas as pd

_NOTE = "registered_model_meta"  # MLflow puts it beside a model that it fetches from its registry

FLAVOR = {"loader_module": "serving.mlflow_model"}
"""What stands under ``python_function`` in ``MLmodel``."""


class BundleModel:
    """A bundle with the method that MLflow calls."""

    def __init__(self, model: Model) -> None:
        """Keep the loaded bundle."""
        self._model = model

    def predict(self, frame: "pd.DataFrame") -> Predictions:
        """Predict from a model frame; see :meth:`serving.bundle.Model.predict_frame`."""
        return self._model.predict_frame(frame)


def _load_pyfunc(path: str) -> BundleModel:
    """Called by MLflow with the model's folder.

    Raises:
        BadBundle: the bundle does not verify, or its model holds something that is not allowed.
    """
    (Path(path) / _NOTE).unlink(missing_ok=True)
    return BundleModel(load(Path(path)))
