"""What a request costs as load grows, up to what one core does and past it; and how soon it is over when load ends.

Open loop: requests come at random moments at a given rate, whatever became of those before, and latency counts from
the moment at which a request was due.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import plots
from tests.bench.load.client import GENERATOR_CORE, SERVER_CORE, Offered, closed, offered
from tests.bench.peers import models
from tests.bench.peers.models import Served
from tests.bench.peers.servers import KSERVE, OURS, Peer, Running, running

SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
"""Of what a closed loop of 64 connections reaches."""
PEER_SHARES = (0.25, 0.5, 0.8, 1.0, 1.5)
SECONDS = 2.5
CONNECTIONS = 3_000
"""As many as clients may have that do not wait for each other; where none is free, a request waits at the client."""
CALM, STORM, AFTER = (0.5, 3.0), (2.0, 5.0), (0.5, 5.0)
"""Shares of saturation and seconds, for the time it takes to recover."""
WINDOW = 0.1
RECOVERY_GOAL_S = 1.0


@dataclass(frozen=True)
class Point:
    """One offered rate."""

    share: float
    rate: float
    answered: float
    p50: float
    p99: float
    refused: int
    unanswered: int
    rude: int
    core_seconds: float
    late: float

    def row(self) -> str:
        """Of the table."""
        return (
            f"| {self.share:.0%} | {self.rate:,.0f} | {self.answered:,.0f} | {self.p50:.2f} | {self.p99:.2f} | "
            f"{self.refused:,} | {self.rude:,} | {self.unanswered:,} | {self.core_seconds:.0f} | {self.late:.1%} |"
        )


@dataclass(frozen=True)
class Recovery:
    """Load that comes and goes."""

    found: Offered
    seconds: float
    refused: int
    unanswered: int


def measure() -> str:
    """Measure the curves; gives the section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as scratch:
        made = {name: models.make(name, Path(scratch) / name) for name in models.available()}
        curves: dict[str, list[Point]] = {}
        recoveries: dict[str, Recovery] = {}
        for name, model in made.items():
            with running(OURS, model) as server:
                saturation = _saturation(OURS, model, server)
                curves[name] = _curve(OURS, model, server, saturation, SHARES)
                recoveries[name] = _recovery(OURS, model, server, saturation)
        numeric = made["numeric"]
        with running(KSERVE, numeric) as server:
            saturation = _saturation(KSERVE, numeric, server)
            peer = _curve(KSERVE, numeric, server, saturation, PEER_SHARES)
    return _report(curves, recoveries, peer)


def _saturation(peer: Peer, model: Served, server: Running) -> float:
    return closed(server.port, _requests(peer, model), 64, seconds=3.0).rate


def _requests(peer: Peer, model: Served) -> list[bytes]:
    return [peer.request(model, [row]) for row in model.rows[:16]]


def _curve(peer: Peer, model: Served, server: Running, saturation: float, shares: Sequence[float]) -> list[Point]:
    return [_point(peer, model, server, share, share * saturation) for share in shares]


def _point(peer: Peer, model: Served, server: Running, share: float, rate: float) -> Point:
    before = server.processor_seconds()
    found = offered(server.port, _requests(peer, model), [(rate, SECONDS)], connections=CONNECTIONS)
    used = server.processor_seconds() - before
    done = (found.due + found.seconds)[found.status == 200]
    point = Point(
        share=share,
        rate=len(found.due) / SECONDS,
        # The first second is left out, and what was answered after the load had ended.
        answered=((done >= 1) & (done < SECONDS)).sum() / (SECONDS - 1),
        p50=found.percentile(50),
        p99=found.percentile(99),
        refused=found.count(429, 503),
        unanswered=found.count(0),
        rude=found.rude,
        core_seconds=used / max(1, found.count(200)) * 1e6,
        late=found.late,
    )
    print(peer.name, model.name, point.row(), file=sys.stderr, flush=True)
    return point


def _recovery(peer: Peer, model: Served, server: Running, saturation: float) -> Recovery:
    phases = [(share * saturation, seconds) for share, seconds in (CALM, STORM, AFTER)]
    found = offered(server.port, _requests(peer, model), phases, connections=CONNECTIONS)
    over = CALM[1] + STORM[1]
    usual = max(5.0, 3 * found.between(1.0, CALM[1]).percentile(99))
    recovered = 0.0
    for begin in np.arange(over, over + AFTER[1], WINDOW):
        window = found.between(begin, begin + WINDOW)
        if len(window.due) and (window.count(200) < len(window.due) or window.percentile(99) > usual):
            recovered = begin + WINDOW - over
    storm = found.between(CALM[1], over)
    return Recovery(found, recovered, storm.count(429, 503), storm.count(0))


def _report(curves: dict[str, list[Point]], recoveries: dict[str, Recovery], peer: list[Point]) -> str:
    heads = ("saturation", "offered, /s", "answered, /s", "p50, ms", "p99, ms", "429 or 503", "without Retry-After")
    heads += ("no reply", "core-seconds per million", "sent late")
    table = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    lines = [
        "## Cost and latency against offered load",
        "",
        f"`python -m tests.bench serving_curve`. One row per request, V1 JSON; the server on core {SERVER_CORE}, the",
        f"generator on core {GENERATOR_CORE}; Poisson arrivals for {SECONDS:g} s per rate over at most {CONNECTIONS:,}",
        "connections that have all been used before; what finds none free within a second is given up. Latency of",
        "answered requests from the moment they were due, so that waiting for a connection counts. Saturation is what",
        "a closed loop of 64 connections reaches. *Sent late*: by the generator, over a millisecond, although a",
        "connection was free.",
        "",
    ]
    for name, points in curves.items():
        best = max(point.answered for point in points)
        lines += [f"### {name}", "", *table, *(point.row() for point in points), ""]
        lines += [
            f"At {points[-1].share:.0%} of saturation it still answers {points[-1].answered / best:.0%} of its best.",
            f"Load that goes from {CALM[0]:.0%} to {STORM[0]:.0%} for {STORM[1]:g} s and back, when the callers that "
            f"were too many leave: {recoveries[name].refused:,} refused, {recoveries[name].unanswered:,} not answered; "
            f"{recoveries[name].seconds:.1f} s after its end the last {WINDOW:g} s had passed that were not as before "
            f"(goal: within {RECOVERY_GOAL_S:g} s).",
            "",
        ]
    lines += ["### KServe scikit-learn, numeric", "", *table, *(point.row() for point in peer), ""]
    lines.append(plots.save(_plot(curves, recoveries, peer), "serving_curve"))
    return "\n".join(lines)


def _plot(curves: dict[str, list[Point]], recoveries: dict[str, Recovery], peer: list[Point]) -> Any:
    drawn, ((answered, latency), (storm, cost)) = plots.figure(2, 2, width=10, height=6.5)
    for label, points in [*((f"Sluiceway, {name}", points) for name, points in curves.items()), ("KServe", peer)]:
        rates = [point.rate for point in points]
        answered.plot(rates, [point.answered for point in points], marker="o", markersize=3, label=label)
        (line,) = latency.plot(rates, [point.p99 for point in points], marker="o", markersize=3, label=f"{label}, p99")
        latency.plot(rates, [point.p50 for point in points], linestyle=":", color=line.get_color())
        cost.plot(rates, [point.core_seconds for point in points], marker="o", markersize=3, label=label)
    most = max(point.rate for points in curves.values() for point in points)
    answered.plot([0, most], [0, most], color="gray", linewidth=0.8, linestyle="--")
    answered.set(title="answered, requests/s", xlabel="offered, requests/s")
    latency.set(title="latency, ms (dotted: p50)", xlabel="offered, requests/s", yscale="log", xscale="log")
    cost.set(title="core-seconds per million answers", xlabel="offered, requests/s", yscale="log", xscale="log")
    for name, recovery in recoveries.items():
        begins = np.arange(0, CALM[1] + STORM[1] + AFTER[1], WINDOW)
        windows = [recovery.found.between(begin, begin + WINDOW) for begin in begins]
        storm.plot(begins, [window.percentile(99) for window in windows], label=f"{name}, p99")
    storm.axvspan(CALM[1], CALM[1] + STORM[1], color="tab:red", alpha=0.1)
    storm.set(title=f"{STORM[0]:.0%} of saturation for {STORM[1]:g} s: p99, ms", xlabel="s", yscale="log")
    for axis in (answered, latency, storm, cost):
        axis.legend(fontsize=7)
    return drawn


if __name__ == "__main__":
    print(measure())
