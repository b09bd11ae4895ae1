"""What the server counts about its predictions, for Prometheus: KServe's histograms and ours per revision.

Counts lie in memory that all workers share (:mod:`serving.server.counters`), so any worker's ``/metrics`` is about all.
"""

import logging
import os
import re
import socket
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from serving.bundle import Predictions
from serving.latency import LATENCY_MS
from serving.schema import BundleManifest
from serving.server.counters import GAUGE, Board, Row

log = logging.getLogger("sluiceway.serving")

_SECONDS = tuple(edge / 1000 for edge in LATENCY_MS)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)
_PROBABILITY_BINS = tuple(step / 10 for step in range(1, 10))
_FEW_ROWS = 16
"""Up to so many predictions are counted one by one, which is faster than to call NumPy."""
_POD_OF_DEPLOYMENT = re.compile(r"(?P<workload>.+)-[bcdf-hj-np-tv-xz2456789]{1,10}-[bcdf-hj-np-tv-xz2456789]{5}")

_PHASES = {
    "preprocess": "request_preprocess_seconds",
    "predict": "request_predict_seconds",
    "postprocess": "request_postprocess_seconds",
    "explain": "request_explain_seconds",
}
_HELP = {
    "sluiceway_requests": "Prediction requests answered, by HTTP status code",
    "sluiceway_request_seconds": "Seconds from a prediction request's head to its reply",
    "sluiceway_prediction": "Predictions: the value, or the probability of the last class",
    "sluiceway_predicted": "Predictions by label",
    "sluiceway_batch_requests": "Requests that were scored together",
    "sluiceway_batch_rows": "Rows that were scored together",
    "sluiceway_requests_waiting": "Requests that wait for the model",
    "sluiceway_connections": "Open connections",
    "sluiceway_refused": "Connections refused before it was known what they ask for, by HTTP status code",
    "sluiceway_payloads": "Requests that were to be logged, by what became of them",
    "sluiceway_worker_restarts": "Worker processes that ended unasked and were started again",
    "sluiceway_workers": "Worker processes",
    "request_preprocess_seconds": "pre-process request latency",
    "request_predict_seconds": "predict request latency",
    "request_postprocess_seconds": "post-process request latency",
    "request_explain_seconds": "explain request latency",
}
_GONE_CPU = "cpu of processes that are gone"


def own_revision(name: str) -> str:
    """What the metrics call this version, where nobody says: found in the pod that the server runs in.

    In KServe's Knative mode it is the revision (``K_REVISION``). In Standard mode it is the Deployment, which a pod's
    name begins with: ``{deployment}-{hash}-{hash}``, in the letters that Kubernetes takes for such hashes.

    Args:
        name: the model's name, taken where there is no such pod either.
    """
    pod = _POD_OF_DEPLOYMENT.fullmatch(socket.gethostname())
    return os.environ.get("K_REVISION") or (pod["workload"] if pod else name)


class _Histogram:
    """Counts per bucket and the sum of one histogram; adds without a lock."""

    __slots__ = ("_edges", "_start", "_sum", "_values")

    def __init__(self, row: Row, key: str, edges: Sequence[float]) -> None:
        self._edges = edges
        self._values = row.values
        self._start = row.place(key, len(edges) + 2)  # one bucket beyond the edges, and the sum
        self._sum = self._start + len(edges) + 1

    def observe(self, value: float) -> None:
        self._values[self._start + bisect_left(self._edges, value)] += 1.0
        self._values[self._sum] += value

    def observe_times(self, value: float, times: int) -> None:
        self._values[self._start + bisect_left(self._edges, value)] += times
        self._values[self._sum] += value * times

    def observe_all(self, values: np.ndarray) -> None:
        places, counts = np.unique(np.searchsorted(self._edges, values), return_counts=True)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            self._values[self._start + place] += count
        self._values[self._sum] += float(values.sum())


class Telemetry:
    """The metrics of one revision; every one carries ``model_name`` and, but for KServe's, ``revision``."""

    def __init__(self, name: str, revision: str, row: Row | None = None) -> None:
        """Begin to count; the usual codes start at 0, so that a rate has a beginning.

        Args:
            name: of the model.
            revision: the label of its version.
            row: where to count; memory of its own by default.
        """
        self._row = Board().row(0) if row is None else row
        self._values = self._row.values
        self.name, self.revision = name, revision
        self._codes: dict[int, int] = {}
        for code in (200, 400, 500):
            self._code(code)
        self._seconds = self._histogram("sluiceway_request_seconds", _SECONDS)
        self._batch_requests = self._histogram("sluiceway_batch_requests", _COUNTS)
        self._batch_rows = self._histogram("sluiceway_batch_rows", _COUNTS)
        self._waiting = self._row.place(GAUGE + _key("sluiceway_requests_waiting", name, revision))
        self._phases = {
            phase: _Histogram(self._row, _key(metric, name, edges=_SECONDS), _SECONDS)
            for phase, metric in _PHASES.items()
        }
        self._predict = self._phases["predict"]
        self.preprocessed = self._phases["preprocess"].observe
        """Count the seconds of reading a request."""
        self.postprocessed = self._phases["postprocess"].observe
        """Count the seconds of writing a reply."""
        self.explained = self._phases["explain"].observe
        """Count the seconds of an explanation."""
        self.bins: tuple[float, ...] = ()
        """Edges of the predictions' histogram; empty where predictions are counted by label, or not yet."""
        self._predictions: _Histogram | None = None
        self._labels: list[int] = []

    def _histogram(self, metric: str, edges: Sequence[float]) -> _Histogram:
        return _Histogram(self._row, _key(metric, self.name, self.revision, edges=edges), edges)

    def _code(self, code: int) -> int:
        place = self._row.place(_key("sluiceway_requests", self.name, self.revision, str(code)))
        self._codes[code] = place
        return place

    def expect(self, manifest: BundleManifest) -> None:
        """Begin to count the predictions of a bundle, in the metric that fits it.

        ``sluiceway_prediction`` counts the probability of the last class (binary) or the value (regression) over the
        manifest's bins; ``sluiceway_predicted_total`` counts labels (multiclass).
        """
        self.bins, self._predictions, self._labels = (), None, []
        if manifest.task == "multiclass":
            who = (self.name, self.revision)
            self._labels = [self._row.place(_key("sluiceway_predicted", *who, label)) for label in manifest.classes]
            return
        bins = tuple(sorted(set(manifest.prediction_bins)))
        if not bins and manifest.task == "binary":
            bins = _PROBABILITY_BINS
        if bins:
            self.bins = bins
            self._predictions = self._histogram("sluiceway_prediction", bins)

    def predicted(self, scores: Predictions, manifest: BundleManifest) -> None:
        """Count predictions: probabilities (n, k), or values (n,)."""
        if self._predictions is not None:
            values = scores if scores.ndim == 1 else scores[:, -1]
            if len(values) > _FEW_ROWS:
                self._predictions.observe_all(values)
                return
            for value in values.tolist():
                self._predictions.observe(value)
        elif self._labels:
            for label, count in Counter(scores.argmax(axis=1).tolist()).items():
                self._values[self._labels[label]] += count

    def scored(self, requests: int, rows: int, seconds: float) -> None:
        """Count a batch: its requests, rows and the seconds of the model."""
        self._predict.observe_times(seconds, requests)
        self._batch_requests.observe(requests)
        self._batch_rows.observe(rows)

    def waiting(self, requests: int) -> None:
        """Note how many requests wait for the model."""
        self._values[self._waiting] = requests

    def answered(self, code: int, seconds: float) -> None:
        """Count an answered request."""
        place = self._codes.get(code)
        self._values[self._code(code) if place is None else place] += 1.0
        self._seconds.observe(seconds)


class Metrics:
    """The metrics of all models and of the server itself; gives the page for Prometheus."""

    def __init__(self, board: Board | None = None, place: int = 0) -> None:
        """Take a row of the board.

        Args:
            board: shared with the other workers; one of its own by default.
            place: which row is this process's.
        """
        self.board = Board() if board is None else board
        self._row = self.board.row(place)
        self._known: dict[str, Telemetry] = {}
        self._payloads: dict[str, int] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_Shared(self.board, self._known))
        self._registry.register(_Processes(self.board))
        PlatformCollector(self._registry)
        for name in ("sluiceway_connections", "sluiceway_workers"):
            self._row.place(GAUGE + name)
        self._row.place("sluiceway_worker_restarts")

    def model(self, name: str, revision: str) -> Telemetry:
        """The metrics of a model; the same object for the same name."""
        if name not in self._known:
            self._known[name] = Telemetry(name, revision, self._row)
        return self._known[name]

    def refused(self, code: int) -> None:
        """Count a connection that was refused before it was known what it asked for."""
        self._row.values[self._row.place(_key("sluiceway_refused", str(code)))] += 1.0

    def connections(self, number: int) -> None:
        """Note how many connections are open."""
        self._row.values[self._row.place(GAUGE + "sluiceway_connections")] = number

    def workers(self, number: int) -> None:
        """Note how many workers there are."""
        self._row.values[self._row.place(GAUGE + "sluiceway_workers")] = number

    def restarted(self) -> None:
        """Count a worker that ended unasked."""
        self._row.values[self._row.place("sluiceway_worker_restarts")] += 1.0

    def ended(self, cpu_seconds: float) -> None:
        """Keep what a worker that is gone has used, so that the sum over all processes does not fall."""
        self._row.values[self._row.place(_GONE_CPU)] += cpu_seconds

    def payloads(self, counts: Mapping[str, int]) -> None:
        """Note what became of logged payloads, as :meth:`serving.payloads.PayloadLog.counts` says."""
        for outcome, count in counts.items():
            place = self._row.place(_key("sluiceway_payloads", outcome))
            self._row.values[place] += count - self._payloads.get(outcome, 0)
        self._payloads = dict(counts)

    def page(self) -> bytes:
        """The text for Prometheus."""
        return generate_latest(self._registry)


class _Shared(Collector):
    """Our metrics, from the shared counts."""

    def __init__(self, board: Board, known: Mapping[str, Telemetry]) -> None:
        self._board = board
        self._known = known

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        sums = self._board.sums()
        who = ("model_name", "revision")
        yield _counted("sluiceway_requests", (*who, "code"), sums)
        yield _measured("sluiceway_request_seconds", who, sums)
        yield from self._predictions(sums, who)
        yield _counted("sluiceway_predicted", (*who, "label"), sums)
        for metric in _PHASES.values():
            yield _measured(metric, who[:1], sums)
        yield _measured("sluiceway_batch_requests", who, sums)
        yield _measured("sluiceway_batch_rows", who, sums)
        yield _gauge("sluiceway_requests_waiting", who, sums)
        yield _gauge("sluiceway_connections", (), sums)
        yield _gauge("sluiceway_workers", (), sums)
        yield _counted("sluiceway_worker_restarts", (), sums)
        yield _counted("sluiceway_refused", ("code",), sums)
        yield _counted("sluiceway_payloads", ("outcome",), sums)

    def _predictions(self, sums: Mapping[str, list[float]], who: Sequence[str]) -> Iterable[Metric]:
        """Only over the bins of the bundles that serve now: one that was replaced may have had others."""
        now = {
            _key("sluiceway_prediction", one.name, one.revision, edges=one.bins)
            for one in self._known.values()
            if one.bins
        }
        yield _measured("sluiceway_prediction", who, {key: sums[key] for key in now if key in sums})


class _Processes(Collector):
    """prometheus_client's ``process_*``, added up over all processes of the server.

    Memory that processes share is counted once.
    """

    def __init__(self, board: Board) -> None:
        self._board = board

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        values: dict[str, list[float]] = {}
        families: dict[str, Metric] = {}
        for pid in self._board.pids():
            for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                families.setdefault(family.name, family)
                values.setdefault(family.name, []).append(family.samples[0].value)
        for name, family in families.items():
            found = values[name]
            total = min(found) if name in ("process_start_time_seconds", "process_max_fds") else sum(found)
            if name == "process_resident_memory_bytes" and len(found) > 1:
                total = sum(map(_own_share, self._board.pids())) or total
            if name == "process_cpu_seconds":
                total += self._board.sums().get(_GONE_CPU, [0.0])[0]
                yield CounterMetricFamily(name, family.documentation, value=total)
            else:
                yield GaugeMetricFamily(name, family.documentation, value=total)


def _own_share(pid: int) -> int:
    """A process's resident memory, of pages shared with n others an n-th part, in bytes; 0 where Linux does not say."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as lines:
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    except OSError:
        return 0


def _key(metric: str, *labels: str, edges: Sequence[float] = ()) -> str:
    """A counter's key: the metric, its labels' values and a histogram's edges."""
    parts = [metric, *labels]
    if edges:
        parts.append(",".join(map(repr, map(float, edges))))
    return "\x1f".join(parts)


def _of(metric: str, sums: Mapping[str, list[float]]) -> list[tuple[list[str], list[float]]]:
    """The labels' values and the counts of a metric's keys."""
    split = ((key.split("\x1f"), values) for key, values in sums.items())
    return [(parts[1:], values) for parts, values in split if parts[0] == metric]


def _counted(metric: str, labels: Sequence[str], sums: Mapping[str, list[float]]) -> Metric:
    family = CounterMetricFamily(metric, _HELP[metric], labels=labels)
    for given, values in _of(metric, sums):
        family.add_metric(given, values[0])
    return family


def _gauge(metric: str, labels: Sequence[str], sums: Mapping[str, list[float]]) -> Metric:
    family = GaugeMetricFamily(metric, _HELP[metric], labels=labels)
    for given, values in _of(GAUGE + metric, sums):
        family.add_metric(given, values[0])
    return family


def _measured(metric: str, labels: Sequence[str], sums: Mapping[str, list[float]]) -> Metric:
    family = HistogramMetricFamily(metric, _HELP[metric], labels=labels)
    for (*given, edges), values in _of(metric, sums):
        buckets, total = [], 0.0
        for edge, count in zip([*map(float, edges.split(",")), float("inf")], values[:-1], strict=True):
            total += count
            buckets.append((floatToGoString(edge), total))
        family.add_metric(given, buckets, sum_value=values[-1])
    return family
