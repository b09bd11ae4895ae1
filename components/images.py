"""Which image each component runs in: the only place that says so.

The names carry ``python`` because KFP's local runner warns about images that do not. A package may pin them by digest
or take them from another registry (:mod:`pipelines.pinning`). Some images are chosen only when a run is at work: the
training's, and the model server's. A package tells the steps that choose what those are pinned to, so that no image has
to know its own digest.
"""

import json

from components.settings import settings

REGISTRY = "ghcr.io/sluiceway"
VERSION = "0.1.0"

DATA = f"{REGISTRY}/python-data:{VERSION}"
CONTROL = f"{REGISTRY}/python-control:{VERSION}"
SERVING = f"{REGISTRY}/python-serving:{VERSION}"
SPARK = f"{REGISTRY}/python-spark:{VERSION}"
TRAIN_SKLEARN = f"{REGISTRY}/python-train-sklearn:{VERSION}"
TRAIN_TORCH = f"{REGISTRY}/python-train-torch:{VERSION}"
TRAIN_TORCH_CUDA = f"{REGISTRY}/python-train-torch-cuda:{VERSION}"
TRAIN_TENSORFLOW = f"{REGISTRY}/python-train-tensorflow:{VERSION}"
TRAIN_TENSORFLOW_CUDA = f"{REGISTRY}/python-train-tensorflow-cuda:{VERSION}"

_TRAINING = {
    "sklearn": (TRAIN_SKLEARN, TRAIN_SKLEARN),
    "torch": (TRAIN_TORCH, TRAIN_TORCH_CUDA),
    "tensorflow": (TRAIN_TENSORFLOW, TRAIN_TENSORFLOW_CUDA),
}

VARIABLE = "SLUICEWAY_IMAGES"
"""Environment variable in which a package says what stands for each image that a run chooses, as a JSON object."""


def for_training(framework: str, *, gpu: bool) -> str:
    """The image that trains models of a framework; those with CUDA are several GB larger, so only where it is used."""
    return _as_packaged(_TRAINING[framework][gpu])


def for_serving(native: str = "") -> str:
    """The image of the model server; a model that ONNX cannot express is served where its framework is."""
    return _as_packaged(_TRAINING[native][False] if native else SERVING)


def for_features(engine: str) -> str:
    """The image that computes features: all but DuckDB need Spark."""
    return _as_packaged(DATA if engine == "duckdb" else SPARK)


def name_of(reference: str) -> str:
    """An image's name without registry, tag and digest."""
    return reference.rpartition("/")[2].partition("@")[0].partition(":")[0]


def chosen_by_runs() -> str:
    """The value of :data:`VARIABLE`, as this code names the images."""
    chosen = {DATA, SERVING, SPARK, *(image for pair in _TRAINING.values() for image in pair)}
    return json.dumps({name_of(image): image for image in sorted(chosen)}, separators=(",", ":"))


def _as_packaged(reference: str) -> str:
    """What the package of this run has instead of an image's name and tag."""
    return settings().images.get(name_of(reference), reference)
