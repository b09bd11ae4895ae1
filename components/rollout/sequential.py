r"""Tests that may be looked at after every request: e-processes that are functions of the counts alone.

**Two versions.** Requests answered by the challenger have scores ``Y_c`` in [0, 1] (1 for a failed one), those by the
champion ``Y_s``. The null hypothesis is ``E[Y_c] - E[Y_s] <= margin``. For a supposed champion's mean ``u`` and bets
``a, b >= 0`` the wealth

    W(u; a, b) = prod_c (1 + a (Y_c - u - margin)) * prod_s (1 - b (Y_s - u))

has no upward drift when ``E[Y_s] = u``, in whatever order the requests come to the versions (betting: Waudby-Smith and
Ramdas 2024, JRSS B 86:1-27). So has its average ``W(u)`` over a mixture of bets fixed in advance, and the smallest
``W(u)`` over all ``u`` is at most the one of the true mean. By Ville's inequality ``min_u W(u)`` exceeds ``1/alpha`` at
any time, ever, with probability at most ``alpha``.

With ``b / a = w / (1 - w)``, where ``w`` is the challenger's share of the traffic, the bets are those towards the
alternatives whose projection onto the null is ``u``, the reverse information projection (Grünwald, de Heide and Koolen
2024, JRSS B 86:1091-1128; for two samples Turner, Ly and Grünwald 2024, Electron. J. Statist. 18:4049-4103). Then the
nuisance ``u`` costs nothing to first order, where the ratio of a Beta mixture to the largest likelihood (universal
inference: Wasserman, Ramdas and Balakrishnan 2020, PNAS 117:16880-16890) pays for it: that needs 1.6 times the requests
for errors of 5 % against 1 %. Another consequence: when each request is sent by a coin of probability ``w``, then
``E[1 + a Y..] <= 1`` holds request by request for every ``u``, also where the failure rate changes with time as long as
it does so for both versions: bursts that hit both do no harm to the rate of false alarms. Mixing in other ratios keeps
power where the split is not as declared.

Only sums are needed: a score between 0 and 1 counts as a fraction of a hit, since by the concavity of the logarithm
``(1 + a (1 - m))^y (1 - a m)^(1 - y) <= 1 + a (y - m)``.

**One version** against a fixed limit is the same with the challenger's factors alone.
"""

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

_BETS = 18
_SMALLEST_BET = 0.05
_RATIOS = ((1.0, 0.6), (0.25, 0.1), (4.0, 0.1), (0.0, 0.1))
"""Ratios of the bets, in units of ``w / (1 - w)``, and their weights; the rest bets on the champion's rate alone."""
_UNKNOWN_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
_SEARCH = 6.0
_SEARCH_POINTS = 21
_EDGE = 1e-9


def log_evidence(
    canary_hits: "ArrayLike",
    canary_n: "ArrayLike",
    stable_hits: "ArrayLike",
    stable_n: "ArrayLike",
    margin: "ArrayLike",
    share: float = 0.0,
    needed: float = 0.0,
) -> "NDArray[np.float64]":
    """Natural logarithm of the evidence that the challenger's rate is above the champion's plus a margin.

    The arguments broadcast; counts may be fractions.

    Args:
        canary_hits: the challenger's sum of scores.
        canary_n: its number of requests.
        stable_hits: the champion's sum of scores.
        stable_n: its number of requests.
        margin: allowed difference of the rates, from above -1 to below 1.
        share: the challenger's share of both versions' requests, as far as known in advance; 0 for not known.
        needed: where the evidence is below this, an upper bound of it may be given, which costs a tenth.

    Returns:
        Log of the e-value; above ``log(1 / alpha)`` it is proof at level ``alpha``, whenever looked at.
    """
    import numpy as np

    given = (canary_hits, canary_n, stable_hits, stable_n, margin)
    x, n, y, k, m = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in given))
    low, high = np.maximum(0.0, -m) + _EDGE, np.minimum(1.0, 1.0 - m) - _EDGE
    middle = np.clip(null_rate(x, n, y, k, m), low, high)
    evidence: NDArray[np.float64] = _wealth(middle, x, n, y, k, m, share)
    exact = evidence >= needed
    if exact.any():
        x, n, y, k, m, middle = (value[exact][..., None] for value in (x, n, y, k, m, middle))
        c = np.clip(middle + m, _EDGE, 1 - _EDGE)
        spread = 1 / np.sqrt(1 + n / (c * (1 - c)) + k / (middle * (1 - middle)))
        wide = np.maximum(spread, 1 / (1 + n + k))
        reach, least = wide * _SEARCH, low[exact][..., None]
        for _ in range(2):  # the second time between the neighbours of the least wealth
            points = middle + reach * np.linspace(-1, 1, _SEARCH_POINTS)
            points = np.clip(points, least, high[exact][..., None])
            wealth = _wealth(points, x, n, y, k, m, share)
            middle = np.take_along_axis(points, wealth.argmin(axis=-1)[..., None], axis=-1)
            reach = reach * 2 / (_SEARCH_POINTS - 1)
        evidence = np.where(exact, 0.0, evidence)
        np.place(evidence, exact, wealth.min(axis=-1))
    return evidence


def log_evidence_alone(hits: "ArrayLike", n: "ArrayLike", limit: "ArrayLike") -> "NDArray[np.float64]":
    """Natural logarithm of the evidence that a rate is above a limit; the arguments broadcast.

    Args:
        hits: sum of scores.
        n: number of requests.
        limit: the highest rate allowed, from 0 to below 1.
    """
    import numpy as np

    x, n_all, c = np.broadcast_arrays(*(np.asarray(value, dtype=float)[..., None] for value in (hits, n, limit)))
    c = np.clip(c, _EDGE, 1 - _EDGE)
    bets = _bets(c[..., 0])
    logs = x * np.log1p(bets * (1 - c)) + (n_all - x) * np.log1p(-bets * c)
    result: NDArray[np.float64] = _log_sum(logs + _log_weights(), (-1,))
    return result


def null_rate(x: Any, n: Any, y: Any, k: Any, margin: Any) -> Any:
    """The champion's rate that fits best if the challenger's is just ``margin`` above it.

    Closed form of Farrington and Manning (1990), Statistics in Medicine 9:1447-1454.

    Args:
        x: the challenger's hits.
        n: its requests.
        y: the champion's hits.
        k: its requests.
        margin: the difference.
    """
    import numpy as np

    total = np.maximum(n + k, 1e-12)
    c2 = ((n + 2 * k) * margin - total - x - y) / total
    c1 = ((k * margin - total - 2 * y) * margin + x + y) / total
    c0 = y * margin * (1 - margin) / total
    q = (c2 / 3) ** 3 - c1 * c2 / 6 + c0 / 2
    p = np.where(q < 0, -1.0, 1.0) * np.sqrt(np.maximum((c2 / 3) ** 2 - c1 / 3, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.where(p == 0, 0.0, q / p**3)
    angle = (np.pi + np.arccos(np.clip(turn, -1.0, 1.0))) / 3
    return 2 * p * np.cos(angle) - c2 / 3


def _bets(limit: Any) -> Any:
    """Bets against a rate of ``limit``, evenly on a log scale up to nearly all of the wealth; a last axis more."""
    import numpy as np

    largest = np.maximum(0.95 / limit, 2 * _SMALLEST_BET)[..., None]
    return _SMALLEST_BET * (largest / _SMALLEST_BET) ** _places()


@cache
def _places() -> Any:
    import numpy as np

    return np.linspace(0, 1, _BETS)


@cache
def _log_weights() -> Any:
    """Most weight on bets of middling size: harm that is larger shows anyway, smaller harm needs many requests."""
    import numpy as np

    weights = 1 / (1 + ((2 * _places() - 1) * 3) ** 2)
    return np.log(weights / weights.sum())


def _log_sum(logs: Any, axes: tuple[int, ...]) -> Any:
    """Log of the sum of exponentials; scipy's looks after complex and infinite numbers at five times the cost."""
    import numpy as np

    most = logs.max(axis=axes, keepdims=True)
    return np.log(np.exp(logs - most).sum(axis=axes)) + np.squeeze(most, axis=axes)


@lru_cache(maxsize=64)
def _mixture(share: float) -> tuple[Any, Any, Any]:
    """Ratios of the bets; whether the challenger is bet on; log weights of (size of the bet, ratio)."""
    import numpy as np

    shares = (share,) if 0 < share < 1 else _UNKNOWN_SHARES
    ratios = np.array([s / (1 - s) * ratio for s in shares for ratio, _ in _RATIOS])
    parts = [weight / len(shares) for _ in shares for _, weight in _RATIOS]
    weights = np.log(np.array([*parts, 1 - sum(parts)])) + _log_weights()[:, None]
    return ratios, np.array([1.0] * len(ratios) + [0.0]), weights


def _wealth(u: Any, x: Any, n: Any, y: Any, k: Any, margin: Any, share: float) -> Any:
    """Log of the mixture over all bets, supposing a champion's rate ``u``."""
    import numpy as np

    ratios, on_canary, weights = _mixture(share)
    c = np.clip(u + margin, _EDGE, 1 - _EDGE)
    a, alone = _bets(c)[..., None], _bets(1 - u)[..., None]
    u, c, x, n, y, k = (np.asarray(value)[..., None, None] for value in (u, c, x, n, y, k))
    b = np.concatenate([np.minimum(a * ratios, 0.95 / (1 - u)), alone], axis=-1)
    a = a * on_canary
    logs = weights + x * np.log1p(a * (1 - c)) + (n - x) * np.log1p(-a * c)
    logs += y * np.log1p(-b * (1 - u)) + (k - y) * np.log1p(b * u)
    return _log_sum(logs, (-1, -2))
