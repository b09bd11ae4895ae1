"""Which image each component runs in: the only place that says so.

The names carry ``python`` because KFP's local runner warns about images that do not.
"""

REGISTRY = "ghcr.io/sluiceway"
VERSION = "0.1.0"

DATA = f"{REGISTRY}/python-data:{VERSION}"
CONTROL = f"{REGISTRY}/python-control:{VERSION}"
SERVING = f"{REGISTRY}/python-serving:{VERSION}"
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


def for_training(framework: str, *, gpu: bool) -> str:
    """The image that trains models of a framework; those with CUDA are several GB larger, so only where it is used."""
    return _TRAINING[framework][gpu]
