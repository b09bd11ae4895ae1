"""How long the default road takes, and how much of that is not the steps' own work.

A step's own work is the time between its first and last event, less the imports made in between, which Python itself
reports (``PYTHONPROFILEIMPORTTIME``) in one further run, since reporting slows a run down. All the rest is overhead:
the CLI, compiling, KFP's orchestration, starting processes, imports.
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


@dataclass(frozen=True)
class Timing:
    """One run in seconds: as a whole, each step between its events, and the imports in between (if reported)."""

    wall: float
    steps: dict[str, float]
    imports: dict[str, float]

    def overhead(self, imports: dict[str, float]) -> float:
        """Everything that is no step's own work."""
        return self.wall - sum(max(seconds - imports[step], 0.0) for step, seconds in self.steps.items())


def measure() -> str:
    """Time the default road in fresh homes, then once more where nothing has changed."""
    with tempfile.TemporaryDirectory() as scratch:
        imports = _in_fresh_home(Path(scratch) / "imports", reported=True)[0].imports
        timings, again = [], []
        for number in range(RUNS):
            first, second = _in_fresh_home(Path(scratch) / str(number), repeated=True)
            timings.append(first)
            again.append(second.wall)
            print(f"run {number + 1} of {RUNS}: {first.wall:.1f} s", file=sys.stderr)
    middle = sorted(timings, key=lambda timing: timing.wall)[RUNS // 2]
    overhead = statistics.median(timing.overhead(imports) for timing in timings)
    lines = [
        "## The default road, warm (`sluiceway run train-and-deploy`)",
        "",
        f"Median of {RUNS} runs in fresh homes: **{middle.wall:.1f} s** (goal: under {GOAL_SECONDS:.0f} s), of which "
        f"{overhead:.1f} s are",
        "orchestration, process starts and imports (goal: at most a third, which is missed: "
        f"{overhead / middle.wall:.0%} of this run, {overhead / GOAL_SECONDS:.0%} of the {GOAL_SECONDS:.0f} s)."
        if overhead > middle.wall / 3
        else f"orchestration, process starts and imports (goal: at most a third; {overhead / middle.wall:.0%}).",
        f"Run again with nothing changed: {statistics.median(again):.1f} s.",
        "",
        "| step | own work, s | imports within it, s |",
        "| --- | ---: | ---: |",
        *(
            f"| {step} | {max(seconds - imports[step], 0.0):.2f} | {imports[step]:.2f} |"
            for step, seconds in middle.steps.items()
        ),
        "",
    ]
    return "\n".join(lines)


def _in_fresh_home(home: Path, *, reported: bool = False, repeated: bool = False) -> list[Timing]:
    road = Road(home)
    timings = [_timed(road, reported) for _ in range(2 if repeated else 1)]
    road.command("stop")
    return timings


def _timed(road: Road, reported: bool) -> Timing:
    # The default plan and parameters, as `make run` has them.
    command = [sys.executable, "-m", "pipelines.cli", "run", "train-and-deploy", "--json"]
    environment = road.environment(**({"PYTHONPROFILEIMPORTTIME": "1"} if reported else {}))
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, check=True)
    result = json.loads(ended.stdout.splitlines()[-1])
    log = (Path(result["report"]).parent / "kfp.log").read_text(encoding="utf-8")
    return Timing(result["seconds"], *_steps_and_imports(log))


def _steps_and_imports(log: str) -> tuple[dict[str, float], dict[str, float]]:
    steps: dict[str, float] = {}
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
                steps[step] = event["time"] - began
                step = ""
        elif step and (found := _IMPORT.search(line)) and not found[2]:  # not indented: nobody else imports it
            imports[step] += int(found[1]) / 1e6
    return steps, imports
