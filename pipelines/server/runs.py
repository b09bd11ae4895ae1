"""Runs on a KFP server: found by id or name, listed, run again, ended."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from components.errors import BadInput, Refused
from pipelines.server import found
from pipelines.server.connection import Connection
from pipelines.server.in_use import UNFINISHED
from pipelines.server.pages import all_of, every, where
from pipelines.server.retry import made_once

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_AGAIN = ("FAILED", "CANCELED")


@dataclass(frozen=True)
class Task:
    """A node of a run's graph, as the server tells of it: steps, and what KFP adds around them."""

    name: str
    state: str
    began: datetime | None
    ended: datetime | None


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        run_id: the server's.
        name: people's; not unique.
        state: KFP's: PENDING, RUNNING, SUCCEEDED, SKIPPED, FAILED, CANCELING, CANCELED or PAUSED.
        created: when it was made.
        finished: when it ended.
        error: why it failed, as far as KFP says.
        pipeline_id: of its pipeline; empty for a package that was submitted directly.
        version_id: of its version, likewise.
        recurring_run_id: of the schedule that started it.
        tasks: its nodes, in the order in which they began.
        changes: how often its state has changed.
        spec: the pipeline spec of a package that was submitted directly.
    """

    run_id: str
    name: str
    state: str
    created: datetime
    finished: datetime | None
    error: str
    pipeline_id: str
    version_id: str
    recurring_run_id: str
    tasks: tuple[Task, ...]
    changes: int
    spec: dict[str, Any]

    @property
    def ended(self) -> bool:
        """Whether it will change no more by itself."""
        return self.state not in UNFINISHED

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return max(0.0, ((self.finished or datetime.now(UTC)) - self.created).total_seconds())  # clocks differ


def get(connection: Connection, run_id: str) -> Run:
    """How a run stands."""
    return _run(connection.client.get_run(run_id))


def listed(
    connection: Connection,
    limit: int,
    states: list[str] | None = None,
    pipeline: str = "",
    experiment: str = "",
    schedule: str = "",
) -> list[Run]:
    """The newest runs that fit, newest first.

    Args:
        connection: to the server.
        limit: how many at most.
        states: only those in one of these.
        pipeline: only those of a pipeline's versions, by its name.
        experiment: only those of an experiment, by its name.
        schedule: only those that a schedule started, by its name.

    Raises:
        BadInput: there is no such pipeline, experiment or schedule.
    """
    query: dict[str, Any] = {"namespace": connection.namespace, "sort_by": "created_at desc", "page_size": 100}
    filters = [where("storage_state", "EQUALS", "AVAILABLE")]
    if states:
        filters.append(where("state", "IN", [one.upper() for one in states]))
    if schedule:
        filters.append(where("recurring_run_id", "IN", _schedules(connection, schedule)))
    query["filter"] = all_of(*filters)
    if experiment:
        query["experiment_id"] = found.experiment_id(connection, experiment, make=False)
        if not query["experiment_id"]:
            raise BadInput(f"There is no experiment {experiment!r} on the KFP server.")
    of = found.pipeline_id(connection, pipeline) if pipeline else ""
    runs = map(_run, every(connection.client.runs.run_service_list_runs, "runs", **query))
    return list(islice((one for one in runs if of in ("", one.pipeline_id)), limit))


def find(connection: Connection, named: str) -> Run:
    """A run by its id, the first digits of it, or its name.

    Raises:
        BadInput: there is none, or more than one.
    """
    if _ID.fullmatch(named):
        try:
            return get(connection, named)
        except Refused as error:
            if error.status != 404:
                raise
            raise BadInput(f"There is no run {named} on the KFP server.") from error
    fit = {one.run_id: one for one in _named(connection, named)}
    if not fit and len(named) >= 4 and re.fullmatch("[0-9a-f-]+", named):
        near = _query(connection, where("run_id", "IS_SUBSTRING", named))
        fit = {one.run_id: one for one in near if one.run_id.startswith(named)}
    if not fit:
        raise BadInput(f"There is no run {named!r} on the KFP server: `sluiceway runs` lists them.")
    if len(fit) > 1:
        some = ", ".join(f"{one.run_id} ({one.state.lower()})" for one in list(fit.values())[:3])
        raise BadInput(f"{named!r} names {len(fit)} runs, such as {some}: give the id.")
    return next(iter(fit.values()))


def named(connection: Connection, name: str) -> list[Run]:
    """The runs of this name, oldest first; of two of one second, all agree on the same."""
    return sorted(_named(connection, name), key=lambda one: (one.created, one.run_id))


def retry(connection: Connection, run: Run) -> bool:
    """Run the failed steps of a run again, under the same id; False when it is going on already.

    Raises:
        BadInput: it succeeded.
        Unreachable: no clear answer until patience ended; trying again does no harm.
    """
    if not run.ended:
        return False
    if run.state not in _AGAIN:
        raise BadInput(f"The run {run.name} has {run.state.lower()}: only one that failed or was ended can be retried.")
    _once(connection, run, connection.client.runs.run_service_retry_run, lambda now: now != _mark(run))
    return True


def terminate(connection: Connection, run: Run) -> bool:
    """End a run; False when it has ended, or is ending already.

    Raises:
        Unreachable: no clear answer until patience ended; trying again does no harm.
    """
    if run.ended or run.state == "CANCELING":
        return False
    _once(
        connection,
        run,
        connection.client.terminate_run,
        lambda now: now[0] == "CANCELING" or now[0] not in UNFINISHED,
    )
    return True


def _once(
    connection: Connection, run: Run, call: Callable[[str], Any], done: Callable[[tuple[str, int]], bool]
) -> None:
    """Have something done to a run that must not be done twice; a refusal because it is done already is fine."""

    def look() -> bool | None:
        return done(_mark(get(connection, run.run_id))) or None

    def make() -> bool:
        try:
            call(run.run_id)
        except Refused:
            if look():
                return True
            raise
        return True

    made_once(look, make, connection.patience)


def _mark(run: Run) -> tuple[str, int]:
    return run.state, run.changes


def _schedules(connection: Connection, name: str) -> list[str]:
    """The ids of the recurring runs of a name."""
    api = connection.client.recurring_runs
    query = {"namespace": connection.namespace, "filter": where("display_name", "EQUALS", name), "page_size": 100}
    ids = [
        str(one.recurring_run_id)
        for one in every(api.recurring_run_service_list_recurring_runs, "recurring_runs", **query)
    ]
    if not ids:
        raise BadInput(f"There is no schedule {name!r} on the KFP server: `sluiceway schedule list` shows them.")
    return ids


def _named(connection: Connection, name: str) -> Iterator[Run]:
    return _query(connection, where("display_name", "EQUALS", name))


def _query(connection: Connection, filter_: str) -> Iterator[Run]:
    query = {"namespace": connection.namespace, "filter": filter_, "page_size": 100}
    return map(_run, every(connection.client.runs.run_service_list_runs, "runs", **query))


def _run(one: Any) -> Run:
    reference = one.pipeline_version_reference
    spec = one.pipeline_spec or {}
    details = (one.run_details and one.run_details.task_details) or []
    tasks = (
        Task(task.display_name or "", task.state or "", _time(task.start_time), _time(task.end_time))
        for task in details
    )
    return Run(
        run_id=one.run_id,
        name=one.display_name or "",
        state=one.state or "RUNTIME_STATE_UNSPECIFIED",
        created=one.created_at or datetime.now(UTC),
        finished=_time(one.finished_at),
        error=(one.error and one.error.message) or "",
        pipeline_id=(reference and reference.pipeline_id) or "",
        version_id=(reference and reference.pipeline_version_id) or "",
        recurring_run_id=one.recurring_run_id or "",
        tasks=tuple(sorted(tasks, key=lambda task: (task.began is None, task.began or datetime.now(UTC), task.name))),
        changes=len(one.state_history or []),
        spec=spec.get("pipeline_spec") or spec,
    )


def _time(value: datetime | None) -> datetime | None:
    """KFP says 1970 for never."""
    return value if value and value.year > 1970 else None
