"""Is the challenger doing harm? Evidence in, verdict out; no I/O.

The judge looks each time the challenger's request count has doubled. Look number k may use
``alpha * 6 / (pi * k)**2`` of the false-rollback rate, which sums to alpha over any number of looks (the Basel
series), shared evenly by the three signals: however often it looks, the rate holds (Bonferroni).
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

from components.rollout.evidence import Arm, Observation
from components.rollout.plan import RolloutPlan, Slo
from components.rollout.shift import stability

FIRST_LOOK = 25
_SIGNALS = 3


class Finding(StrEnum):
    """What one signal says."""

    OK = "ok"
    HARM = "harm"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Check:
    """One signal's evidence.

    ``bound`` is the confidence bound that decides, ``limit`` what it must not exceed.
    """

    signal: str
    stable: float
    canary: float
    bound: float
    limit: float
    finding: Finding
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What the evidence of one step says so far."""

    finding: Finding
    checks: tuple[Check, ...]
    reason: str


def requests_for_look(look: int) -> int:
    """How many requests the challenger must have answered before look number 1, 2, 3, …: 25, 50, 100 and so on."""
    return FIRST_LOOK << (look - 1)


def judge(seen: Observation, plan: RolloutPlan, look: int, expected_shift: float = 0.0) -> Verdict:
    """Judge the challenger against the champion on what both answered in this step.

    ``HARM`` as soon as one signal proves it, ``OK`` when the challenger has answered ``min_requests`` and every
    signal is within its margin, else ``UNCLEAR``: no traffic is not evidence of health.

    Args:
        seen: counts since the step began.
        plan: the margins and the least number of requests.
        look: which look this is, from 1; each is taken once, see :func:`requests_for_look`.
        expected_shift: the stability index between both versions' predictions of the held-out rows, which the gate
            has seen and passed; only what live traffic adds to it is harm.
    """
    alpha = plan.slo.false_rollback_rate * 6 / (math.pi * look) ** 2 / _SIGNALS
    enough = seen.canary.requests >= plan.min_requests
    checks = (
        _errors(seen, plan.slo, alpha),
        _latency(seen, plan.slo, alpha),
        _predictions(seen, plan.slo.prediction_shift + expected_shift, alpha, enough),
    )
    for finding in (Finding.HARM, Finding.UNCLEAR):
        for check in checks:
            if check.finding is finding:
                return Verdict(finding, checks, check.reason)
    if not enough:
        return Verdict(Finding.UNCLEAR, checks, f"{seen.canary.requests} of {plan.min_requests} requests so far")
    return Verdict(Finding.OK, checks, f"no harm in {seen.canary.requests} requests")


def _errors(seen: Observation, slo: Slo, alpha: float) -> Check:
    stable, canary = seen.stable, seen.canary
    lower = difference_lower_bound(canary.errors, canary.requests, stable.errors, stable.requests, alpha)
    excess = canary.error_rate() - stable.error_rate()
    finding = _finding(lower, excess, slo.error_rate_margin)
    reason = (
        f"{canary.error_rate():.1%} of the challenger's requests failed, {stable.error_rate():.1%} of the champion's "
        f"(at least {max(lower, 0):.1%} more; {slo.error_rate_margin:.1%} allowed)"
    )
    return Check("errors", stable.error_rate(), canary.error_rate(), lower, slo.error_rate_margin, finding, reason)


def _latency(seen: Observation, slo: Slo, alpha: float) -> Check:
    """Compare the shares of requests slower than the champion's 95th percentile plus what is allowed."""
    stable, canary = seen.stable, seen.canary
    base, mine = stable.latency_quantile(0.95), canary.latency_quantile(0.95)
    if math.isnan(base):  # no champion to compare with: a first deployment
        return Check("latency", base, mine, 0.0, slo.slow_share_margin, Finding.OK, "no champion to compare with")
    allowed = max(base * slo.latency_ratio, base + slo.latency_slack_ms)
    edge = min((e for e in canary.latency if e >= allowed), default=math.inf)
    slow_canary, slow_stable = _slower(canary, edge), _slower(stable, edge)
    lower = difference_lower_bound(slow_canary, canary.requests, slow_stable, stable.requests, alpha)
    excess = slow_canary / canary.requests - slow_stable / max(stable.requests, 1)
    finding = _finding(lower, excess, slo.slow_share_margin)
    reason = (
        f"p95 is {mine:,.0f} ms against the champion's {base:,.0f} ms; {slow_canary / canary.requests:.1%} of the "
        f"challenger's requests took over {edge:,.0f} ms ({slo.slow_share_margin:.0%} more than the champion's allowed)"
    )
    return Check("latency", base, mine, lower, slo.slow_share_margin, finding, reason)


def _predictions(seen: Observation, limit: float, alpha: float, enough: bool) -> Check:
    """Both versions answer random shares of one traffic, so their predictions should differ as they did offline."""
    shift, p_value = stability(seen.stable.predictions, seen.canary.predictions)
    if math.isnan(shift):
        return Check("predictions", 0.0, shift, shift, limit, Finding.OK, "no predictions to compare")
    shifted = enough and shift > limit and p_value < alpha
    reason = f"predictions differ by a stability index of {shift:.2f} ({limit:.2f} allowed; p = {p_value:.2g})"
    return Check("predictions", 0.0, shift, shift, limit, Finding.HARM if shifted else Finding.OK, reason)


def _finding(lower: float, excess: float, margin: float) -> Finding:
    if lower > margin:
        return Finding.HARM
    return Finding.UNCLEAR if excess > margin else Finding.OK


def _slower(arm: Arm, edge: float) -> int:
    total = max(arm.latency.values(), default=0.0)
    return int(total - arm.latency.get(edge, total))


def wilson(successes: int, n: int, z: float) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927); (0, 1) when n is 0."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def difference_lower_bound(x1: int, n1: int, x2: int, n2: int, alpha: float) -> float:
    """One-sided lower confidence bound of ``x1/n1 - x2/n2``.

    Hybrid score interval, method 10 of Newcombe (1998), Statistics in Medicine 17:873-890. With no second arm it is
    the lower bound of ``x1/n1`` itself.
    """
    z = NormalDist().inv_cdf(1 - alpha)
    low1, _ = wilson(x1, n1, z)
    if n2 == 0:
        return low1
    p1, p2 = x1 / max(n1, 1), x2 / n2
    _, high2 = wilson(x2, n2, z)
    return p1 - p2 - math.sqrt((p1 - low1) ** 2 + (high2 - p2) ** 2)
