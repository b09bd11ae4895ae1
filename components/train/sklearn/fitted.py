"""A fitted scikit-learn pipeline as the trainer contract wants it."""

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.features.schema import FeatureSchema
from components.train.contract import Flavor
from components.train.sklearn.columns import prepared_columns
from serving.schema import NATIVE_FILES

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import pandas as pd

REQUIREMENTS = ("scikit-learn", "skops", "numpy", "pandas", "scipy")
_FILE = NATIVE_FILES["sklearn"]


@dataclass(frozen=True)
class FittedPipeline:
    """A fitted pipeline.

    Attributes:
        pipeline: a scikit-learn pipeline with the steps ``prepare`` and ``model``; takes the model frame.
        facts: what the fit ended with, by name, for instance ``iterations``.
    """

    pipeline: Any
    facts: dict[str, float] = field(default_factory=dict)

    def predict(self, frame: "pd.DataFrame") -> "np.ndarray[Any, Any]":
        """Probabilities ``(rows, classes)``, or values ``(rows,)`` of a regressor."""
        import numpy as np

        return np.asarray(getattr(self.pipeline, self._method())(frame), "float64")

    def save(self, folder: Path) -> Flavor:
        """Write the pipeline with skops, and check that serving would load it."""
        import skops.io

        from serving.trust import check

        path = folder / _FILE
        skops.io.dump(self.pipeline, path)
        check(path)
        entry = {
            "code": None,
            "pickled_model": _FILE,  # MLflow's name for the file, whatever its format
            "serialization_format": "skops",
            "skops_trusted_types": sorted(skops.io.get_untrusted_types(file=path)),
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
        import numpy as np

        model = self.pipeline.named_steps["model"]
        if not hasattr(model, "_predictors"):
            return {}
        numeric = prepared_columns(self.pipeline, "numeric")
        first = len(prepared_columns(self.pipeline, "categorical"))  # the estimator counts categories first
        nodes = np.concatenate([tree.nodes for iteration in model._predictors for tree in iteration])
        nodes = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0) & np.isfinite(nodes["num_threshold"])]
        found = {n: nodes["num_threshold"][nodes["feature_idx"] == first + index] for index, n in enumerate(numeric)}
        return {name: values for name, values in found.items() if len(values)}

    def _method(self) -> str:
        return "predict_proba" if hasattr(self.pipeline, "predict_proba") else "predict"
