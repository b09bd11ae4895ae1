"""Schedules as a person sees them: what would change, as a diff, and what there is."""

import difflib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.server.schedules import Schedule, next_times
from pipelines.server.schedules_plan import Change, Step

_WORDS = {
    "create": "new",
    "replace": "changed",
    "delete": "no longer declared",
    "pause": "paused",
    "resume": "goes on",
    "clean": "left over from an earlier change",
}
_DEEDS = {"create": "made", "enable": "switched on", "disable": "switched off", "delete": "deleted"}


def diff(change: Change, zone: ZoneInfo, now: datetime) -> Iterator[str]:
    """The lines of a change: a headline, then what is removed with ``-`` and added with ``+``."""
    if change.step is None:
        yield f"{change.name}: an old one is left"
        for one in change.before:
            if one.active:
                yield f"  {one.id} is switched off; its run, which would end with it, must end before it is deleted"
        return
    yield f"{change.name}: {_WORDS[change.what]}{_when(change, zone, now)}"
    if change.what == "clean":
        yield from (f"- the recurring run {one.id}, made {one.created:%Y-%m-%d %H:%M:%S}" for one in change.before)
    else:
        yield from _lines(change)


def said(change: Change, step: Step) -> str:
    """A step that was made, in one line."""
    return f"{change.name}: {_DEEDS[step.deed]}" + (f" ({step.id})" if step.id else ", still switched off")


def as_json(change: Change) -> dict[str, Any]:
    """A change for scripts."""
    before, after = _both(change)
    return {
        "name": change.name,
        "change": change.what,
        "before": before,
        "after": after,
        "recurring_runs": [one.id for one in change.before],
        "waits": change.step is None,
    }


def declared(schedule: Schedule) -> dict[str, Any]:
    """A schedule in the words of a declaration, with all its defaults."""
    when = {"cron": schedule.cron} if schedule.cron else {"every": schedule.every}
    return {
        "pipeline": schedule.pipeline,
        "version": schedule.version,
        **when,
        "parameters": schedule.parameters,
        "max_concurrency": schedule.max_concurrency,
        "catch_up": schedule.catch_up,
        "experiment": schedule.experiment,
        "service_account": schedule.service_account,
        "paused": schedule.paused,
    }


def _both(change: Change) -> tuple[dict[str, Any], dict[str, Any]]:
    """What there is and what is declared; of the service account, KFP fills in a default that is no difference."""
    newest = max(change.before, key=lambda one: (one.enabled, one.created), default=None)
    before = dict(newest.shown) if newest else {}
    after = declared(change.wanted.schedule) if change.wanted else {}
    if not after.get("service_account"):
        after.pop("service_account", None)
        if change.wanted:
            before.pop("service_account", None)
    return before, after


def _lines(change: Change) -> Iterator[str]:
    before, after = (list(_texts(one)) for one in _both(change))
    found = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    shown = [line for line in found if not line.startswith("@@")]
    yield from shown or ["  its start, end or service account, or what was deleted and made anew under its name"]


def _texts(given: dict[str, Any]) -> Iterator[str]:
    """A line for each field and parameter."""
    for name, value in given.items():
        if name == "parameters":
            yield from (f"{name}.{one}: {json.dumps(value[one], sort_keys=True)}" for one in sorted(value))
        else:
            yield f"{name}: {json.dumps(value) if isinstance(value, bool) else value}"


def _when(change: Change, zone: ZoneInfo, now: datetime) -> str:
    if change.wanted is None or change.what == "clean":
        return ""
    times = next_times(change.wanted.schedule, zone, now)
    return f", next {times[0]:%a %Y-%m-%d %H:%M:%S %Z}" if times else ""
