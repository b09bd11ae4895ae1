"""Flagger's rule on the same traffic: averages over a minute against fixed thresholds, and a count of failed checks.

As in Flagger's controller (pkg/controller/scheduler.go, scheduler_metrics.go; defaults from its documentation, "how it
works"): every minute the share of requests without a 5xx status in the last minute must be at least 99 % and the 99th
percentile of latency at most 500 ms; no request is a failed check. A check that passes raises the weight by 5 % up to
50 %, then promotes; one that fails adds to a count that never falls. When a minute begins with the count at the
threshold, the challenger is rolled back.
"""

from dataclasses import dataclass, replace

import numpy as np

from tests.bench.judge_traffic import EDGES, World, traffic

THRESHOLD = 10
_SECONDS, _STEP, _MOST = 60, 5, 50
_SUCCESS, _P99_MS = 99.0, 500.0
_LONGEST = 240


@dataclass(frozen=True)
class Outcome:
    """What became of simulated rollouts.

    Attributes:
        failures: failed checks up to and with each minute, had the threshold been infinite: (rollouts, minutes).
        requests: the challenger's requests up to and with each minute, likewise.
        promoted: the minute in which it was promoted.
    """

    failures: np.ndarray
    requests: np.ndarray
    promoted: np.ndarray

    def rolled_back(self, threshold: int) -> np.ndarray:
        """Which rollouts were rolled back."""
        return self._when(threshold) <= self.promoted

    def requests_until(self, threshold: int) -> np.ndarray:
        """The challenger's requests until the roll-back; infinite where it was promoted."""
        when = self._when(threshold)
        last = np.minimum(when, self.requests.shape[1] - 1)
        return np.where(self.rolled_back(threshold), self.requests[np.arange(len(last)), last], np.inf)

    def _when(self, threshold: int) -> np.ndarray:
        """The minute that begins with the count at the threshold."""
        reached = self.failures >= threshold
        return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, 10**6)


def run(rng: np.random.Generator, world: World, per_second: float, rollouts: int) -> Outcome:
    """Simulate rollouts for four hours at most."""
    minute = replace(world, requests=per_second * _SECONDS)
    weight = np.full(rollouts, _STEP)
    promoted = np.full(rollouts, 10**6)
    failures, requests = np.zeros((rollouts, _LONGEST), int), np.zeros((rollouts, _LONGEST), int)
    for now in range(_LONGEST):
        passed, count = np.zeros(rollouts, bool), np.zeros(rollouts, int)
        for one in np.unique(weight):
            chosen = np.flatnonzero(weight == one)
            _, canary = traffic(rng, minute, one / 100, (len(chosen), 1))
            count[chosen] = canary.requests[:, 0]
            passed[chosen] = _passes(canary.requests[:, 0], canary.errors[:, 0], canary.latency[:, 0])
        under_way = promoted > now
        promoted = np.where(under_way & passed & (weight >= _MOST), now, promoted)
        weight = np.where(passed, np.minimum(weight + _STEP, _MOST), weight)
        before = (failures[:, now - 1], requests[:, now - 1]) if now else (0, 0)
        failures[:, now] = before[0] + (~passed & under_way)
        requests[:, now] = before[1] + count
        if (promoted <= now).all():
            failures[:, now:], requests[:, now:] = failures[:, now, None], requests[:, now, None]
            break
    return Outcome(failures, requests, promoted)


def threshold_for(outcome: Outcome, rate: float) -> int:
    """The smallest threshold that rolls back at most so large a share."""
    return next(n for n in range(1, _LONGEST + 1) if outcome.rolled_back(n).mean() <= rate)


def _passes(n: np.ndarray, errors: np.ndarray, latency: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        success = 100 * (n - errors) / n
    cumulative = np.cumsum(latency, axis=-1)
    rank = 0.99 * n[:, None]
    bucket = np.minimum((cumulative >= rank).argmax(axis=-1), len(EDGES) - 2)
    at = np.arange(len(n))
    low = np.where(bucket > 0, np.take((0.0, *EDGES), bucket), 0.0)
    under = np.where(bucket > 0, cumulative[at, bucket - 1], 0)
    share = (rank[:, 0] - under) / np.maximum(latency[at, bucket], 1)
    p99 = low + (np.take(EDGES, bucket) - low) * np.clip(share, 0, 1)
    return (n > 0) & (success >= _SUCCESS) & (np.floor(p99) <= _P99_MS)
