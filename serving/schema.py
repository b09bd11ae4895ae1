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
SIGNATURE_FILE = "bundle.sig"
"""Beside the manifest where the bundle is signed; it covers every other file, see ``serving.signing``."""

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


class Export(_Frozen):
    """Another form of the ONNX graph, and what it loses against the native model on the same rows.

    Attributes:
        file: path relative to the bundle; empty where there is none, and then ``reason`` says why.
        bytes: its size.
        rows: how many rows were compared; predictions differ by at most ``max_abs``, 999 in 1,000 by ``p999_abs``.
        metric: name of the primary metric on those rows.
        value: that metric of this form's predictions; None where it is not defined, as an AUC of one class.
        change: ``value`` less the native model's: a fall in ROC AUC is negative, a rise in RMSE positive.
        reason: why there is no file.
    """

    file: str = ""
    bytes: int = 0
    rows: int = 0
    max_abs: float = 0.0
    p999_abs: float = 0.0
    metric: str = ""
    value: float | None = None
    change: float | None = None
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
        exports: other forms of the graph by kind, such as ``int8``; see ``components.train.exports``.
        files: digest and size of every other file of the bundle but its signature, by relative path.
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
    exports: dict[str, Export] = {}
    files: dict[str, FileDigest]

    @classmethod
    def read(cls, folder: Path) -> "BundleManifest":
        """Read ``bundle.json`` from a bundle; it does not verify the files."""
        return cls.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
