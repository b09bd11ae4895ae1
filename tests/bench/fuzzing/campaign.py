"""Fires attacks at a server and keeps count; seeded, so that the same come again."""

import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from tests.bench.fuzzing.attack import Attack
from tests.bench.fuzzing.binary import binary_attack
from tests.bench.fuzzing.bodies import json_attacks, mutant
from tests.bench.fuzzing.check import problems
from tests.bench.fuzzing.raw import raw_attack
from tests.bench.fuzzing.target import Target
from tests.bench.fuzzing.wire import Client
from tests.bench.load.replies import alike

_NUMBERS = re.compile(r"[0-9a-f]{8,}|\d+")
EVERY = 1_000
"""Attacks between two looks at whether the server still predicts the same."""


@dataclass
class Campaign:
    """An attack on one server.

    Attributes:
        port: of the server.
        target: its model.
        process: of the server; a restart is a failure.
        folder: where attacks are kept whose replies were wrong.
        statuses: replies by kind of attack and status.
        failures: what was wrong, by kind of attack and what it was.
        memory: (attacks so far, RSS in MB).
    """

    port: int
    target: Target
    process: psutil.Process
    folder: Path
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[int, float]] = field(default_factory=list)
    fired: int = 0
    saved: int = 0

    def __post_init__(self) -> None:
        self._client = Client(self.port)
        self._expected = self.target.predictions(self.port)
        self._workers = self._pids()

    def fire(self, attack: Attack) -> None:
        """Send one, and note what was wrong with the reply."""
        try:
            exchange = self._client.send(attack)
        except OSError as error:
            self._failed(attack, [f"cannot connect: {error}"])
            time.sleep(0.5)
            return
        self.fired += 1
        for reply in exchange.replies:
            self.statuses[attack.kind, reply.status] += 1
        if not exchange.replies:
            self.statuses[attack.kind, 0] += 1
        if said := problems(attack, exchange, self.target):
            self._failed(attack, said)
        if self.fired % EVERY == 0:
            self.look(attack)

    def look(self, last: Attack) -> None:
        """Whether the server is the same process and predicts what it did; and how large it is."""
        said = []
        try:
            now = self.target.predictions(self.port)
            if not alike(_without_ids(now), _without_ids(self._expected)):
                said.append(f"predicts {now} instead of {self._expected}")
        except (AssertionError, OSError) as error:
            said.append(f"proper requests are not answered: {error}")
        if self._pids() != self._workers:
            said.append("a process ended")
        if said:
            self._failed(last, said)
        self.memory.append((self.fired, self.rss()))

    def rss(self) -> float:
        """MB of all its processes."""
        return sum(one.memory_info().rss for one in [self.process, *self.process.children(recursive=True)]) / 1e6

    def json(self, count: int, number: int, mutants: int = 2) -> None:
        """Bodies by Hypothesis, and of each so many copies with bytes changed."""

        draw = random.Random(number)

        def run(attack: Attack) -> None:
            self.fire(attack)
            for _ in range(mutants):
                self.fire(mutant(draw, attack))

        self._given(json_attacks(self.target), count, number, run)

    @staticmethod
    def _given(strategy: SearchStrategy[Attack], count: int, number: int, run: Callable[[Attack], None]) -> None:
        @seed(number)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def each(attack: Attack) -> None:
            run(attack)

        each()

    def documented(self, count: int, number: int) -> None:
        """What Schemathesis makes of the OpenAPI document: so many, shared among its operations."""
        from tests.bench.fuzzing.documented import documented_attacks  # takes a second to import

        strategies = documented_attacks(self.port, self.target)
        for strategy in strategies:
            self._given(strategy, max(1, count // len(strategies)), number, self.fire)

    def raw(self, count: int, number: int) -> None:
        """Broken HTTP."""
        self._drawn(raw_attack, count, number)

    def binary(self, count: int, number: int) -> None:
        """Binary tensors."""
        self._drawn(binary_attack, count, number)

    def _drawn(self, make: Callable[[random.Random, Target], Attack], count: int, number: int) -> None:
        draw = random.Random(number)
        for _ in range(count):
            self.fire(make(draw, self.target))

    def _failed(self, attack: Attack, said: list[str]) -> None:
        for one in said:
            self.failures[f"{attack.kind}: {_NUMBERS.sub('#', one)[:200]}"] += 1
        if self.saved < 200:
            self.saved += 1
            attack.save(self.folder, self.saved, said)

    def _pids(self) -> set[int]:
        if not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE:
            return set()
        return {self.process.pid, *(one.pid for one in self.process.children(recursive=True))}


def _without_ids(replies: list[Any]) -> list[Any]:
    return [{key: value for key, value in reply.items() if key != "id"} for reply in replies]
