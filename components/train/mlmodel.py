"""Writes what makes a folder an MLflow model, without importing MLflow.

For scikit-learn the files are those of ``mlflow.sklearn.save_model(..., serialization_format="skops")``; MLflow's
import and its writer would cost two seconds of a training that needs less. A test loads the result with MLflow itself
and compares the keys.
"""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.features.schema import FeatureSchema
from components.train.contract import Flavor

if TYPE_CHECKING:
    import pandas as pd


def write(folder: Path, schema: FeatureSchema, example: "pd.DataFrame", flavor: Flavor, recipe_digest: str) -> None:
    """Write ``MLmodel``, the requirements and the input example beside the native model.

    Args:
        folder: holds the native model already.
        schema: columns, task and classes, for the signature.
        example: a few rows of the model frame.
        flavor: how MLflow loads the native model.
        recipe_digest: the model's identity.
    """
    requirements = [f"{name}=={version(name)}" for name in ("mlflow", *flavor.requirements)]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    _yaml(folder / "python_env.yaml", _python_env())
    _yaml(folder / "conda.yaml", _conda(requirements))
    split = {"columns": list(example.columns), "data": _rows(example)}
    (folder / "input_example.json").write_text(json.dumps(split), encoding="utf-8")
    (folder / "serving_input_example.json").write_text(json.dumps({"dataframe_split": split}), encoding="utf-8")
    _yaml(folder / "MLmodel", _mlmodel(folder, schema, flavor, recipe_digest))


def signature(schema: FeatureSchema) -> dict[str, Any]:
    """MLflow's signature: numeric columns are doubles, categorical ones text; probabilities or a value come out."""
    types = {"numeric": "double", "categorical": "string"}
    inputs = [{"type": types[feature.kind], "name": feature.name, "required": True} for feature in schema.features]
    shape = [-1] if schema.task == "regression" else [-1, len(schema.classes)]
    outputs = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": shape}}]
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None}


def _mlmodel(folder: Path, schema: FeatureSchema, flavor: Flavor, recipe_digest: str) -> dict[str, Any]:
    return {
        "flavors": {
            "python_function": {
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "python_version": platform.python_version(),
                **flavor.pyfunc,
            },
        }
        | ({flavor.name: dict(flavor.entry)} if flavor.entry else {}),
        "is_signature_from_type_hint": False,
        "metadata": {
            "task": schema.task,
            "target": schema.target,
            "classes": list(schema.classes),
            "data_version": schema.data_version,
            "recipe_digest": recipe_digest,
        },
        "mlflow_version": version("mlflow"),
        "model_id": None,
        "model_size_bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "model_uuid": recipe_digest[:32],
        "prompts": None,
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "pandas_orient": "split",
            "serving_input_path": "serving_input_example.json",
            "type": "dataframe",
        },
        "signature": signature(schema),
        "type_hint_from_example": False,
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }


def _python_env() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }


def _conda(requirements: list[str]) -> dict[str, Any]:
    return {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={platform.python_version()}", "pip", {"pip": requirements}],
    }


def _rows(example: "pd.DataFrame") -> list[list[Any]]:
    return [[None if value != value else value for value in row] for row in example.to_numpy(dtype=object).tolist()]


def _yaml(path: Path, value: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), encoding="utf-8")
