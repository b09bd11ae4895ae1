"""A fitted scikit-learn pipeline as the trainer contract wants it."""

import importlib
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED

from components.features.schema import FeatureSchema
from components.train.contract import Flavor
from serving.schema import NATIVE_FILES

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import pandas as pd

REQUIREMENTS = ("scikit-learn", "skops", "numpy", "pandas", "scipy")
ROWS_AT_ONCE = 16_384
_FILE = NATIVE_FILES["sklearn"]
_ADAPTER = "sklearn.externals.array_api_compat.torch"


@dataclass(frozen=True)
class FittedPipeline:
    """A fitted pipeline.

    Attributes:
        pipeline: a scikit-learn pipeline that takes the model frame.
        facts: what the fit ended with, by name, for instance ``iterations``.
    """

    pipeline: Any
    facts: dict[str, float] = field(default_factory=dict)

    def predict(self, frame: "pd.DataFrame") -> "np.ndarray[Any, Any]":
        """Probabilities ``(rows, classes)``, or values ``(rows,)`` of a regressor.

        Many rows go through a forest in pieces side by side: its own threads would add trees up in any order.
        """
        import numpy as np

        predict = getattr(self.pipeline, self._method())
        if len(frame) <= ROWS_AT_ONCE or not self._is_forest():
            return np.asarray(predict(frame), "float64")
        from joblib import Parallel, delayed

        pieces = [frame.iloc[first : first + ROWS_AT_ONCE] for first in range(0, len(frame), ROWS_AT_ONCE)]
        done = Parallel(n_jobs=-1, prefer="threads")(delayed(predict)(piece) for piece in pieces)
        return np.concatenate(done).astype("float64", copy=False)

    def save(self, folder: Path) -> Flavor:
        """Write the pipeline with skops, and check that serving would load it.

        Raises:
            BadBundle: it holds a type that is not on the list of :mod:`serving.trust`.
        """
        from serving.trust import check

        path = folder / _FILE
        _skops_io().dump(self.pipeline, path, compression=ZIP_DEFLATED, compresslevel=1)
        types = check(path)
        entry = {
            "code": None,
            "pickled_model": _FILE,  # MLflow's name for the file, whatever its format
            "serialization_format": "skops",
            "skops_trusted_types": types,
            "sklearn_version": version("scikit-learn"),
        }
        pyfunc = {"loader_module": "mlflow.sklearn", "model_path": _FILE, "predict_fn": self._method()}
        return Flavor("sklearn", entry, pyfunc, REQUIREMENTS)

    def graph(self, schema: FeatureSchema) -> "onnx.ModelProto":
        """The pipeline in doubles from end to end. Raises NoGraph."""
        from components.train.sklearn.graph import build

        return build(self.pipeline, schema)

    def edges(self) -> "dict[str, np.ndarray[Any, Any]]":
        """The thresholds of the trees by column; empty for other models."""
        from components.train.sklearn.edges import edges

        return edges(self.pipeline)

    def _method(self) -> str:
        return "predict_proba" if hasattr(self.pipeline, "predict_proba") else "predict"

    def _is_forest(self) -> bool:
        from sklearn.ensemble._forest import BaseForest

        return isinstance(self.pipeline.steps[-1][1], BaseForest)


def _skops_io() -> ModuleType:
    """skops, without PyTorch where that is installed.

    skops lists scikit-learn's estimators when it is imported; for that scikit-learn imports all of its packages, among
    them the adapter to PyTorch, which takes two seconds. None in its place is taken for a package that is not there.
    """
    if _ADAPTER in sys.modules:
        return importlib.import_module("skops.io")
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    modules[_ADAPTER] = None
    try:
        return importlib.import_module("skops.io")
    finally:
        del modules[_ADAPTER]
