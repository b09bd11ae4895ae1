"""The story in four acts, on real data and real servers; the end-to-end test plays it too."""

import json
import math
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import httpx
from rich.console import Console

from components.rollout.stores.files import FileStore
from components.rollout.traffic import Replay
from components.settings import settings
from pipelines import services
from pipelines.result import RunResult
from pipelines.runner import Request
from pipelines.session import run_and_report

SERVICE = "demo"
_CLIENT_PER_SECOND = 120


@dataclass(frozen=True)
class Act:
    """One act: the parameters that differ, and how it must end."""

    title: str
    parameters: Mapping[str, Any]
    ends: str
    watched: bool = False


@dataclass
class Audience:
    """A client of the service: which revision answered each request, when, and what failed."""

    answers: list[tuple[float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, answer: httpx.Response | None) -> None:
        """Take note of one answer."""
        with self._lock:
            if answer is None or answer.status_code != 200:
                self.failures.append("no answer" if answer is None else f"{answer.status_code}: {answer.text[:200]}")
            else:
                self.answers.append((time.time(), answer.headers["x-sluiceway-revision"]))


@dataclass(frozen=True)
class Split:
    """How a step's requests were shared: how many the challenger answered, at which weight."""

    weight: int
    requests: int
    canary: int

    def interval(self, confidence: float = 0.99) -> tuple[float, float]:
        """The challenger's share that the weight allows for that many requests.

        Normal approximation of the binomial with continuity correction.
        """
        share = self.weight / 100
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        half = z * math.sqrt(share * (1 - share) / self.requests) + 0.5 / self.requests
        return max(0.0, share - half), min(1.0, share + half)

    def holds(self, confidence: float = 0.99) -> bool:
        """Whether the measured share is within the interval."""
        low, high = self.interval(confidence)
        return low <= self.canary / self.requests <= high


@dataclass(frozen=True)
class Played:
    """An act as it went."""

    act: Act
    result: RunResult
    champion_version: str
    requests: int = 0
    failures: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ()

    def as_told(self) -> bool:
        """Whether the act ended as it must, with a champion serving."""
        return self.result.state == self.act.ends and not self.failures and bool(self.champion_version)


def acts(corrupted: Path, source: Path) -> tuple[Act, ...]:
    """The acts; each builds on the service as the one before left it."""
    data = {"source_uri": str(source)}
    errors = {"SLUICEWAY_FAULTS": "errors=0.3,after_requests=140"}
    slow = {"SLUICEWAY_FAULTS": "delay_ms=400,after_requests=140"}
    return (
        Act("1. The first champion goes straight to 100 %", {**data, "trainer": "linear"}, "promoted"),
        Act("2. A better challenger walks 10, 50, 100 % and is promoted", data, "promoted", watched=True),
        Act("3. A challenger trained on corrupted labels is stopped", {"source_uri": str(corrupted)}, "blocked"),
        Act(
            "4a. A challenger that fails live is rolled back: errors",
            {**data, "hyperparameters": {"learning_rate": 0.08}, "server_env": errors},
            "rolled_back",
        ),
        Act(
            "4b. A challenger that fails live is rolled back: latency",
            {**data, "hyperparameters": {"learning_rate": 0.12}, "server_env": slow},
            "rolled_back",
        ),
    )


def play_all(console: Console, least_requests: int) -> list[Played]:
    """Play every act, in a home of its own."""
    with _stage() as home:
        source, corrupted = write_data(home)
        played = []
        for act in acts(corrupted, source):
            console.rule(f"[bold]{act.title}")
            played.append(play_act(act, console, least_requests if act.watched else 0))
    return played


def play(console: Console, least_requests: int) -> bool:
    """Play every act and say how it went; true when all ended as they must."""
    played = play_all(console, least_requests)
    console.rule("[bold]How it went")
    for one in played:
        sign = "[green]✓[/]" if one.as_told() else "[red]✗[/]"
        console.print(f"{sign} {one.act.title}: {one.result.state}, version {one.champion_version} serves")
        if one.act.watched:
            console.print(f"    {one.requests} client requests, {len(one.failures)} failed")
        for split in one.splits:
            low, high = split.interval()
            console.print(
                f"    at {split.weight} %: {split.canary} of {split.requests} answered by the challenger "
                f"({split.canary / split.requests:.1%}; 99 % interval {low:.1%} to {high:.1%})"
            )
    return all(one.as_told() for one in played)


@contextmanager
def _stage() -> Iterator[Path]:
    """A home of its own for the time of the demo, whose service ends with it."""
    from serving.local import client

    before = os.environ.get("SLUICEWAY_HOME")
    home = settings().home / "demo"
    if home.exists():
        client.stop(home)
        shutil.rmtree(home)
    os.environ["SLUICEWAY_HOME"] = str(home)
    try:
        yield home
    finally:
        client.stop(home)
        if before is None:
            del os.environ["SLUICEWAY_HOME"]
        else:
            os.environ["SLUICEWAY_HOME"] = before


def write_data(home: Path) -> tuple[Path, Path]:
    """Write the real data set, and a copy whose labels are shuffled."""
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).frame
    home.mkdir(parents=True, exist_ok=True)
    source, corrupted = home / "breast_cancer.csv", home / "corrupted.csv"
    frame.to_csv(source, index=False)
    shuffled = frame["target"].sample(frac=1, random_state=0).to_numpy()
    frame.assign(target=shuffled).to_csv(corrupted, index=False)
    return source, corrupted


def play_act(act: Act, console: Console, least_requests: int) -> Played:
    """Run the pipeline once, with a client at the service throughout where the act is watched."""
    parameters = {"model_name": SERVICE, **act.parameters}
    given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}
    audience = Audience()
    before = services.live(settings().home, SERVICE)
    replay: Any = nullcontext()
    if act.watched:
        replay = Replay(before["url"], SERVICE, _instances(), _CLIENT_PER_SECOND, audience.answered)
    with replay:
        result = run_and_report(Request("train-and-deploy", given), console)
        while act.watched and len(audience.answers) + len(audience.failures) < least_requests:
            time.sleep(0.1)
    live = services.live(settings().home, SERVICE)
    return Played(
        act,
        result,
        live.get("model_version", "") if live.get("state") == "ready" else "",
        len(audience.answers) + len(audience.failures),
        tuple(audience.failures),
        tuple(_splits(audience)) if act.watched else (),
    )


def _instances() -> list[dict[str, Any]]:
    from sklearn.datasets import load_breast_cancer

    records: list[dict[str, Any]] = load_breast_cancer(as_frame=True).data.to_dict("records")
    return records


def _splits(audience: Audience) -> Iterator[Split]:
    """Count the client's answers by revision between the moment a weight was in force and the step's verdict."""
    events = FileStore(settings().home, SERVICE).load().events
    staged = next(e for e in events if e.what == "staged")
    revision = (staged.model_extra or {})["revision"]
    shifts = [e for e in events if e.what == "shift"]
    verdicts = [e for e in events if e.what == "verdict"]
    for shift, verdict in zip(shifts, verdicts, strict=True):
        # Answers that came within a moment of the change may have been routed before it.
        counts = Counter(who for when, who in audience.answers if shift.time + 0.1 < when < verdict.time)
        if counts:
            yield Split(shift.weight, counts.total(), counts[revision])
