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
    """

    requests: int = 0
    errors: int = 0
    latency: Mapping[float, float] = field(default_factory=dict)
    predictions: Mapping[str, float] = field(default_factory=dict)

    def since(self, earlier: "Arm") -> "Arm":
        """The counts that came after an earlier observation.

        A counter that fell was reset by a restart; what it shows now all came after.
        """
        return Arm(
            requests=int(_after(self.requests, earlier.requests)),
            errors=int(_after(self.errors, earlier.errors)),
            latency=_all_after(self.latency, earlier.latency),
            predictions=_all_after(self.predictions, earlier.predictions),
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
class Observation:
    """Both versions at one moment."""

    stable: Arm
    canary: Arm

    def since(self, earlier: "Observation") -> "Observation":
        """The counts that came after an earlier observation."""
        return Observation(self.stable.since(earlier.stable), self.canary.since(earlier.canary))


def _after(now: float, earlier: float) -> float:
    return now - earlier if now >= earlier else now


def _all_after(now: Mapping[K, float], earlier: Mapping[K, float]) -> dict[K, float]:
    if any(value < earlier.get(key, 0.0) for key, value in now.items()):
        return dict(now)
    return {key: value - earlier.get(key, 0.0) for key, value in now.items()}
