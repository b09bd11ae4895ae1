"""The gate's checks. Everything fails closed: what could not be measured did not pass."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import BadInput
from components.evaluate.bootstrap import CONFIDENCE, Distribution
from components.evaluate.decision import Check, Interval
from components.evaluate.metrics import HIGHER_IS_BETTER, NAMES, PRIMARY, RELATIVE, Floats
from components.features.schema import Task

FEWEST_PER_CLASS = 5
_SURE = f"with {CONFIDENCE:.0%} confidence"


@dataclass(frozen=True)
class Policy:
    """What the gate asks for.

    Attributes:
        metric: the primary metric.
        minimum: its worst value that may pass; None asks for better than a constant prediction.
        margin: how much worse than the champion it may be: absolute, or a share of the champion's value for metrics
            without a natural scale (``rmse``, ``mae``, ``log_loss``).
        rows: fewest test rows.
    """

    metric: str
    minimum: float | None
    margin: float
    rows: int


def policy(task: Task, metric: str, minimum: str, margin: float, rows: int) -> Policy:
    """Read the gate's parameters.

    Raises:
        BadInput: a metric that the task does not have, or a number that is none or out of range.
    """
    metric = PRIMARY[task] if metric == "auto" else metric
    if metric not in NAMES[task]:
        raise BadInput(f"primary_metric {metric!r} is no metric of a {task} task: use {', '.join(NAMES[task])}.")
    try:
        floor = None if minimum == "auto" else float(minimum)
    except ValueError as error:
        raise BadInput(f"The minimum {minimum!r} is neither a number nor 'auto'.") from error
    if floor is not None and not np.isfinite(floor):
        raise BadInput(f"The minimum {minimum!r} is not a finite number.")
    if not 0 <= margin < float("inf"):
        raise BadInput(f"The margin is {margin}; it must be 0 or more.")
    return Policy(metric, floor, margin, max(rows, 1))


def enough_rows(task: Task, target: NDArray[Any], classes: tuple[str, ...], fewest: int) -> Check:
    """Enough test rows, and enough of each class, for the intervals to mean something."""
    name, rows = "enough test rows", len(target)
    if rows < fewest:
        return Check(
            name=name, passed=False, value=rows, threshold=fewest, reason=f"{rows} test rows; at least {fewest} needed"
        )
    if task != "regression":
        counts = np.bincount(target.astype(np.int64), minlength=len(classes))
        rarest = int(counts.argmin())
        if counts[rarest] < FEWEST_PER_CLASS:
            reason = f"{counts[rarest]} test rows of class {classes[rarest]!r}; at least {FEWEST_PER_CLASS} needed"
            return Check(name=name, passed=False, value=counts[rarest], threshold=FEWEST_PER_CLASS, reason=reason)
    return Check(name=name, passed=True, value=rows, threshold=fewest, reason=f"{rows:,} test rows")


def sane_predictions(task: Task, scores: Floats) -> Check:
    """No missing prediction, not the same one for every row, and probabilities that are probabilities."""
    name = "sane predictions"
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        return Check(name=name, passed=False, value=bad, threshold=0, reason=f"{bad:,} predictions are not numbers")
    if task != "regression":
        off = float(max(np.abs(scores.sum(axis=1) - 1).max(), -scores.min(), scores.max() - 1))
        if off > 1e-4:
            reason = f"probabilities leave 0 to 1, or do not sum to 1, by up to {off:.3g}"
            return Check(name=name, passed=False, value=off, threshold=1e-4, reason=reason)
    spread = float(np.ptp(scores, axis=0).max())
    if not spread > 0:
        reason = "every row gets the same prediction: the model learned nothing"
        return Check(name=name, passed=False, value=spread, threshold=0, reason=reason)
    return Check(name=name, passed=True, value=spread, threshold=0, reason="finite, and they differ between rows")


def floor(policy: Policy, challenger: Distribution, constant: Distribution) -> Check:
    """The primary metric is at least the stated minimum, or better than a constant prediction beyond chance.

    Args:
        policy: metric and minimum.
        challenger: the primary metric's distribution.
        constant: the same of the best constant prediction, on the same resamples.
    """
    name, metric, up = "floor", policy.metric, HIGHER_IS_BETTER[policy.metric]
    value, interval = challenger.value, challenger.interval()
    if not np.isfinite(value) or interval.low is None:
        return _undefined(name, metric, value)
    said = f"{metric} {value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"
    if policy.minimum is not None:
        passed = value >= policy.minimum if up else value <= policy.minimum
        verb = "meets" if passed else "misses"
        reason = f"{said} {verb} the {'minimum' if up else 'maximum'} of {policy.minimum:.4g}"
        return Check(name=name, passed=passed, value=value, threshold=policy.minimum, interval=interval, reason=reason)
    gain = _gain(challenger.minus(constant), up)
    passed = gain.low is not None and gain.low > 0
    verb = f"is better than the {constant.value:.4g} of a constant prediction, {_SURE}"
    reason = f"{said} {verb}" if passed else f"{said} is not shown to be better than a constant prediction's "
    reason += "" if passed else f"{constant.value:.4g}, {_SURE}"
    return Check(name=name, passed=passed, value=value, threshold=constant.value, interval=interval, reason=reason)


def not_worse(policy: Policy, challenger: Distribution, champion: Distribution, version: str) -> Check:
    """Non-inferiority: the lower bound of the paired gain over the champion is within the margin.

    Args:
        policy: metric and margin.
        challenger: the primary metric's distribution.
        champion: the same of the champion, on the same resamples.
        version: the champion's.
    """
    name, metric, up = _comparison(version), policy.metric, HIGHER_IS_BETTER[policy.metric]
    difference = challenger.minus(champion)
    gain = _gain(difference, up)
    if not np.isfinite(difference.value) or gain.low is None:
        return _undefined(name, metric, challenger.value, champion.value)
    allowed = policy.margin * (abs(champion.value) if metric in RELATIVE else 1.0)
    passed = gain.low >= -allowed
    better = (difference.value if up else -difference.value) + 0.0  # no minus zero
    sure = f"at least {gain.low:.4g} better" if gain.low > 0 else f"at most {abs(gain.low):.4g} worse"
    reason = (
        f"{metric} {challenger.value:.4g} against the champion's {champion.value:.4g}: {_SURE} {sure}, "
        f"{allowed:.4g} worse is allowed"
    )
    if not passed and better >= -allowed:
        reason += ". That may be chance: more test rows, or a wider margin, would tell"
    return Check(
        name=name,
        passed=passed,
        value=better,
        threshold=-allowed,
        interval=gain,
        champion=champion.value,
        reason=reason,
    )


def no_champion() -> Check:
    """Nothing to compare with."""
    return Check(name=_comparison(""), passed=True, reason="there is no champion yet")


def champion_not_scored(version: str, reason: str) -> Check:
    """The champion exists but could not be scored on these rows."""
    return Check(
        name=_comparison(version), passed=False, reason=f"the champion could not be scored on the test rows: {reason}"
    )


def _comparison(version: str) -> str:
    return f"not worse than champion {version}".rstrip()


def _gain(difference: Distribution, up: bool) -> Interval:
    """The interval of a difference, turned so that more is better."""
    return (difference if up else Distribution(-difference.value, -difference.draws)).interval()


def _undefined(name: str, metric: str, value: float, champion: float | None = None) -> Check:
    reason = f"{metric} or its interval is not defined on these test rows"
    return Check(name=name, passed=False, value=value, champion=champion, reason=reason)
