"""What ``bundle.json`` says: the manifest of a model bundle.

A bundle is an MLflow model directory that also holds ``features.json`` (see ``components.features.schema``),
``model.onnx`` where parity holds, and this manifest.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.features.schema import Task

FILE = "bundle.json"
ONNX_FILE = "model.onnx"

Framework = Literal["sklearn", "torch", "tensorflow", "onnx"]
NATIVE_FILES: dict[Framework, str] = {
    "sklearn": "model.skops",
    "torch": "model.safetensors",
    "tensorflow": "model.keras",
    "onnx": ONNX_FILE,
}
"""The native model of each framework; of ``onnx``, which takes models of any other library, it is the graph itself."""
ARCHITECTURE_FILE = "architecture.json"
"""What a torch bundle holds beside its weights: the network as plain data, see ``serving.torch_model``."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileDigest(_Frozen):
    """A file of the bundle, by its path relative to the bundle."""

    sha256: str
    bytes: int


class Parity(_Frozen):
    """How far the ONNX graph's outputs are from the native model's on the same rows."""

    rows: int
    max_abs: float
    p999_abs: float
    tolerance: float
    holds: bool
    reason: str = ""


class BundleManifest(_Frozen):
    """What ``bundle.json`` holds.

    Attributes:
        framework: which library the native model needs.
        task: what kind of prediction the model makes.
        classes: class labels as text, in the order of the probability columns; empty for regression.
        runtime: ``onnx`` where parity holds, else ``native``; what the server runs.
        prediction_bins: edges for counting predictions (probability of the last class, or the value), ascending.
        recipe: everything that decides what the model is: data version, features, trainer, parameters, seed, versions.
        recipe_digest: sha256 of the recipe; two bundles of one recipe are the same model.
        origin: where it was made: git commit, run id, Python, wall seconds. Does not decide what the model is.
        parity: measured on the validation rows; None when no graph could be built.
        files: digest and size of every other file of the bundle, by relative path.
    """

    version: Literal[1] = 1
    framework: Framework
    task: Task
    classes: tuple[str, ...] = ()
    runtime: Literal["onnx", "native"]
    prediction_bins: tuple[float, ...] = ()
    recipe: dict[str, Any]
    recipe_digest: str
    origin: dict[str, Any] = {}
    parity: Parity | None = None
    files: dict[str, FileDigest]

    @classmethod
    def read(cls, folder: Path) -> "BundleManifest":
        """Read ``bundle.json`` from a bundle; it does not verify the files."""
        return cls.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
