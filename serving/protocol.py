"""What KServe's V1 and V2 protocols, REST and gRPC, have in common."""

from serving.bundle import Predictions
from serving.schema import BundleManifest

V2_TYPES = {"number": "FP64", "boolean": "BOOL", "string": "BYTES", "timestamp": "BYTES"}
"""The datatype of an input column in the metadata."""


def labels(scores: Predictions, manifest: BundleManifest) -> list[str]:
    """The most probable class of each row."""
    return [manifest.classes[index] for index in scores.argmax(axis=1)]
