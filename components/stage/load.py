"""A load test of a staged server: does it hold its latency at the load that production is expected to bring?

The load is open: requests go out when they are due, as a Poisson process, whether or not earlier ones were answered,
and latency counts from the time that a request was due. A client that waits for each answer before it sends the next
would leave out the very requests that a stall hits ("coordinated omission", G. Tene, "How not to measure latency").
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.errors import Inconclusive, TooSlow
from components.parameters import parsed
from components.rollout.traffic import Rows

if TYPE_CHECKING:
    import httpx

_CONNECTIONS = 128
_GIVE_UP_SECONDS = 10.0
_BODIES = 1000  # different rows that are sent
_LATE_MS = 10.0  # delay of this client's own that is left out of account
_LEAST_RATE = 0.95  # of the rate that is asked for

Finding = Literal["pass", "too slow", "failing", "inconclusive"]


class Load(BaseModel):
    """The load that is expected, and what the server must hold under it.

    Attributes:
        requests_per_second: how many requests are sent per second, of one row each; 0 leaves the test out.
        seconds: for how long.
        warmup_seconds: the same load before that, not counted.
        p99_ms: the 99th percentile of latency must not be above this; 0 only reports it.
        error_rate: largest share of requests that may fail.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_second: float = Field(default=20, ge=0, le=5000)
    seconds: float = Field(default=3, gt=0, le=3600)
    warmup_seconds: float = Field(default=0.5, ge=0, le=600)
    p99_ms: float = Field(default=0, ge=0)
    error_rate: float = Field(default=0, ge=0, le=1)


@dataclass(frozen=True)
class LoadResult:
    """What a load test measured; latencies in milliseconds from the time a request was due, failed ones included.

    Attributes:
        requests: how many were sent and counted.
        failed: how many were not answered with 200.
        errors: failed requests by status code, or by what happened instead of an answer.
        sent_per_second: the rate at which requests really went out.
        answered_per_second: the rate at which 200s came back.
        p50_ms: median latency.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        max_ms: the longest.
        late_ms: 99th percentile of how late the client itself was in sending; part of the latencies above.
        finding: "pass"; "too slow" or "failing" where the server does not hold what is asked; "inconclusive" where
            the client could not keep up.
        reason: why, one sentence.
    """

    requests: int = 0
    failed: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    sent_per_second: float = 0.0
    answered_per_second: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    late_ms: float = 0.0
    finding: Finding = "pass"
    reason: str = "no load test was asked for"


@dataclass(frozen=True)
class _Sent:
    """One request: when it was due and went out, on the loop's clock, how long it took, and what came back."""

    due: float
    out: float
    seconds: float
    error: str


def parse_load(load: dict[str, Any]) -> Load:
    """Read a load given as a parameter.

    Raises:
        BadInput: a field is out of range or unknown; names it.
    """
    return parsed(Load, load, "The load", whole="load")


def load_test(url: str, name: str, rows: Rows, load: Load) -> LoadResult:
    """Send rows to a server at the expected rate and hold its answers against the SLO.

    Args:
        url: the server.
        name: the model's name.
        rows: held-out rows, sent one per request, over and over.
        load: rate, duration and limits.

    Raises:
        TooSlow: the latency or the share of failures is above its limit.
        Inconclusive: there is a limit on latency, but this process could not send at that rate, so that its figures
            say nothing of the server.
    """
    result = measure(url, name, rows, load)
    if result.finding in ("too slow", "failing"):
        raise TooSlow(result.reason)
    if result.finding == "inconclusive" and load.p99_ms:
        raise Inconclusive(result.reason)
    return result


def measure(url: str, name: str, rows: Rows, load: Load) -> LoadResult:
    """Measure as :func:`load_test` does, and give the result whatever it is."""
    if not load.requests_per_second or not rows.instances:
        return LoadResult()
    warm = arrivals(load.requests_per_second, load.warmup_seconds)
    counted = [load.warmup_seconds + due for due in arrivals(load.requests_per_second, load.seconds)]
    sent = asyncio.run(_send_all(f"{url}/v1/models/{name}:predict", rows.instances, [*warm, *counted]))
    return judged(sent[len(warm) :], load)


def arrivals(per_second: float, seconds: float) -> list[float]:
    """When requests are due, in seconds from the start: a Poisson process, given that the number is what is asked.

    Given their number, the arrivals of a Poisson process are independent and uniform. The same each time.
    """
    number = round(per_second * seconds)
    draw = random.Random(0)  # noqa: S311 - not a secret
    return sorted(draw.uniform(0, seconds) for _ in range(number))


async def _send_all(endpoint: str, instances: Sequence[dict[str, Any]], dues: Sequence[float]) -> list[_Sent]:
    import httpx

    bodies = cycle([json.dumps({"instances": [row]}).encode() for row in instances[:_BODIES]])
    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    async with httpx.AsyncClient(timeout=None, limits=limits, trust_env=False) as client:  # noqa: S113 - limited below
        clock = asyncio.get_running_loop().time
        start = clock() + 0.05
        tasks = []
        for due in dues:
            await asyncio.sleep(start + due - clock())
            tasks.append(asyncio.create_task(_send(client, endpoint, next(bodies), start + due)))
        return await asyncio.gather(*tasks)


async def _send(client: "httpx.AsyncClient", endpoint: str, body: bytes, due: float) -> _Sent:
    import httpx

    clock = asyncio.get_running_loop().time
    out = clock()
    try:
        async with asyncio.timeout_at(due + _GIVE_UP_SECONDS):
            answer = await client.post(endpoint, content=body, headers={"Content-Type": "application/json"})
    except TimeoutError:
        error = f"no answer in {_GIVE_UP_SECONDS:.0f} s"
    except httpx.HTTPError as failure:
        error = type(failure).__name__
    else:
        error = "" if answer.status_code == 200 else str(answer.status_code)
    return _Sent(due, out, clock() - due, error)


def judged(sent: Sequence[_Sent], load: Load) -> LoadResult:
    """Sum up the requests of a test."""
    latencies = [one.seconds * 1000 for one in sent]
    errors = Counter(one.error for one in sent if one.error)
    first = min(one.due for one in sent)
    lasted = max(load.seconds, max(one.out for one in sent) - first)
    answered = max(load.seconds, max(one.due + one.seconds for one in sent) - first)
    result = LoadResult(
        requests=len(sent),
        failed=errors.total(),
        errors=dict(errors),
        sent_per_second=len(sent) / lasted,
        answered_per_second=(len(sent) - errors.total()) / answered,
        p50_ms=_percentile(latencies, 50),
        p95_ms=_percentile(latencies, 95),
        p99_ms=_percentile(latencies, 99),
        max_ms=max(latencies),
        late_ms=_percentile([(one.out - one.due) * 1000 for one in sent], 99),
    )
    finding, reason = _finding(result, load)
    return replace(result, finding=finding, reason=reason)


def _finding(seen: LoadResult, load: Load) -> tuple[Finding, str]:
    """Hold a result against its limits; the server is not blamed for what may be this client's own delay."""
    said = f"p99 {seen.p99_ms:,.0f} ms at {seen.sent_per_second:.3g} requests per second ({seen.requests} sent)"
    if seen.failed > load.error_rate * seen.requests:
        kinds = ", ".join(f"{number} {error}" for error, number in sorted(seen.errors.items()))
        return "failing", (
            f"At the expected load {seen.failed} of {seen.requests} requests to the staged server failed ({kinds}), "
            f"{load.error_rate:.1%} allowed: look at its log, give it more resources, or raise load.error_rate."
        )
    own_ms = 2 * seen.late_ms if seen.late_ms > _LATE_MS else 0.0  # late in sending, and as late in reading
    if load.p99_ms and seen.p99_ms - own_ms > load.p99_ms:
        return "too slow", (
            f"The staged server is too slow at the expected load: {said}, {load.p99_ms:,.0f} ms allowed; "
            "give it more resources or servers, or a smaller model."
        )
    if seen.sent_per_second < _LEAST_RATE * load.requests_per_second or (load.p99_ms and seen.p99_ms > load.p99_ms):
        return "inconclusive", (
            f"The load test says nothing of the server, because this client could not keep up: it sent "
            f"{seen.sent_per_second:.3g} of {load.requests_per_second:g} requests per second and was up to "
            f"{seen.late_ms:,.0f} ms late; give this step more CPU or lower load.requests_per_second."
        )
    return "pass", f"{said}, {f'{load.p99_ms:,.0f} ms allowed' if load.p99_ms else 'no limit set'}"


def _percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of the values do not exceed (nearest rank)."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]
