"""How long the default road takes, and how much of that is not the steps' own work.

A step's own work is the time between its first and last event, less the imports made in between, which Python itself
reports (``PYTHONPROFILEIMPORTTIME``). All the rest is overhead: the CLI, compiling, KFP's orchestration, starting
processes, imports.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from components.step import MARK
from tests.e2e.road import Road

RUNS = 3
_IMPORT = re.compile(r"import time:\s+\d+ \|\s+(\d+) \| (\s*)(\S+)")
GOAL_SECONDS = 60.0
GOAL_SHARE = 1 / 3


@dataclass(frozen=True)
class Timing:
    """One run in seconds: as a whole, and each step's own work and imports."""

    wall: float
    work: dict[str, float]
    imports: dict[str, float]

    @property
    def overhead(self) -> float:
        """Everything that is no step's own work."""
        return self.wall - sum(self.work.values())


def measure() -> str:
    """Time the default road in fresh homes, then once more where nothing has changed."""
    timings = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(RUNS):
            road = Road(Path(scratch) / str(number))
            timings.append(_timed(road))
            print(f"run {number + 1} of {RUNS}: {timings[-1].wall:.1f} s", file=sys.stderr)
            again = _timed(road) if number == RUNS - 1 else None
            road.command("stop")
    assert again is not None
    middle = sorted(timings, key=lambda timing: timing.wall)[RUNS // 2]
    share = statistics.median(timing.overhead / timing.wall for timing in timings)
    lines = [
        "## The default road, warm (`sluiceway run train-and-deploy`)",
        "",
        f"Median of {RUNS} runs in fresh homes: **{middle.wall:.1f} s** (goal: under {GOAL_SECONDS:.0f} s), of which",
        f"{middle.overhead:.1f} s ({share:.0%}) are orchestration, process starts and imports "
        f"(goal: at most a third of {GOAL_SECONDS:.0f} s).",
        f"Run again with nothing changed: {again.wall:.1f} s.",
        "",
        "| step | own work, s | imports within it, s |",
        "| --- | ---: | ---: |",
        *(f"| {step} | {work:.2f} | {middle.imports[step]:.2f} |" for step, work in middle.work.items()),
        "",
    ]
    return "\n".join(lines)


def _timed(road: Road) -> Timing:
    # The default plan and parameters, as `make run` has them.
    command = [sys.executable, "-m", "pipelines.cli", "run", "train-and-deploy", "--json"]
    environment = road.environment(PYTHONPROFILEIMPORTTIME="1")
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, check=True)
    result = json.loads(ended.stdout.splitlines()[-1])
    log = (Path(result["report"]).parent / "kfp.log").read_text(encoding="utf-8")
    work, imports = _own_work(log)
    return Timing(result["seconds"], work, imports)


def _own_work(log: str) -> tuple[dict[str, float], dict[str, float]]:
    work: dict[str, float] = {}
    imports: dict[str, float] = {}
    step, began = "", 0.0
    for line in log.splitlines():
        text = line.strip()
        if text.startswith(f'{{"{MARK}"'):
            event = json.loads(text)
            if event[MARK] == "started":
                step, began = event["step"], event["time"]
                imports[step] = 0.0
            elif event[MARK] == "finished":
                work[step] = event["time"] - began - imports[step]
                step = ""
        elif step and (found := _IMPORT.search(line)) and not found[2]:  # not indented: nobody else imports it
            imports[step] += int(found[1]) / 1e6
    return work, imports
