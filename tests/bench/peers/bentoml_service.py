"""The model as a BentoML service, with typed arguments as its documentation shows them."""

import os
from pathlib import Path

import bentoml
import joblib
import numpy as np
import pandas as pd

FOLDER = Path(os.environ["MODEL_FOLDER"])


@bentoml.service(workers=1, traffic={"timeout": 60})
class Model:
    """One scikit-learn model."""

    def __init__(self):
        self._model = joblib.load(FOLDER / "model.joblib")

    @bentoml.api
    def predict(self, instances: np.ndarray) -> np.ndarray:
        return self._model.predict_proba(instances)

    @bentoml.api
    def predict_frame(self, instances: pd.DataFrame) -> np.ndarray:
        return self._model.predict_proba(instances)
