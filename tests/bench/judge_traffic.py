"""Made-up traffic for the judge and for Flagger's rule: what both versions answer between two scrapes."""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import beta, norm

from components.rollout.evidence import Arm

EDGES = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, math.inf)
"""Envoy's, in milliseconds, up to where anything is."""
BINS = (*(step / 10 for step in range(1, 10)), math.inf)
_NAMES = tuple(str(edge) for edge in BINS)
_BURST, _SLOWER, _BURST_ERRORS = 0.1, 3.0, 0.05


@dataclass(frozen=True)
class Version:
    """How one version answers.

    Attributes:
        errors: share of requests that fail.
        median_ms: of a lognormal latency.
        sigma: its shape.
        tail: factor on the latency of the slowest 5 % alone.
        mean: of the predictions, which follow a Beta distribution of 5 pseudo-counts.
    """

    errors: float = 0.01
    median_ms: float = 80.0
    sigma: float = 0.55
    tail: float = 1.0
    mean: float = 0.4

    def slow(self, factor: float = 1.0) -> np.ndarray:
        """Share of latencies per bucket."""
        median = self.median_ms * factor
        border = median * math.exp(1.6449 * self.sigma)

        def below(edge: float) -> float:
            if edge <= border or self.tail == 1:
                return float(norm.cdf(math.log(edge / median) / self.sigma)) if math.isfinite(edge) else 1.0
            return max(0.95, float(norm.cdf(math.log(edge / self.tail / median) / self.sigma)))

        shares = np.diff([0.0, *(below(edge) for edge in EDGES)])
        return shares / shares.sum()

    def predicted(self) -> np.ndarray:
        """Share of predictions per bin."""
        shares = np.diff([0.0, *beta(5 * self.mean, 5 - 5 * self.mean).cdf(BINS[:-1]), 1.0])
        return shares / shares.sum()


@dataclass(frozen=True)
class World:
    """What happens between two scrapes.

    Attributes:
        requests: of both versions, on average.
        stable: the champion.
        canary: the challenger.
        bursts: in one scrape of ten three times the traffic comes, 3 times as slowly and with 5 % more errors.
        uneven: each version's error rate changes from scrape to scrape, by a standard deviation as large as itself.
        rows: so many held-out rows are sent in turn, over and over, instead of ever new ones; 0 for new ones.
    """

    requests: float = 200
    stable: Version = field(default_factory=Version)
    canary: Version = field(default_factory=Version)
    bursts: bool = False
    uneven: bool = False
    rows: int = 0


@dataclass(frozen=True)
class Counts:
    """One version's counts per rollout and scrape, cumulative: (rollouts, scrapes[, buckets])."""

    requests: np.ndarray
    errors: np.ndarray
    latency: np.ndarray
    predictions: np.ndarray

    def arm(self, rollout: int, scrape: int) -> Arm:
        """As the judge gets it."""
        at = (rollout, scrape)
        return Arm(
            int(self.requests[at]),
            int(self.errors[at]),
            dict(zip(EDGES, np.cumsum(self.latency[at]).tolist(), strict=True)),
            dict(zip(_NAMES, self.predictions[at].tolist(), strict=True)),
        )


def traffic(rng: np.random.Generator, world: World, weight: float, size: tuple[int, int]) -> tuple[Counts, Counts]:
    """The champion's and the challenger's counts in one step.

    Args:
        rng: random numbers.
        world: what happens.
        weight: the challenger's share, from 0 to 1.
        size: rollouts and scrapes.
    """
    burst = (rng.random(size) < _BURST) & world.bursts
    total = rng.poisson(world.requests * np.where(burst, 3.0, 1.0))
    to_canary = rng.binomial(total, weight)
    stable, canary = (
        _answers(rng, world, version, n, burst)
        for version, n in ((world.stable, total - to_canary), (world.canary, to_canary))
    )
    return stable, canary


def offline(rng: np.random.Generator, world: World, rows: int) -> tuple[dict[str, float], dict[str, float]]:
    """Both versions' predictions of held-out rows; what live traffic does to the challenger is not in them."""
    shares = world.stable.predicted()
    stable, canary = (dict(zip(_NAMES, rng.multinomial(rows, shares).tolist(), strict=True)) for _ in range(2))
    return stable, canary


@dataclass(frozen=True)
class Replayed:
    """Held-out rows that come in turn: the bin of each by both versions, which differ as models of one quality do."""

    stable: np.ndarray
    canary: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, rows: int) -> "Replayed":
        """A linear model's scores, and those of a boosted one: sharper, and with a mind of its own."""
        score = rng.normal(-0.4, 1.0, rows)
        other = 1.8 * score + rng.normal(0, 0.7, rows)
        bins = [np.searchsorted(BINS[:-1], 1 / (1 + np.exp(-logit))) for logit in (score, other)]
        return cls(*bins)

    def offline(self) -> tuple[dict[str, float], dict[str, float]]:
        """The rows' counts by both versions."""
        return self._counted(self.stable), self._counted(self.canary)

    def traffic(self, rng: np.random.Generator, requests: int, weight: float, scrapes: int) -> tuple[Counts, Counts]:
        """The predictions of one rollout's step; nothing fails and everything takes 80 ms or so."""
        rows = np.arange(requests * scrapes) + rng.integers(len(self.stable))
        rows = rows.reshape(scrapes, requests) % len(self.stable)
        mine = rng.random(rows.shape) < weight
        found = []
        for bins, chosen in ((self.stable, ~mine), (self.canary, mine)):
            counts = np.stack([((bins[rows] == b) & chosen).sum(axis=1) for b in range(len(BINS))], axis=-1)
            n = chosen.sum(axis=1)
            slow = rng.multinomial(n, Version().slow())
            found.append(Counts(*(np.cumsum(c, axis=0)[None] for c in (n, 0 * n, slow, counts))))
        return found[0], found[1]

    @staticmethod
    def _counted(bins: np.ndarray) -> dict[str, float]:
        return dict(zip(_NAMES, np.bincount(bins, minlength=len(BINS)).astype(float).tolist(), strict=True))


def _answers(rng: np.random.Generator, world: World, version: Version, n: np.ndarray, burst: np.ndarray) -> Counts:
    rate = np.full(n.shape, version.errors)
    if world.uneven and version.errors:
        rate = rng.beta(1 - version.errors, (1 - version.errors) ** 2 / version.errors, n.shape)
    errors = rng.binomial(n, np.minimum(rate + _BURST_ERRORS * burst, 1.0))
    latency = rng.multinomial(n, version.slow())
    if world.bursts:
        latency = np.where(burst[..., None], rng.multinomial(n, version.slow(_SLOWER)), latency)
    predictions = rng.multinomial(n, version.predicted())
    return Counts(*(np.cumsum(counts, axis=1) for counts in (n, errors, latency, predictions)))
