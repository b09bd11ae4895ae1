"""What decides what a model is, and where it was made."""

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from components.features.schema import FeatureSchema
from serving.schema import Framework

_LIBRARIES: dict[Framework, tuple[str, ...]] = {
    "sklearn": ("scikit-learn", "numpy", "onnx", "skops"),
    "torch": ("torch", "numpy", "onnx"),
    "tensorflow": ("tensorflow", "keras", "numpy", "onnx"),
    "onnx": ("numpy", "onnx"),
}


def recipe(
    schema: FeatureSchema,
    trainer: str,
    framework: Framework,
    parameters: dict[str, Any],
    seed: int,
    parity_tolerance: float,
) -> dict[str, Any]:
    """Everything that decides what the model is; two trainings of one recipe make the same model."""
    versions = {name: _version(name) for name in ("sluiceway", *_LIBRARIES[framework])}
    if ":" in trainer:
        from components.train.own import source_digest

        versions["code"] = source_digest(trainer)
    return {
        "data_version": schema.data_version,
        "features_digest": digest(schema.model_dump(mode="json")),
        "trainer": trainer,
        "parameters": {name: _plain(value) for name, value in sorted(parameters.items())},
        "seed": seed,
        "parity_tolerance": parity_tolerance,
        "versions": versions,
    }


def digest(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def origin() -> dict[str, Any]:
    """Which code and run made a model; none of it decides what the model is."""
    return {
        "git_commit": os.environ.get("SLUICEWAY_GIT_COMMIT") or _git_commit(),
        "run_id": os.environ.get("SLUICEWAY_RUN_ID", ""),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _git_commit() -> str:
    """The commit of the checkout that this code runs from; empty where it is installed without one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _plain(value: Any) -> Any:
    """A value as JSON holds it."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
