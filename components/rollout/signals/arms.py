"""From counters that grew to what the judge reads of one version."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from components.rollout.evidence import Arm
from components.rollout.signals.increases import Increases, Key
from components.rollout.signals.queries import Kind, is_failure


@dataclass(frozen=True)
class Found:
    """Which kind of metrics tells what; None where nothing does."""

    codes: Kind
    latency: Kind | None
    predictions: Kind | None
    restarts: Kind | None

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Every kind once."""
        return tuple(dict.fromkeys(filter(None, (self.codes, self.latency, self.predictions, self.restarts))))


def arm_of(found: Found, counts: Mapping[tuple[Kind, str], Increases], revision: str) -> Arm:
    """What one revision was seen to do.

    Args:
        found: which kind of metrics tells what.
        counts: growth by kind and revision.
        revision: whose.
    """
    codes = _grown(found.codes.requests, counts[found.codes, revision])
    requests = {key: dict(key).get(found.codes.code, "") for key in codes}
    restarts = _grown(found.restarts.restarts, counts[found.restarts, revision]) if found.restarts else {}
    predictions: dict[str, float] = {}
    if found.predictions is not None:
        predictions = _predictions(found.predictions, counts[found.predictions, revision])
    return Arm(
        requests=round(sum(codes.values())),
        errors=round(sum(count for key, count in codes.items() if is_failure(requests[key]))),
        latency=_latency(found.latency, counts[found.latency, revision]) if found.latency else {},
        predictions=predictions,
        restarts=round(sum(restarts.values())),
    )


def _grown(metric: str, counts: Increases) -> dict[Key, float]:
    return {key: count for key, count in counts.totals.items() if metric and ("__name__", metric) in key}


def _histograms(metric: str, counts: Increases) -> list[dict[float, float]]:
    """Cumulative counts by edge, a histogram per server; those in which nothing was counted are left out."""
    histograms: dict[Key, dict[float, float]] = defaultdict(dict)
    for key, count in _grown(metric, counts).items():
        edge = dict(key)["le"]
        histograms[key - {("le", edge)}][float(edge)] = count
    return [histogram for histogram in histograms.values() if histogram.get(math.inf)]


def _together(histograms: list[dict[float, float]]) -> dict[float, float]:
    """The sum of histograms over the edges that they share: a cumulative count is right at each edge by itself."""
    if not histograms:
        return {}
    shared = set.intersection(*(set(histogram) for histogram in histograms))
    return {edge: sum(histogram[edge] for histogram in histograms) for edge in sorted(shared)}


def _latency(kind: Kind, counts: Increases) -> dict[float, float]:
    together = _together(_histograms(kind.latency, counts))
    return {round(edge * kind.unit_ms, 6): count for edge, count in together.items()}


def _predictions(kind: Kind, counts: Increases) -> dict[str, float]:
    """By label, or by the upper edge of the bin as the servers write it; bins are not cumulative."""
    by_label: dict[str, float] = defaultdict(float)
    for key, count in _grown(kind.labels, counts).items():
        by_label[dict(key)["label"]] += count
    below = 0.0
    for edge, cumulative in _together(_histograms(kind.bins, counts)).items():
        by_label["+Inf" if math.isinf(edge) else str(edge)] = cumulative - below
        below = cumulative
    return dict(by_label)
