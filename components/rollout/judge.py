"""Is the challenger doing harm? Evidence in, verdict out; no I/O.

The judge may look at any time and as often as it likes: its verdict is a function of the counts since the step began,
and the chance that a version within every margin is ever found harmful in a step is at most ``false_rollback_rate``
(:mod:`components.rollout.sequential`). The rate is shared evenly by the signals that the plan declares (Bonferroni) and
within a signal by its comparisons, whose e-values are averaged. Restarts are held against a count and use none of it.

**Harm** is proved once a signal's e-value reaches ``1 / rate``. **OK** asks for three things: the challenger has
answered ``min_requests``; no share as observed is beyond its margin; and the data could have shown harm: with the
requests so far a challenger of the harm declared in ``_HARMS`` would have been found with a probability of 80 %.
Anything else is **unclear**: no traffic and no metrics are not evidence of health.

Once the challenger has all traffic, the champion's counts before the step take the place of its present ones. These are
not of the same time: a burst of slow requests looks like the challenger's doing. Therefore ten requests then count as
one in the evidence of harm, so that a short burst proves nothing, and the rate of false rollbacks holds as far as ten
requests in a row tell no more than one. Without any champion (a first deployment) errors, mismatches and restarts are
held against the margins themselves.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from components.rollout import comparisons
from components.rollout.comparisons import Comparison
from components.rollout.evidence import Arm, Context, Observation
from components.rollout.plan import RolloutPlan
from components.rollout.weighing import difference_at_least, requests_needed, weigh

_OTHER_TIMES = 10.0
"""So many requests count as one where the champion's are of another time."""


class Finding(StrEnum):
    """What one signal says."""

    OK = "ok"
    HARM = "harm"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Check:
    """One signal's evidence.

    Attributes:
        signal: errors, latency, predictions, mismatches, restarts or business.
        stable: the champion's value: a share, a latency in milliseconds, a count; NaN when not known.
        canary: the challenger's.
        bound: how much larger the challenger's share is at least, at the declared rate; NaN until harm is proved.
        limit: how much larger it may be.
        finding: what follows.
        reason: one sentence with the numbers.
        evidence: decimal logarithm of the e-value: 2 means a hundred to one, 0 that nothing speaks for harm.
        decides: the evidence that proves harm.
        requests: requests of the challenger's that it takes to find the declared harm; 0 where none are needed.
    """

    signal: str
    stable: float
    canary: float
    bound: float
    limit: float
    finding: Finding
    reason: str
    evidence: float = 0.0
    decides: float = 0.0
    requests: int = 0


@dataclass(frozen=True)
class Verdict:
    """What the evidence of one step says so far."""

    finding: Finding
    checks: tuple[Check, ...]
    reason: str


@dataclass(frozen=True)
class _Harm:
    """A declared harm, large enough to be found soon and not so large that finding it says little.

    Attributes:
        share: the champion's share; negative for the one observed.
        margins: how far the challenger's share is above it, in margins.
        least: and at least.
    """

    share: float
    margins: float
    least: float


_HARMS = {
    "errors": _Harm(-1.0, 6.0, 0.03),
    "latency": _Harm(0.01, 0.0, 0.06),
    "predictions": _Harm(0.3, 2.5, 0.25),
    "mismatches": _Harm(-1.0, 6.0, 0.03),
    "business": _Harm(0.0, 2.0, 1.0),
}


def judge(seen: Observation, plan: RolloutPlan, context: Context) -> Verdict:
    """Judge the challenger against the champion on what was counted in this step.

    Args:
        seen: counts since the step began.
        plan: the margins, the rate of false rollbacks and the least number of requests.
        context: what was known before the step; the same for the whole step.
    """
    checks = tuple(_checks(seen, plan, context))
    proved = [check for check in checks if check.finding is Finding.HARM]
    if proved:
        worst = max(proved, key=lambda check: check.evidence - check.decides)
        return Verdict(Finding.HARM, checks, worst.reason)
    requests = seen.canary.requests
    if requests < plan.min_requests:
        return Verdict(Finding.UNCLEAR, checks, f"{requests:,} of {plan.min_requests:,} requests so far")
    for check in checks:
        if check.finding is Finding.UNCLEAR:
            return Verdict(Finding.UNCLEAR, checks, f"{check.signal} unclear: {check.reason}")
    return Verdict(Finding.OK, checks, f"no harm in {requests:,} requests")


@dataclass(frozen=True)
class _Trial:
    """What every signal needs to know.

    Attributes:
        canary: the challenger.
        stable: the champion, before the step where it has no traffic in it.
        share: the challenger's share of both, for the bets; 0 for not known.
        fixed: whether the champion's counts are from before the step and do not grow.
        alone: whether there is no champion.
        discount: how many requests count as one.
        level: the log evidence that decides.
    """

    canary: Arm
    stable: Arm
    share: float
    fixed: bool
    alone: bool
    discount: float
    level: float


def _checks(seen: Observation, plan: RolloutPlan, context: Context) -> list[Check]:
    slo, stable, canary = plan.slo, seen.stable, seen.canary
    signals = 4 + (slo.business is not None)
    level = math.log(signals / slo.false_rollback_rate)
    fixed = context.weight >= 100 or (not context.weight and not stable.requests)
    share = context.weight / 100
    if fixed:
        stable = stable + context.baseline
        expected = 2.0 * plan.min_requests
        share = expected / (expected + stable.requests)
    alone = fixed and not stable.requests
    trial = _Trial(canary, stable, share, fixed, alone, _OTHER_TIMES if fixed and not alone else 1.0, level)
    checks = [
        _errors(trial, plan),
        _latency(trial, plan, context.baseline),
        _predictions(trial, plan, context),
        _mismatches(trial, plan),
        _restarts(seen, plan),
    ]
    return [*checks, _business(seen, plan, level)] if slo.business else checks


def _errors(trial: _Trial, plan: RolloutPlan) -> Check:
    canary, stable = trial.canary, trial.stable
    values = (
        stable.error_rate() if stable.requests else math.nan,
        canary.error_rate() if canary.requests else math.nan,
    )
    if not canary.requests:
        return _unclear("errors", *values, "no request to the challenger has been seen")
    if not stable.requests and not trial.alone:
        return _unclear("errors", *values, "no request to the champion has been seen")
    return _decide("errors", *values, comparisons.errors(canary, stable, plan.slo), trial, _rates)


def _latency(trial: _Trial, plan: RolloutPlan, limits_from: Arm) -> Check:
    quantile = plan.slo.latency_quantile
    values = (trial.stable.latency_quantile(quantile), trial.canary.latency_quantile(quantile))
    if trial.alone:
        return Check("latency", *values, math.nan, 0.0, Finding.OK, "no champion to compare with")
    if math.isnan(values[0]) or math.isnan(values[1]):
        return _unclear("latency", *values, "the latency of both versions has not been seen")
    compared = comparisons.latency(trial.canary, trial.stable, plan.slo, limits_from)
    if not compared:
        return _unclear("latency", *values, "the two versions' histograms have no edge in common")

    def words(one: Comparison) -> str:
        return f"p{100 * quantile:g} is {values[1]:,.0f} ms against {values[0]:,.0f} ms; of {_rates(one)}"

    return _decide("latency", *values, compared, trial, words)


def _predictions(trial: _Trial, plan: RolloutPlan, context: Context) -> Check:
    canary, stable = trial.canary, trial.stable
    n, k = sum(canary.predictions.values()), sum(stable.predictions.values())
    if trial.alone:
        return Check("predictions", math.nan, math.nan, math.nan, 0.0, Finding.OK, "no champion to compare with")
    if not n and not k:
        counted = bool(canary.predictions or stable.predictions)
        reason = "no prediction has been counted yet" if counted else "neither version counts its predictions"
        return Check(
            "predictions", math.nan, math.nan, math.nan, 0.0, Finding.UNCLEAR if counted else Finding.OK, reason
        )
    if not n or not k:
        return _unclear("predictions", math.nan, math.nan, "only one version's predictions have been counted")
    compared = comparisons.predictions(canary, stable, plan.slo, context)
    if not compared:
        return _unclear("predictions", math.nan, math.nan, "the two versions' bins have no edge in common")
    return _decide("predictions", math.nan, math.nan, compared, trial, _rates)


def _mismatches(trial: _Trial, plan: RolloutPlan) -> Check:
    canary, stable = trial.canary, trial.stable
    if not canary.compared:
        reason = "no answer was compared with its offline prediction"
        finding = Finding.UNCLEAR if plan.shadow_per_second else Finding.OK
        return Check("mismatches", math.nan, math.nan, math.nan, plan.slo.mismatch_margin, finding, reason)
    values = (stable.mismatched / stable.compared if stable.compared else math.nan, canary.mismatched / canary.compared)
    # How answers were compared is not tied to the weight: both versions may be asked directly, and equally often.
    return _decide(
        "mismatches", *values, comparisons.mismatches(canary, stable, plan.slo), replace(trial, share=0), _rates
    )


def _restarts(seen: Observation, plan: RolloutPlan) -> Check:
    stable, canary, limit = seen.stable.restarts, seen.canary.restarts, plan.slo.restarts
    finding = Finding.HARM if canary - stable >= limit else Finding.OK
    reason = (
        f"the challenger's servers restarted {canary} times, the champion's {stable} times ({limit} more are too many)"
    )
    return Check("restarts", stable, canary, canary - stable, limit, finding, reason)


def _business(seen: Observation, plan: RolloutPlan, level: float) -> Check:
    declared, worse = plan.slo.business, seen.business
    assert declared is not None
    if not worse.windows:
        return _unclear("business", math.nan, math.nan, "no window in which both versions had a value yet")
    scale = declared.highest - declared.lowest
    loss = worse.total / worse.windows * scale

    def words(one: Comparison) -> str:
        return (
            f"the challenger does {loss:.4g} worse on average over {worse.windows} windows "
            f"({declared.margin:g} allowed)"
        )

    trial = _Trial(seen.canary, seen.stable, 0.0, False, True, 1.0, level)
    check = _decide("business", math.nan, loss, comparisons.business(worse, declared), trial, words)
    bound = (2 * check.bound - 1) * scale
    return replace(check, bound=bound, limit=declared.margin)


def _rates(one: Comparison) -> str:
    against = f"{one.stable_share():.1%} of the champion's" if one.stable_n else "no champion to compare with"
    return f"{one.what}: {one.canary_share():.1%} of the challenger's, {against}; {one.margin:.1%} more allowed"


def _decide(
    signal: str,
    stable: float,
    canary: float,
    compared: Sequence[Comparison],
    trial: _Trial,
    words: Callable[[Comparison], str],
) -> Check:
    """Weigh one signal's comparisons."""
    if not all(math.isfinite(one.excess()) for one in compared):
        return _unclear(signal, stable, canary, "some of its counts are not numbers")
    evidence, most = weigh(compared, trial.share, trial.level, trial.discount)
    needed = _needed(signal, compared, trial)
    bound = math.nan
    if evidence >= trial.level:
        finding = Finding.HARM
        level = trial.level - math.log(most.part)
        bound = difference_at_least(most, trial.share, level, trial.discount)
        reason = f"{words(most)}, at least {bound:.1%} more"
    elif most.excess() > 0:
        finding, reason = Finding.UNCLEAR, f"{words(most)}, not proved"
    elif most.canary_n < needed:
        finding, reason = Finding.UNCLEAR, f"{most.canary_n:,.0f} of about {needed:,} counts that can show harm"
    else:
        finding, reason = Finding.OK, words(most)
    log10 = math.log(10)
    return Check(
        signal, stable, canary, bound, most.margin, finding, reason, evidence / log10, trial.level / log10, needed
    )


def _needed(signal: str, compared: Sequence[Comparison], trial: _Trial) -> int:
    """How many counts it takes to find the declared harm, by the comparison with the least part of the rate."""
    harm, least = _HARMS[signal], min(compared, key=lambda one: one.part)
    margin = max(one.margin for one in compared)
    stable = harm.share if harm.share >= 0 else least.stable_share()
    above = max(harm.margins * margin, margin + harm.least)
    fixed = least.stable_n if trial.fixed else 0.0
    level = trial.level - math.log(least.part)
    return requests_needed(stable, above, margin, trial.share, fixed if least.stable_n else -1.0, level)


def _unclear(signal: str, stable: float, canary: float, reason: str) -> Check:
    return Check(signal, stable, canary, math.nan, 0.0, Finding.UNCLEAR, reason)
