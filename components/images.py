"""Which image each component runs in: the only place that says so.

The names carry ``python`` because KFP's local runner warns about images that do not.
"""

REGISTRY = "ghcr.io/sluiceway"
VERSION = "0.1.0"

DATA = f"{REGISTRY}/python-data:{VERSION}"
TRAIN_SKLEARN = f"{REGISTRY}/python-train-sklearn:{VERSION}"
CONTROL = f"{REGISTRY}/python-control:{VERSION}"
