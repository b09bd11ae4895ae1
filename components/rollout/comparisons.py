"""What each signal compares: shares of requests of both versions, with the difference that is allowed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from components.rollout.evidence import Arm, Context, Worse
from components.rollout.plan import Business, Slo
from components.rollout.shift import Part, parts

_QUANTILES = (0.5, 0.95, 0.99)
_ENOUGH_FOR_LIMITS = 100


@dataclass(frozen=True)
class Comparison:
    """One share of both versions' requests.

    Attributes:
        what: the requests that are meant, in words.
        part: what part of the signal's false-rollback rate this comparison has; those of a signal sum to at most 1.
        canary_hits: the challenger's requests that are meant; fractions where a histogram's bin was split.
        canary_n: all of the challenger's requests.
        stable_hits: likewise of the champion.
        stable_n: 0 for no champion: then ``margin`` is the largest share allowed.
        margin: how much larger the challenger's share may be.
    """

    what: str
    part: float
    canary_hits: float
    canary_n: float
    stable_hits: float
    stable_n: float
    margin: float

    def canary_share(self) -> float:
        """The challenger's share; NaN without requests."""
        return self.canary_hits / self.canary_n if self.canary_n else math.nan

    def stable_share(self) -> float:
        """The champion's share; 0 where there is no champion."""
        return self.stable_hits / self.stable_n if self.stable_n else 0.0

    def excess(self) -> float:
        """By how much the challenger's share as observed is beyond what is allowed; 0 or less is within."""
        return self.canary_share() - self.stable_share() - self.margin


def errors(canary: Arm, stable: Arm, slo: Slo) -> list[Comparison]:
    """The share of requests that failed."""
    counts = (canary.errors, canary.requests, stable.errors, stable.requests)
    return [Comparison("failed requests", 1.0, *counts, slo.error_rate_margin)]


def mismatches(canary: Arm, stable: Arm, slo: Slo) -> list[Comparison]:
    """The share of answers that differ from the version's own offline prediction."""
    counts = (canary.mismatched, canary.compared, stable.mismatched, stable.compared)
    return [Comparison("answers unlike the offline prediction", 1.0, *counts, slo.mismatch_margin)]


def business(worse: Worse, declared: Business) -> list[Comparison]:
    """How much worse the business metric is, from -1 to 1, brought to a share from 0 to 1."""
    margin = declared.margin / (declared.highest - declared.lowest)
    hits = (worse.windows + worse.total) / 2
    return [Comparison("windows lost", 1.0, hits, worse.windows, 0, 0, min((1 + margin) / 2, 1.0))]


def latency(canary: Arm, stable: Arm, slo: Slo, before: Arm) -> list[Comparison]:
    """The share of requests slower than each of the histogram's edges.

    A request may take ``g(t) = max(ratio t, t + slack)`` where the champion takes ``t``. Then the challenger's share
    over an edge ``e`` is at most the champion's share over ``h(e) = min(e / ratio, e - slack)``, at every edge: every
    quantile is within its limit. The edges are fixed by the metric, so that no limit is chosen from what is tested.
    Half of the rate goes evenly to all edges, half to those next to the limits of the quantiles of interest, as the
    traffic before the step shows them.

    ``h(e)`` is inside a bin. What part of the bin's requests is over it, is fixed before the step: as if the share of
    slower requests fell exponentially within the bin, as it did before the step; evenly where nothing is known. For a
    challenger that is no slower than the champion any part is on the safe side, since its share over ``e`` is at most
    the champion's.

    Args:
        canary: the challenger.
        stable: the champion.
        slo: ratio, slack and margin.
        before: the champion before the step.
    """
    edges = sorted(set(canary.latency) & set(stable.latency))
    if not edges:
        return []
    usable = [e for e in edges if math.isfinite(e) and _within(e, slo) > 0]
    chosen = _near_limits(usable, slo, before)
    n, k = max(canary.latency.values()), max(stable.latency.values())
    found = []
    for e in usable:
        part = 0.5 * (e in chosen) / len(chosen) + 0.5 / len(usable) if chosen else 1 / len(usable)
        slower = n - canary.latency[e], n, _over(_within(e, slo), stable, before, edges), k
        found.append(Comparison(f"requests over {e:g} ms", part, *slower, slo.slow_share_margin))
    return found


def predictions(canary: Arm, stable: Arm, slo: Slo, context: Context) -> list[Comparison]:
    """The share of predictions below each edge, or of each label, both larger and smaller than what was expected.

    Both versions answer random shares of one traffic, so that their shares should differ as they did on the held-out
    rows, ``d = P_c(A) - P_s(A)``. Allowed is ``d`` and ``prediction_shift`` beyond it. As ``d`` itself is known only up
    to chance, its standard error is allowed on top: ``sqrt((p_c (1 - p_c) + p_s (1 - p_s)) / rows)`` as if both had
    predicted rows of their own, which is two true ones for predictions that correlate by 0.75.
    """
    live = parts(stable.predictions, canary.predictions)
    n, k = sum(canary.predictions.values()), sum(stable.predictions.values())
    expected = parts(context.stable_offline, context.canary_offline)
    found = []
    for part in live:
        difference, error = _expected(part.what, expected, context)
        for sign, what in ((1, "more"), (-1, "fewer")):
            canary_hits, stable_hits = (part.canary, part.stable) if sign > 0 else (n - part.canary, k - part.stable)
            margin = min(slo.prediction_shift + error + sign * difference, 0.999)
            found.append(
                Comparison(f"{what} {part.what}", 0.5 / len(live), canary_hits, n, stable_hits, k, max(margin, 0.0))
            )
    return found


def _within(edge: float, slo: Slo) -> float:
    """The latency from which on the challenger may take longer than ``edge``."""
    return min(edge / slo.latency_ratio, edge - slo.latency_slack_ms)


def _over(value: float, arm: Arm, before: Arm, edges: Sequence[float]) -> float:
    """How many requests of an arm took longer than a value, which is inside a bin between two edges."""
    low, high = max((e for e in edges if e < value), default=0.0), min(e for e in edges if e >= value)
    total = max(arm.latency.values())
    over_low, over_high = total - arm.latency.get(low, 0.0), total - arm.latency[high]
    return over_high + _part_over(value, low, high, before) * (over_low - over_high)


def _part_over(value: float, low: float, high: float, before: Arm) -> float:
    share = (value - low) / (high - low) if math.isfinite(high) else 0.0
    known = before.requests >= _ENOUGH_FOR_LIMITS and high in before.latency and (not low or low in before.latency)
    if known:
        total = max(before.latency.values())
        over_low, over_high = total - before.latency.get(low, 0.0) + 0.5, total - before.latency[high] + 0.5
        if over_high < over_low:
            over: float = over_low ** (1 - share) * over_high**share
            return (over - over_high) / (over_low - over_high)
    return 1 - share


def _near_limits(usable: Sequence[float], slo: Slo, before: Arm) -> set[float]:
    if not usable or before.requests < _ENOUGH_FOR_LIMITS:
        return set()
    quantiles = [before.latency_quantile(q) for q in (*_QUANTILES, slo.latency_quantile)]
    limits = [max(q * slo.latency_ratio, q + slo.latency_slack_ms) for q in quantiles if q > 0]
    return {min(usable, key=lambda edge: abs(math.log(edge / limit))) for limit in limits}


def _expected(what: str, offline: Sequence[Part], context: Context) -> tuple[float, float]:
    """Difference of the shares on the held-out rows and its standard error; 0 and 0 where they are not known."""
    rows = min(sum(context.canary_offline.values()), sum(context.stable_offline.values()))
    part = next((part for part in offline if part.what == what), None)
    if part is None or not rows:
        return 0.0, 0.0
    c, s = part.canary / sum(context.canary_offline.values()), part.stable / sum(context.stable_offline.values())
    return c - s, math.sqrt((c * (1 - c) + s * (1 - s)) / rows)
