"""How long a step's process takes to the first line of the step's own code, in its image's environment.

A step is started as its pod starts it: the command in the compiled package, with the environment of links that the
tests use. Its first line is the ``started`` event. Its inputs are not there, so that it fails where it looks at them:
that is when it has imported what its work begins with. Beside it, in turn, the same executor with an empty component;
and a component as kfp makes them by default, which installs kfp when it starts (from pip's cache: no network).
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import yaml

from tests import image_use, linked_environment

REPEATS = 5
GOAL = 3.0
EMPTY = "(empty component)"
SERVER = "model server, ready"
_NOTHING = """
from kfp.dsl import *

def nothing():
    print('{"sluiceway": "started"}', flush=True)
"""


def measure() -> str:
    """Start every step of the pipeline several times; returns the section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pythons = {group: _environment(group, folder) for group in image_use.ABSENT}
        bare = _with_pip(folder / "bare")
        _install(bare)  # fills pip's cache
        times: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(REPEATS + 1):  # the first of each warms the disk's cache
            for group, steps in image_use.STEPS.items():
                for name, source in (steps | {EMPTY: _NOTHING} if steps else {}).items():
                    function = "nothing" if name == EMPTY else name
                    times.setdefault((group, name), []).append(_started(pythons[group], source, function, folder))
            times.setdefault(("serving", SERVER), []).append((image_use.served(pythons["serving"]), 0.0))
        installing = [
            _started(_with_pip(folder / f"new{n}"), _NOTHING, "nothing", folder, install=True) for n in range(3)
        ]
    return _report(times, installing)


def _environment(group: str, folder: Path) -> Path:
    return linked_environment.make(folder / group, linked_environment.closure(linked_environment.group(group)))


def _with_pip(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def _install(python: Path) -> None:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-warn-script-location"]
    constraints = ["--constraint", str(linked_environment.ROOT / "constraints.txt")]
    subprocess.run([python, "-m", "pip", "install", *quiet, *constraints, "kfp"], check=True, stderr=subprocess.DEVNULL)


def _started(python: Path, source: str, function: str, folder: Path, *, install: bool = False) -> tuple[float, float]:
    """Seconds from the start of the pod's command to the step's first event, and to its end for want of inputs."""
    program = folder / "ephemeral_component.py"
    command = [python, "-m", "kfp.dsl.executor_main", "--component_module_path", program]
    command += ["--executor_input", json.dumps(_input(source, function, folder)), "--function_to_execute", function]
    home = {"HOME": str(folder), "SLUICEWAY_HOME": str(folder / "home")}
    env = {"PATH": os.environ["PATH"], "_KFP_RUNTIME": "true", "PYTHONSAFEPATH": "1", **home}
    began = time.monotonic()
    program.write_text(source, "utf-8")
    if install:
        _install(python)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=env, text=True)
    assert process.stdout is not None
    first = 0.0
    for line in process.stdout:
        if '"sluiceway": "started"' in line:
            first = time.monotonic() - began
    said = process.communicate()[1]
    assert first, said
    return first, time.monotonic() - began


def _input(source: str, function: str, folder: Path) -> dict[str, Any]:
    """Inputs and outputs of every name that the step declares, none of which exists."""
    outputs: dict[str, Any] = {"outputFile": str(folder / "executor_output.json")}
    inputs: dict[str, Any] = {}
    spec = _specs().get(function)
    if spec:
        for side, into in (("inputDefinitions", inputs), ("outputDefinitions", outputs)):
            defined = spec.get(side, {})
            for name, parameter in defined.get("parameters", {}).items():
                value = parameter.get("defaultValue", _ANY.get(parameter["parameterType"], ""))
                if side == "inputDefinitions":
                    into.setdefault("parameterValues", {})[name] = value
                else:
                    into.setdefault("parameters", {})[name] = {"outputFile": str(folder / f"out-{name}")}
            for name, artifact in defined.get("artifacts", {}).items():
                one = {
                    "name": name,
                    "type": artifact["artifactType"],
                    "uri": str(folder / "absent" / name),
                    "metadata": {},
                }
                into.setdefault("artifacts", {})[name] = {"artifacts": [one]}
    return {"inputs": inputs, "outputs": outputs}


_FINAL = {"state": "SUCCEEDED", "error": {}, "pipelineJobResourceName": "none", "pipelineTaskName": "none"}
_ANY = {
    "TASK_FINAL_STATUS": _FINAL,
    "NUMBER_INTEGER": 1,
    "NUMBER_DOUBLE": 1.0,
    "BOOLEAN": False,
    "STRUCT": {},
    "LIST": [],
}


def _specs() -> dict[str, Any]:
    """The interface of each component by its function's name."""
    found = {}
    for package in image_use.GOLDEN.glob("*.yaml"):
        spec = next(yaml.safe_load_all(package.read_text("utf-8")))
        for component in spec["components"].values():
            executor = spec["deploymentSpec"]["executors"].get(component.get("executorLabel", ""))
            if executor:
                arguments = executor["container"]["args"]
                found[arguments[arguments.index("--function_to_execute") + 1]] = component
    return found


def _report(times: dict[tuple[str, str], list[tuple[float, float]]], installing: list[tuple[float, float]]) -> str:
    lines = [
        "## Cold start: from a step's process to its own first line",
        "",
        f"Median of {REPEATS} starts in turn, after one that warms the disk's cache; the goal is under {GOAL:.0f} s.",
        "A step says that it started, then imports what its work needs, and then looks at its inputs.",
        "The ratio is against an empty component in the same environment: what kfp's own executor takes.",
        "",
        "| image | step | first line, s | slowest, s | ratio | looked at its inputs, s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    first = {key: statistics.median(one[0] for one in values[1:]) for key, values in times.items()}
    for (group, name), seconds in first.items():
        values = times[group, name][1:]
        cells = [f"python-{group}", name, f"{seconds:.2f}", f"{max(one[0] for one in values):.2f}"]
        if name != SERVER:
            cells += [f"{seconds / first[group, EMPTY]:.1f}", f"{statistics.median(one[1] for one in values):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    slow = [f"{name} in python-{group}" for (group, name), seconds in first.items() if seconds >= GOAL]
    plain = statistics.median(one[0] for one in installing)
    ours = statistics.median(seconds for (_, name), seconds in first.items() if name not in (EMPTY, SERVER))
    lines += [
        "",
        f"A component as kfp makes them by default, which installs kfp at its start: {plain:.1f} s with all wheels",
        f"in pip's cache, {plain / ours:.0f} times the median of our steps ({ours:.2f} s).",
        f"Over the goal: {', '.join(slow) or 'none'}.",
        f"The machine's load was {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores.",
    ]
    return "\n".join(lines)
