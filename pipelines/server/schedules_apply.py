"""Schedules on a KFP server: what is there, and the steps that make it what is declared."""

import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from components.errors import Busy, Refused, Unanswered
from pipelines.server import found
from pipelines.server.connection import Connection
from pipelines.server.in_use import UNFINISHED
from pipelines.server.pages import all_of, every, where
from pipelines.server.schedules import Document, check_parameters, interval
from pipelines.server.schedules_plan import Change, Existing, Step, Wanted, plan

_MARK = re.compile(r"\[sluiceway ([a-z0-9-]+)/([a-z0-9-]+) ([0-9a-f]{16})\]")
_ROUNDS = 20  # a replacement takes six


def resolve(connection: Connection, document: Document, make: bool) -> list[Wanted]:
    """Look up what the schedules name, and check their parameters.

    Args:
        connection: to the server.
        document: what is declared.
        make: make experiments that are missing.

    Raises:
        BadInput: there is no such pipeline or version, or it does not take the parameters.
    """
    pipelines: dict[str, str] = {}
    versions: dict[tuple[str, str], Any] = {}
    experiments: dict[str, str] = {}
    wanted = []
    for one in document.schedules:
        if one.pipeline not in pipelines:
            pipelines[one.pipeline] = found.pipeline_id(connection, one.pipeline)
        pipeline = pipelines[one.pipeline]
        if (pipeline, one.version) not in versions:
            versions[pipeline, one.version] = found.version(connection, pipeline, one.pipeline, one.version)
        version = versions[pipeline, one.version]
        check_parameters(one, found.parameters(version))
        wanted.append((one, pipeline, "" if one.version == found.NEWEST else str(version.pipeline_version_id)))
    for one, _, _ in wanted:  # only once all of them are right
        if one.experiment not in experiments:
            experiments[one.experiment] = found.experiment_id(connection, one.experiment, make)
    return [Wanted(one, pipeline, version, experiments[one.experiment]) for one, pipeline, version in wanted]


def observe(connection: Connection, owner: str, wanted: Iterable[Wanted], show: bool = False) -> list[Existing]:
    """An owner's recurring runs; of those that are not as declared, their runs are looked at too.

    With ``show``, what a person sees of these is there as well.

    One is ours by the mark in its description and by its name, so that a copy that somebody makes in the UI, which
    gets another name, is theirs.
    """
    listed = every(
        connection.client.recurring_runs.recurring_run_service_list_recurring_runs,
        "recurring_runs",
        namespace=connection.namespace,
        page_size=100,
    )
    marked = [(one, mark) for one in listed if (mark := _MARK.search(one.description or ""))]
    ours = [(one, mark[3]) for one, mark in marked if (mark[1], mark[2]) == (owner, one.display_name)]
    right = {(one.schedule.name, one.digest, not one.schedule.paused) for one in wanted}
    names = [one.display_name for one, _ in ours]

    def settled(one: Any, digest: str) -> bool:
        return names.count(one.display_name) == 1 and (one.display_name, digest, one.status == "ENABLED") in right

    held = []
    for one, digest in ours:
        known = settled(one, digest)
        last, active = (None, False) if known else _history(connection, one.recurring_run_id)
        shown = _shown(connection, one) if show and not known else {}
        held.append(_existing(one, digest, last, active, shown))
    return held


def apply(
    connection: Connection, owner: str, wanted: list[Wanted], say: Callable[[Change, Step], None]
) -> list[Change]:
    """Make the recurring runs what is declared; gives the changes that wait for a run to end.

    Raises:
        Unreachable: no clear answer until patience ended; applying again goes on from there.
        Refused: the server refuses a step.
        Busy: somebody else keeps changing them.
    """
    deadline = time.monotonic() + connection.patience
    pause = connection.patience / 60
    rounds = 0
    while rounds < _ROUNDS:
        changes = plan(wanted, observe(connection, owner, wanted), datetime.now(UTC))
        steps = [(change, change.step) for change in changes if change.step]
        if not steps:
            return changes
        try:
            for change, step in steps:
                if _perform(connection, owner, change, step):
                    say(change, step)
            rounds += 1
            deadline = time.monotonic() + connection.patience
        except Unanswered:
            if time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
            pause = min(pause * 2, 10)
    raise Busy(
        f"The schedules of {owner} do not settle: somebody else changes them at the same time, perhaps another "
        "`sluiceway schedule apply` with another file of the same owner."
    )


def overview(connection: Connection, owner: str = "") -> list[dict[str, Any]]:
    """All owners' recurring runs that were made here, or one owner's, with their last runs."""
    listed = every(
        connection.client.recurring_runs.recurring_run_service_list_recurring_runs,
        "recurring_runs",
        namespace=connection.namespace,
        page_size=100,
    )
    shown = []
    for one in listed:
        mark = _MARK.search(one.description or "")
        if not mark or mark[2] != one.display_name or owner not in ("", mark[1]):
            continue
        run = _newest(connection, one.recurring_run_id)
        about = {"name": one.display_name, "owner": mark[1], "recurring_run": one.recurring_run_id}
        about |= _shown(connection, one) | {"state": "on" if one.status == "ENABLED" else "off"}
        about["last"] = f"{run.created_at:%Y-%m-%d %H:%M} {run.state.lower()}" if run else ""
        shown.append(about | {"last_run": run.run_id if run else ""})
    return sorted(shown, key=lambda one: (one["owner"], one["name"]))


def _perform(connection: Connection, owner: str, change: Change, step: Step) -> bool:
    """Make one call; False when somebody else was faster, which the next look at the server tells."""
    api = connection.client.recurring_runs
    try:
        match step.deed:
            case "create":
                assert change.wanted
                api.recurring_run_service_create_recurring_run(_body(owner, change.wanted, step.start))
            case "enable":
                api.recurring_run_service_enable_recurring_run(step.id)
            case "disable":
                api.recurring_run_service_disable_recurring_run(step.id)
            case "delete":  # its runs and their pods stay, on servers that know how
                api.recurring_run_service_delete_recurring_run(step.id, propagation_policy="ORPHAN")
    except Refused as error:
        if step.deed == "create" or error.status not in (404, 409):
            raise
        return False
    return True


def _body(owner: str, wanted: Wanted, start: datetime | None) -> dict[str, Any]:
    """A recurring run as it is sent: switched off."""
    one = wanted.schedule
    limits = {name: value.isoformat() for name, value in (("start_time", start), ("end_time", one.end)) if value}
    reference = {"pipeline_id": wanted.pipeline_id}
    if wanted.version_id:
        reference["pipeline_version_id"] = wanted.version_id
    body = {
        "display_name": one.name,
        "description": f"Declared in a file of {owner}, and made by `sluiceway schedule apply`: change it there. "
        f"[sluiceway {owner}/{one.name} {wanted.digest}]",
        "experiment_id": wanted.experiment_id,
        "pipeline_version_reference": reference,
        "runtime_config": {"parameters": one.parameters},
        "max_concurrency": str(one.max_concurrency),
        "no_catchup": not one.catch_up,
        "trigger": {"cron_schedule": {"cron": one.cron} | limits}
        if one.cron
        else {"periodic_schedule": {"interval_second": str(one.seconds)} | limits},
        "mode": "DISABLE",
    }
    return body | ({"service_account": one.service_account} if one.service_account else {})


def _existing(one: Any, digest: str, last: datetime | None, active: bool, shown: dict[str, Any]) -> Existing:
    trigger = one.trigger.cron_schedule or one.trigger.periodic_schedule if one.trigger else None
    return Existing(
        id=one.recurring_run_id,
        name=one.display_name,
        digest=digest,
        enabled=one.status == "ENABLED",
        created=one.created_at,
        start=trigger.start_time if trigger else None,
        last=last,
        active=active,
        shown=shown,
    )


def _history(connection: Connection, recurring_run_id: str) -> tuple[datetime | None, bool]:
    """When a recurring run last started a run, and whether one of its runs is going on."""
    last = _newest(connection, recurring_run_id)
    going_on = _newest(connection, recurring_run_id, where("state", "IN", UNFINISHED)) if last else None
    return (last.scheduled_at if last else None), going_on is not None


def _newest(connection: Connection, recurring_run_id: str, *filters: str) -> Any:
    """The newest run that a recurring run has started, of those that fit."""
    listed = connection.client.runs.run_service_list_runs(
        namespace=connection.namespace,
        page_size=1,
        sort_by="created_at desc",
        filter=all_of(where("recurring_run_id", "EQUALS", recurring_run_id), *filters),
    )
    return next(iter(listed.runs or []), None)


def _shown(connection: Connection, one: Any) -> dict[str, Any]:
    """What a person sees of a recurring run, in the words of a declaration."""
    client = connection.client
    reference, cron = one.pipeline_version_reference, one.trigger.cron_schedule
    pipeline, version = (reference.pipeline_id, reference.pipeline_version_id or "") if reference else ("", "")
    when = {"cron": cron.cron} if cron else {"every": interval(int(one.trigger.periodic_schedule.interval_second))}
    return {
        "pipeline": _called(client.get_pipeline, pipeline),
        "version": _called(client.get_pipeline_version, pipeline, version) if version else found.NEWEST,
        **when,
        "parameters": (one.runtime_config and one.runtime_config.parameters) or {},
        "max_concurrency": int(one.max_concurrency),
        "catch_up": not one.no_catchup,
        "experiment": _called(client.get_experiment, one.experiment_id),
        "service_account": one.service_account,
        "paused": one.status != "ENABLED",
    }


def _called(get: Callable[..., Any], *ids: str) -> str:
    """A thing's name; its id when it is gone."""
    try:
        answer = get(*ids)
        return str(getattr(answer, "name", "") or answer.display_name)
    except Refused:
        return ids[-1]
