"""How a run ended, as one JSON object and one exit code."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.settings import settings
from pipelines import services
from pipelines.record import RunRecord, State
from pipelines.runner import outputs_json

RunState = Literal["promoted", "done", "blocked", "rolled_back", "halted", "failed"]

EXIT_CODES: dict[str, int] = {"promoted": 0, "done": 0, "failed": 1, "blocked": 3, "rolled_back": 4, "halted": 6}


class StepTime(BaseModel):
    """One step's time: ``work_seconds`` is the part after the process and its imports had started."""

    model_config = ConfigDict(frozen=True)

    state: State
    seconds: float
    work_seconds: float
    fact: str


class RunResult(BaseModel):
    """What ``sluiceway run --json`` ends with.

    Attributes:
        state: how the run ended; done for a pipeline that deploys nothing.
        exit_code: what the process ends with: 0 promoted or done, 1 failed, 3 blocked at the gate, 4 rolled back,
            5 busy, 6 halted: a person must decide.
        run_id: the run.
        service: the model's and service's name.
        error: why it failed, one sentence.
        data_version: the snapshot's version.
        model_version: the registered version, empty when none was registered.
        decision: the gate's decision with every check, as ``decision.json`` holds it.
        metrics: test metrics of the challenger with their intervals.
        traffic: who gets how much of the live traffic now.
        url: the live service's address; empty when there is none.
        report: path of the HTML report.
        seconds: wall time.
        steps: time and fact per step.
    """

    state: RunState
    exit_code: int
    run_id: str
    service: str
    error: str = ""
    data_version: str = ""
    model_version: str = ""
    decision: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    traffic: list[dict[str, Any]] = []
    url: str = ""
    report: str = ""
    seconds: float = 0.0
    steps: dict[str, StepTime] = {}


def result_of(record: RunRecord, report: Path) -> RunResult:
    """Sum up a run that has ended."""
    failed = record.failed()
    deploys = "rollout" in record.steps
    decision = outputs_json(record.step("evaluate").artifact("decision"))
    live = services.live(settings().home, record.service)
    state: RunState = "failed"
    if failed is None:
        outcome = record.step("rollout").outputs.get("outcome")
        state = outcome if outcome else "blocked" if deploys else "done"
    return RunResult(
        state=state,
        exit_code=failed.exit_code if failed else EXIT_CODES[state],
        run_id=record.run_id,
        service=record.service,
        error=f"{failed.name}: {failed.error}" if failed else "",
        data_version=str(record.step("resolve").outputs.get("source_version", "")),
        model_version=str(record.step("register").outputs.get("version", "")),
        decision=decision,
        metrics=decision.get("metrics", {}),
        traffic=live.get("traffic", []),
        url=live.get("url", ""),
        report=str(report),
        seconds=round(record.seconds, 3),
        steps={
            step.name: StepTime(
                state=step.state,
                seconds=round(step.seconds, 3),
                work_seconds=round(step.work_seconds, 3),
                fact=step.fact or step.error,
            )
            for step in record.steps.values()
            if step.state is not State.PENDING
        },
    )
