"""What was seen of the two versions: counts only, so that two observations can be subtracted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

K = TypeVar("K")


@dataclass(frozen=True)
class Arm:
    """Counts for one version.

    Attributes:
        requests: requests answered, failed ones included.
        errors: requests that failed (5xx or no answer).
        latency: cumulative request counts by bucket edge in milliseconds; the last edge may be infinite.
        predictions: prediction counts by bin or label.
        restarts: times that one of its servers was started again.
        compared: answers to held-out rows that were compared with the offline prediction of the same row.
        mismatched: how many of those differed.
    """

    requests: int = 0
    errors: int = 0
    latency: Mapping[float, float] = field(default_factory=dict)
    predictions: Mapping[str, float] = field(default_factory=dict)
    restarts: int = 0
    compared: int = 0
    mismatched: int = 0

    def since(self, earlier: "Arm") -> "Arm":
        """The counts that came after an earlier observation.

        A counter that fell was reset by a restart; what it shows now all came after.
        """
        return Arm(
            requests=int(_after(self.requests, earlier.requests)),
            errors=int(_after(self.errors, earlier.errors)),
            latency=_all_after(self.latency, earlier.latency),
            predictions=_all_after(self.predictions, earlier.predictions),
            restarts=int(_after(self.restarts, earlier.restarts)),
            compared=int(_after(self.compared, earlier.compared)),
            mismatched=int(_after(self.mismatched, earlier.mismatched)),
        )

    def __add__(self, more: "Arm") -> "Arm":
        """The counts of both together."""
        return Arm(
            requests=self.requests + more.requests,
            errors=self.errors + more.errors,
            latency=_histograms_together(self.latency, more.latency),
            predictions=_together(self.predictions, more.predictions),
            restarts=self.restarts + more.restarts,
            compared=self.compared + more.compared,
            mismatched=self.mismatched + more.mismatched,
        )

    def error_rate(self) -> float:
        """Share of requests that failed; 0 when there were none."""
        return self.errors / self.requests if self.requests else 0.0

    def latency_quantile(self, q: float) -> float:
        """Latency in milliseconds below which a share ``q`` of the requests stayed.

        Linear within a bucket, as Prometheus' ``histogram_quantile``; NaN without requests.
        """
        edges = sorted(self.latency)
        total = self.latency[edges[-1]] if edges else 0
        if not total:
            return float("nan")
        low_edge, low_count = 0.0, 0.0
        for edge in edges:
            count = self.latency[edge]
            if count >= q * total:
                if edge == float("inf"):
                    return low_edge
                inside = (q * total - low_count) / (count - low_count) if count > low_count else 1.0
                return low_edge + (edge - low_edge) * inside
            low_edge, low_count = edge, count
        return low_edge


@dataclass(frozen=True)
class Worse:
    """How much worse the challenger did by the business metric, over windows that do not overlap.

    Attributes:
        windows: how many windows both versions had a value in.
        total: sum over the windows of the champion's value minus the challenger's (the other way round where lower is
            better), as a share of the metric's range: each is between -1 and 1.
    """

    windows: int = 0
    total: float = 0.0

    def __add__(self, more: "Worse") -> "Worse":
        """Both together."""
        return Worse(self.windows + more.windows, self.total + more.total)


@dataclass(frozen=True)
class Observation:
    """Both versions at one moment, or in one stretch of time."""

    stable: Arm = Arm()
    canary: Arm = Arm()
    business: Worse = Worse()

    def since(self, earlier: "Observation") -> "Observation":
        """The counts that came after an earlier observation."""
        business = Worse(self.business.windows - earlier.business.windows, self.business.total - earlier.business.total)
        return Observation(self.stable.since(earlier.stable), self.canary.since(earlier.canary), business)

    def __add__(self, more: "Observation") -> "Observation":
        """The counts of both together."""
        return Observation(self.stable + more.stable, self.canary + more.canary, self.business + more.business)


@dataclass(frozen=True)
class Context:
    """What is known before a step begins; it must stay as it is for the whole step, also over a restart.

    Attributes:
        weight: the challenger's share of the traffic in this step, in percent; 0 when not known.
        baseline: the champion's counts before the step: what the challenger is compared with once it has all traffic,
            and where the latency limits of interest are; empty when there are none.
        stable_offline: the champion's predictions of the held-out rows by the live metric's bin or label; empty when
            not known. See :func:`components.rollout.shift.offline_counts`.
        canary_offline: the challenger's, likewise.
    """

    weight: int = 0
    baseline: Arm = Arm()
    stable_offline: Mapping[str, float] = field(default_factory=dict)
    canary_offline: Mapping[str, float] = field(default_factory=dict)


def _after(now: float, earlier: float) -> float:
    return now - earlier if now >= earlier else now


def _all_after(now: Mapping[K, float], earlier: Mapping[K, float]) -> dict[K, float]:
    if any(value < earlier.get(key, 0.0) for key, value in now.items()):
        return dict(now)
    return {key: value - earlier.get(key, 0.0) for key, value in now.items()}


def _together(one: Mapping[K, float], other: Mapping[K, float]) -> dict[K, float]:
    return {key: one.get(key, 0.0) + other.get(key, 0.0) for key in {**one, **other}}


def _histograms_together(one: Mapping[float, float], other: Mapping[float, float]) -> dict[float, float]:
    """Cumulative counts added where both have them: two sources may have edges of their own."""
    if not any(one.values()) or not any(other.values()):
        return dict(one) if any(one.values()) else dict(other)
    return {edge: one[edge] + other[edge] for edge in one if edge in other}
