"""A run is followed to its end, and how it ended becomes an exit code, as ``sluiceway run`` has them."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import Refused, SluicewayError, Unreachable
from components.step import MARK
from pipelines.catalog import CATALOG
from pipelines.record import RunRecord, State, StepRecord, component
from pipelines.result import EXIT_CODES
from pipelines.server import found, runs
from pipelines.server.connection import Connection
from pipelines.server.logs import Pods, events
from pipelines.server.runs import Run, Task

_STATES = {
    "RUNNING": State.RUNNING,
    "PAUSED": State.RUNNING,
    "CANCELING": State.RUNNING,
    "SUCCEEDED": State.DONE,
    "FAILED": State.FAILED,
    "CANCELED": State.FAILED,
}
_ORDER = [State.PENDING, State.DONE, State.FAILED, State.RUNNING]
_ROLLOUT = "rollout"

UNKNOWN = 7
"""Exit code where a rollout ended and nobody can say how: to promote on that would be to hope."""


@dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        state: "promoted", "blocked", "rolled_back", "halted" or "failed" as :mod:`pipelines.result` has them, "unknown"
            where a rollout ended and it cannot be seen how, "terminated", or "succeeded" where nothing is rolled out.
        exit_code: what the process ends with.
        said: why, or what is not known.
    """

    state: str
    exit_code: int
    said: str = ""


def follow(connection: Connection, run_id: str, show: Callable[[RunRecord], None], every: float = 5.0) -> Run:
    """Show a run's steps until it has ended.

    Raises:
        Unreachable: the server gave no answer until patience ended; the run goes on.
    """
    steps: set[str] | None = None
    while True:
        try:
            run = runs.get(connection, run_id)
            if steps is None:
                steps = step_names(connection, run)
        except Unreachable as error:
            raise Unreachable(f"{error} The run goes on: `sluiceway runs {run_id} --wait` follows it again.") from error
        show(record(run, steps))
        if run.ended:
            return run
        time.sleep(every)


def step_names(connection: Connection, run: Run) -> set[str]:
    """The tasks of a run that are steps, among the nodes that KFP adds around them."""
    spec = run.spec
    if not spec and run.version_id:
        try:
            spec = found.spec_of(connection.client.get_pipeline_version(run.pipeline_id, run.version_id))
        except Refused as error:
            if error.status != 404:
                raise
    return set(_steps(spec)) if spec else {name for one in CATALOG.values() for name in one.steps}


def record(run: Run, steps: set[str]) -> RunRecord:
    """A run in the form in which progress is shown."""
    known = next((one.steps for one in CATALOG.values() if {component(name) for name in steps} >= set(one.steps)), ())
    shown = {name: StepRecord(name) for name in known}
    grouped: dict[str, list[Task]] = {}
    for task in run.tasks:
        if task.name in steps:
            grouped.setdefault(component(task.name), []).append(task)
    for name, tasks in grouped.items():
        shown[name] = _step(name, tasks)
    return RunRecord(run.run_id, Path(), run.name, {}, shown, run.created.timestamp(), run.seconds)


def ended(run: Run, steps: set[str], pods: Callable[[], Pods]) -> End:
    """How a run ended.

    KFP's API tells which steps ended how, not what they found. That the gate blocked the model is seen from the rollout
    not having begun; how a rollout ended, and why a step failed, from their logs where they can be read.
    """
    states = {component(task.name): task.state for task in run.tasks if task.name in steps}
    failed = [name for name, state in states.items() if state == "FAILED"]
    if run.state == "CANCELED" or any(state == "CANCELED" for state in states.values()):
        return End("terminated", 1, "it was ended before it was through")
    if run.state == "FAILED":
        return _failure(run, failed, pods)
    if not {component(name) for name in steps} >= {_ROLLOUT}:
        return End("succeeded", 0)
    if states.get(_ROLLOUT) != "SUCCEEDED":
        return End("blocked", EXIT_CODES["blocked"], "the gate did not let the model pass: see the step evaluate")
    event, why = _last_event(pods, _ROLLOUT)
    outcome = str(event.get("outcome", ""))
    if outcome not in EXIT_CODES:
        return End("unknown", UNKNOWN, f"how the rollout ended is not known here: {why or 'its log does not say'}")
    return End(outcome, EXIT_CODES[outcome], str(event.get("fact", "")))


def _failure(run: Run, failed: list[str], pods: Callable[[], Pods]) -> End:
    for name in failed:
        event, _ = _last_event(pods, name)
        if event.get(MARK) == "failed":
            return End("failed", int(event.get("exit_code", 1)), f"{name}: {event.get('message', '')}")
    what = f"failed in {', '.join(failed)}" if failed else "no step of its own failed"
    return End("failed", 1, "; ".join(filter(None, (what, run.error))))


def _last_event(pods: Callable[[], Pods], step: str) -> tuple[dict[str, Any], str]:
    """What a step said at its end, or why that cannot be read."""
    try:
        of = pods()
        mine = [one for one in of.all() if one.step == step]
        last = list(events(of.lines(mine[-1]))) if mine else []
        return (last[-1], "") if last else ({}, "its pod is gone, or it said nothing")
    except SluicewayError as error:
        return {}, str(error)


def _step(name: str, tasks: list[Task]) -> StepRecord:
    """One step of perhaps several tasks: branches of which one is taken, or parallel ones."""
    state = max((_STATES.get(one.state, State.PENDING) for one in tasks), key=_ORDER.index)
    begun = [one.began.timestamp() for one in tasks if one.began]
    over = [one.ended.timestamp() for one in tasks if one.ended]
    began = min(begun, default=time.time())
    return StepRecord(name, state, began, seconds=max(0.0, max(over, default=began) - began))


def _steps(spec: dict[str, Any]) -> Iterator[str]:
    components = spec.get("components", {})
    for one in (spec.get("root", {}), *components.values()):
        for name, task in one.get("dag", {}).get("tasks", {}).items():
            if "executorLabel" in components.get(task["componentRef"]["name"], {}):
                yield name
