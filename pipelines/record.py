"""What is known of a run: its steps, their facts and their outputs."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class State(StrEnum):
    """How far a step is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    CACHED = "cached"
    FAILED = "failed"


@dataclass
class StepRecord:
    """One step of a run.

    Attributes:
        name: the component's name.
        state: how far it is.
        seconds: wall time, process start to end.
        work_seconds: the part of it that the step's own code took, imports at its top left out.
        fact: the one thing worth knowing about it.
        error: why it failed.
        error_kind: which kind of failure, see ``components.errors``.
        exit_code: what the CLI ends with when it failed.
        progress: what it said while it ran.
        outputs: artifacts as ``{"uri": …, "metadata": …}`` and parameters as values, by name.
    """

    name: str
    state: State = State.PENDING
    began: float = 0.0
    seconds: float = 0.0
    work_seconds: float = 0.0
    fact: str = ""
    error: str = ""
    error_kind: str = ""
    exit_code: int = 1
    progress: list[str] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    def artifact(self, name: str) -> Path | None:
        """The local path of an output artifact, if the step made it."""
        output = self.outputs.get(name)
        return Path(output["uri"]) if isinstance(output, dict) and output.get("uri") else None

    def metadata(self, name: str) -> dict[str, Any]:
        """The metadata of an output artifact; empty if the step did not make it."""
        output = self.outputs.get(name)
        return dict(output.get("metadata", {})) if isinstance(output, dict) else {}


@dataclass
class RunRecord:
    """A run as it is followed.

    Attributes:
        run_id: its name.
        folder: where its package, log, artifacts and report lie.
        service: the model's and service's name.
        parameters: what the pipeline was given.
        steps: by name, in the order of the road.
        began: Unix time.
        seconds: wall time of the whole run.
    """

    run_id: str
    folder: Path
    service: str
    parameters: dict[str, Any]
    steps: dict[str, StepRecord]
    began: float
    seconds: float = 0.0

    def step(self, name: str) -> StepRecord:
        """The record of a step, new if the run did not list it."""
        return self.steps.setdefault(name, StepRecord(name))

    def failed(self) -> StepRecord | None:
        """The first step that failed; the exit handler's own failure comes last."""
        return next((step for step in self.steps.values() if step.state is State.FAILED), None)


def component(task: str) -> str:
    """The component of a task; KFP numbers the tasks of a component that stands in several branches."""
    return re.sub(r"-\d+$", "", task)


def read_outputs(record: RunRecord, cache: Path, cache_keys: dict[str, str]) -> None:
    """Fill in every step's outputs from what KFP's local runner left on disk.

    Args:
        record: the run.
        cache: KFP's local cache folder.
        cache_keys: start of the cache key of each step that was not run again.
    """
    for path in (record.folder / "artifacts").glob("*/*/executor_output.json"):
        step = record.steps.get(component(path.parent.name))
        if step is not None:
            output = json.loads(path.read_text(encoding="utf-8"))
            step.outputs = dict(output.get("parameterValues", {}))
            step.outputs.update(_artifacts(output.get("artifacts", {})))
    for name, key in cache_keys.items():
        for path in cache.glob(f"{key}*.json"):
            record.step(name).outputs = json.loads(path.read_text(encoding="utf-8"))


def _artifacts(by_name: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, entry in by_name.items():
        first = entry["artifacts"][0]
        yield name, {"uri": first["uri"], "metadata": first.get("metadata", {})}
