"""What the server counts about its predictions, for Prometheus, beside KServe's own histograms."""

import os
import re
import socket
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter, Histogram

from serving.bundle import Predictions
from serving.local.envoy_config import LATENCY_MS
from serving.protocol import labels
from serving.schema import BundleManifest

_SECONDS = tuple(edge / 1000 for edge in LATENCY_MS)
_PROBABILITY_BINS = tuple(step / 10 for step in range(1, 10))
_POD_OF_DEPLOYMENT = re.compile(r"(?P<workload>.+)-[bcdf-hj-np-tv-xz2456789]{1,10}-[bcdf-hj-np-tv-xz2456789]{5}")


def own_revision(name: str) -> str:
    """What the metrics call this version, where nobody says: found in the pod that the server runs in.

    In KServe's Knative mode it is the revision (``K_REVISION``). In Standard mode it is the Deployment, which a pod's
    name begins with: ``{deployment}-{hash}-{hash}``, in the letters that Kubernetes takes for such hashes.

    Args:
        name: the model's name, taken where there is no such pod either.
    """
    pod = _POD_OF_DEPLOYMENT.fullmatch(socket.gethostname())
    return os.environ.get("K_REVISION") or (pod["workload"] if pod else name)


class Telemetry:
    """The metrics of one revision; every one carries ``model_name`` and ``revision``."""

    def __init__(self, name: str, revision: str) -> None:
        """Register the request metrics; the usual codes start at 0, so that a rate has a beginning."""
        self._who = {"model_name": name, "revision": revision}
        who = tuple(self._who)
        self._requests = Counter(
            "sluiceway_requests", "Prediction requests answered, by HTTP status code", (*who, "code")
        )
        self._seconds = Histogram(
            "sluiceway_request_seconds", "Seconds from a prediction request's head to its reply", who, buckets=_SECONDS
        )
        self._seconds.labels(**self._who)
        predict = Histogram("request_predict_seconds", "predict request latency", ("model_name",), buckets=_SECONDS)
        self._predict = predict.labels(model_name=name)
        for code in ("200", "400", "500"):
            self._requests.labels(**self._who, code=code)
        self._histogram: Any = None
        self._labels: Counter | None = None

    def expect(self, manifest: BundleManifest) -> None:
        """Register the prediction metric that fits the model.

        ``sluiceway_prediction`` counts the probability of the last class (binary) or the value (regression) over the
        manifest's bins; ``sluiceway_predicted_total`` counts labels (multiclass).
        """
        who = tuple(self._who)
        if manifest.task == "multiclass":
            self._labels = Counter("sluiceway_predicted", "Predictions by label", (*who, "label"))
            for label in manifest.classes:
                self._labels.labels(**self._who, label=label)
            return
        bins: Sequence[float] = sorted(set(manifest.prediction_bins))
        if not bins and manifest.task == "binary":
            bins = _PROBABILITY_BINS
        if bins:
            help_text = "Predictions: the value, or the probability of the last class"
            histogram = Histogram("sluiceway_prediction", help_text, who, buckets=bins)
            self._histogram = histogram.labels(**self._who)

    def predicted(self, scores: Predictions, manifest: BundleManifest) -> None:
        """Count predictions."""
        if self._labels is not None:
            for label in labels(scores, manifest):
                self._labels.labels(**self._who, label=label).inc()
        elif self._histogram is not None:
            for value in (scores if scores.ndim == 1 else scores[:, -1]).tolist():
                self._histogram.observe(value)

    def scored(self, requests: int, rows: int, seconds: float) -> None:
        """Count a batch: its requests, rows and the seconds of the model."""
        for _ in range(requests):
            self._predict.observe(seconds)

    def waiting(self, requests: int) -> None:
        """Note how many requests wait for the model."""

    def answered(self, code: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(**self._who, code=str(code)).inc()
        self._seconds.labels(**self._who).observe(seconds)
