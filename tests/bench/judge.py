"""The judge on simulated rollouts: how often it is wrong, what it finds, and after how many requests; beside Flagger.

Everything the judge decides here it decides through ``components.rollout.judge.judge``, after every scrape.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from components.rollout.evidence import Context, Observation
from components.rollout.judge import Finding, judge
from components.rollout.plan import RolloutPlan
from tests.bench import judge_flagger
from tests.bench.judge_traffic import Replayed, Version, World, offline, traffic

PLAN = RolloutPlan()
_CHUNK = 25
_HELD_OUT, _SCRAPES_BEFORE = 1000, 100
_RATE = 0.01

EQUAL = {
    "steady: 200 requests per scrape, 1 % errors": World(),
    "no errors at all": World(stable=Version(errors=0.0), canary=Version(errors=0.0)),
    "bursts of traffic, latency and errors that hit both": World(bursts=True),
    "error rates that change by the scrape, for each version by itself": World(uneven=True),
    "little traffic: 4 requests to the challenger per scrape at 10 %": World(requests=40),
    "90 held-out rows in turn, models that differ": World(requests=50, rows=90),
}
HARMED = {
    "errors 1 % to 5 %": Version(errors=0.05),
    "every latency twice as long (p99 290 to 580 ms)": Version(median_ms=160),
    "p99 twice as long, the fastest 95 % as before": Version(tail=2.0),
    "predictions' mean 0.40 to 0.55": Version(mean=0.55),
}
PER_SECOND = (10, 20, 50, 100, 200)


@dataclass(frozen=True)
class End:
    """How one simulated rollout ended.

    Attributes:
        finding: harm, OK (promoted) or unclear (a step's time was over).
        requests: the challenger's requests until then.
        signals: what was harmful.
    """

    finding: Finding
    requests: int
    signals: tuple[str, ...] = ()


def rollouts(world: World, count: int, seed: int, plan: RolloutPlan = PLAN, scrapes: int = 240) -> list[End]:
    """Simulate whole rollouts, judged after every scrape.

    Args:
        world: what the versions do.
        count: how many.
        seed: of the random numbers.
        plan: steps and margins.
        scrapes: the longest that a step takes.
    """
    rng = np.random.default_rng(seed)
    waiting, done, requests = list(range(count)), {}, [0] * count
    replayed = [Replayed.draw(rng, world.rows) for _ in range(count)] if world.rows else []
    expected = [one.offline() for one in replayed] or [offline(rng, world, _HELD_OUT) for _ in range(count)]
    before, _ = traffic(rng, world, 0.0, (count, _SCRAPES_BEFORE))
    for step in plan.steps:
        counts = [] if replayed else traffic(rng, world, step / 100, (len(waiting), scrapes))
        advanced = []
        for place, one in enumerate(waiting):
            context = Context(step, before.arm(one, _SCRAPES_BEFORE - 1), *expected[one])
            if replayed:
                own = replayed[one].traffic(rng, int(world.requests), step / 100, scrapes)
                back, _ = replayed[one].traffic(rng, int(world.requests), 0.0, _SCRAPES_BEFORE)
                end = _step(own, 0, plan, replace(context, baseline=back.arm(0, _SCRAPES_BEFORE - 1)))
            else:
                end = _step(counts, place, plan, context)
            requests[one] += end.requests
            if end.finding is Finding.OK and step != plan.steps[-1]:
                advanced.append(one)
            else:
                done[one] = replace(end, requests=requests[one])
        waiting = advanced
    return list(done.values())


def _step(counts: Sequence, place: int, plan: RolloutPlan, context: Context) -> End:
    stable, canary = counts
    for scrape in range(stable.requests.shape[1]):
        seen = Observation(stable.arm(place, scrape), canary.arm(place, scrape))
        verdict = judge(seen, plan, context)
        if verdict.finding is not Finding.UNCLEAR:
            break
    harmful = tuple(check.signal for check in verdict.checks if check.finding is Finding.HARM)
    return End(verdict.finding, seen.canary.requests, harmful)


def _share(ends: Sequence[End], finding: Finding) -> float:
    return sum(end.finding is finding for end in ends) / len(ends)


def _median(ends: Sequence[End]) -> float:
    return float(np.median([end.requests if end.finding is Finding.HARM else np.inf for end in ends]))


def measure(count: int = 1000) -> str:
    """Run everything, on every core; gives the section for RESULTS.md."""
    began = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count()) as pool:

        def simulate(world: World, number: int, scrapes: int = 240) -> list:
            chunks = -(-number // _CHUNK)
            return [pool.submit(rollouts, world, _CHUNK, seed, PLAN, scrapes) for seed in range(chunks)]

        equal = {name: simulate(world, count, 500 if world.requests < 50 else 240) for name, world in EQUAL.items()}
        harmed = {name: simulate(World(canary=version), count // 3) for name, version in HARMED.items()}
        errors = Version(errors=0.05)
        speed = {
            rate: simulate(World(5 * rate, canary=errors), count // 5, 500 if rate < 50 else 240) for rate in PER_SECOND
        }
        flagger = {rate: pool.submit(_flagger, rate, errors) for rate in PER_SECOND}
        others = {name: pool.submit(_flagger, 50, version) for name, version in HARMED.items()}
        text = "\n".join(
            [
                _equal({name: _ends(futures) for name, futures in equal.items()}),
                _harmed(
                    {name: _ends(futures) for name, futures in harmed.items()},
                    {name: future.result() for name, future in others.items()},
                ),
                _speed(
                    {rate: _ends(futures) for rate, futures in speed.items()},
                    {r: f.result() for r, f in flagger.items()},
                ),
            ]
        )
    return (
        f"## The judge, on simulated rollouts\n\n`python -m tests.bench judge`: {time.perf_counter() - began:.0f} s, "
        f"with numpy {np.__version__}. Steps of 10, 50 and 100 %, the default plan, judged after every scrape, "
        f"declared rate of false rollbacks {PLAN.slo.false_rollback_rate:.0%} per step.\n\n{text}"
    )


def _ends(futures: Sequence) -> list[End]:
    return [end for future in futures for end in future.result()]


def _flagger(per_second: float, harmed: Version) -> dict[str, float]:
    """Flagger's rule at its default threshold and at the one that is wrong as often as the judge may be."""
    rng = np.random.default_rng(int(per_second))
    equal = judge_flagger.run(rng, World(), per_second, 4000)
    worse = judge_flagger.run(rng, World(canary=harmed), per_second, 1000)
    tuned = judge_flagger.threshold_for(equal, _RATE)
    found: dict[str, float] = {"tuned": tuned}
    for name, threshold in (("default", judge_flagger.THRESHOLD), ("tuned", tuned)):
        found[f"{name} wrong"] = float(equal.rolled_back(threshold).mean())
        found[f"{name} found"] = float(worse.rolled_back(threshold).mean())
        found[f"{name} median"] = float(np.median(worse.requests_until(threshold)))
    return found


def _equal(found: dict[str, list[End]]) -> str:
    rows = [
        f"| {name} | {len(ends):,} | **{_share(ends, Finding.HARM):.2%}** | {_share(ends, Finding.OK):.1%} | "
        f"{_share(ends, Finding.UNCLEAR):.1%} | {np.median([end.requests for end in ends]):,.0f} |"
        for name, ends in found.items()
    ]
    return (
        "Equal versions (goal: at most 1 % rolled back, over whole rollouts):\n\n"
        "| traffic | rollouts | rolled back for harm | promoted | time over | challenger's requests, median |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n" + "\n".join(rows) + "\n"
    )


def _harmed(found: dict[str, list[End]], flagger: dict[str, dict[str, float]]) -> str:
    rows = [
        f"| {name} | **{_share(ends, Finding.HARM):.1%}** | {_share(ends, Finding.OK):.1%} | "
        f"{_number(_median(ends))} | {flagger[name]['tuned found']:.1%} | {_number(flagger[name]['tuned median'])} |"
        for name, ends in found.items()
    ]
    return (
        "Harm (goal: found in at least 95 %), 200 requests per scrape, beside Flagger's rule at 50 requests per second "
        "with its threshold tuned to 1 % false rollbacks:\n\n"
        "| the challenger's | found | promoted | its requests until then, median | Flagger: found | until then |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n" + "\n".join(rows) + "\n"
    )


def _speed(found: dict[int, list[End]], flagger: dict[int, dict[str, float]]) -> str:
    rows = []
    for rate, ends in found.items():
        theirs = flagger[rate]
        rows.append(
            f"| {rate} | {_share(ends, Finding.HARM):.1%} | {_number(_median(ends))} | {theirs['default wrong']:.1%} | "
            f"{theirs['default found']:.1%} | {_number(theirs['default median'])} | {theirs['tuned']:.0f} | "
            f"{theirs['tuned wrong']:.1%} | {theirs['tuned found']:.1%} | {_number(theirs['tuned median'])} | "
            f"**{_median(ends) / theirs['tuned median']:.2f}** |"
        )
    return (
        "Errors 1 % to 5 %: challenger's requests until it is rolled back, median (goal: at most half of Flagger's at "
        "the same rate of false rollbacks). Scrapes every 5 s; Flagger: 1 minute, success rate 99 %, p99 500 ms, "
        f"weights of 5 to 50 %, threshold {judge_flagger.THRESHOLD} as documented, and tuned to at most 1 % false "
        "rollbacks:\n\n"
        "| requests/s | judge: found | requests | default: false | found | requests | tuned threshold | false | found "
        "| requests | judge over tuned |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n" + "\n".join(rows) + "\n"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "never"
