"""What to do so that the recurring runs on a server become those that are declared. No I/O.

KFP cannot change a recurring run but for switching it on and off. So one that is declared otherwise is replaced: the
new one is made switched off, the old one is switched off, the new one is switched on, the old one is deleted. Each step
is decided anew from what the server then holds: a reconciler that is killed in between, or two at once, end at the same
state, and at no time are two of one name switched on.

The new one goes on where the old one has come to (:func:`start_of`), so that a time between the steps is neither
missed nor run twice. An old one is deleted only when no run of it is going on: in the cluster, runs belong to their
schedule, and are deleted with it unless a server that is new enough is asked not to.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from pipelines.server.schedules import Schedule

What = Literal["create", "replace", "delete", "pause", "resume", "clean"]
Deed = Literal["create", "enable", "disable", "delete"]


@dataclass(frozen=True)
class Wanted:
    """A schedule that is declared, with the server's ids for the names in it.

    Attributes:
        schedule: as declared.
        pipeline_id: of its pipeline.
        version_id: of its version; empty for the newest.
        experiment_id: of its experiment; empty for one that is still to be made.
    """

    schedule: Schedule
    pipeline_id: str
    version_id: str
    experiment_id: str

    @cached_property
    def digest(self) -> str:
        """The same for two that need no replacing: all but the name, and whether it is paused."""
        named = {"name", "paused", "pipeline", "version", "experiment"}
        about = self.schedule.model_dump(mode="json", exclude=named, exclude_defaults=True)
        about |= {"pipeline": self.pipeline_id, "version": self.version_id, "experiment": self.experiment_id}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Existing:
    """A recurring run of ours on the server.

    Attributes:
        id: the server's.
        name: of the schedule.
        digest: of what was declared when it was made.
        enabled: whether it starts runs.
        created: when it was made.
        start: from when on it counts, where it was told.
        last: the time of the last run that it started.
        active: whether a run of it is going on.
        shown: what a person sees of it, for the diff.
    """

    id: str
    name: str
    digest: str
    enabled: bool
    created: datetime
    start: datetime | None = None
    last: datetime | None = None
    active: bool = False
    shown: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def come_to(self) -> datetime:
        """Up to when its work is done."""
        return self.last or self.start or self.created


@dataclass(frozen=True)
class Step:
    """One call. ``id`` is of the recurring run; empty when one is made, which then counts from ``start`` on."""

    deed: Deed
    id: str = ""
    start: datetime | None = None


@dataclass(frozen=True)
class Change:
    """What becomes of one schedule.

    Attributes:
        what: for people.
        name: of the schedule.
        wanted: as declared; None for one that is to go.
        before: what the server has of it now.
        step: the next call; None when a run must end first.
    """

    what: What
    name: str
    wanted: Wanted | None
    before: tuple[Existing, ...]
    step: Step | None


def plan(declared: Iterable[Wanted], existing: Iterable[Existing], now: datetime) -> list[Change]:
    """The changes to be made, each with its next call; empty when all is as declared.

    Args:
        declared: all of an owner's schedules; their names differ.
        existing: all of the owner's recurring runs.
        now: the time, which a start that has passed is compared with.
    """
    wanted = {one.schedule.name: one for one in declared}
    found: dict[str, list[Existing]] = defaultdict(list)
    for one in existing:
        found[one.name].append(one)
    changes = (_change(name, wanted.get(name), found[name], now) for name in sorted({*wanted, *found}))
    return [one for one in changes if one]


def _change(name: str, wanted: Wanted | None, found: Sequence[Existing], now: datetime) -> Change | None:
    right = [one for one in found if wanted and one.digest == wanted.digest and _may_go_on(one, found)]
    keep = min(right, key=lambda one: (not one.enabled, one.created, one.id), default=None)
    others = tuple(sorted((one for one in found if one is not keep), key=lambda one: (one.created, one.id)))
    if wanted is None:
        return Change("delete", name, None, others, _retire(others))
    on = not wanted.schedule.paused
    if keep is not None and keep.enabled == on and not others:
        return None
    if keep is None:
        what: What = "replace" if others else "create"
        return Change(what, name, wanted, others, Step("create", start=start_of(wanted.schedule, others, now)))
    what = "clean" if keep.enabled == on else "resume" if on else "pause"
    if any(one.digest != keep.digest for one in others):
        what = "replace"
    before = (keep, *others) if what in ("pause", "resume") else others
    return Change(what, name, wanted, before, _settle(keep, others, on))


def _may_go_on(one: Existing, found: Sequence[Existing]) -> bool:
    """Whether one is on, or can be switched on: not when another has started a run since, for it would start it too."""
    return one.enabled or not any(other.last and other.last > one.come_to for other in found)


def _settle(keep: Existing, others: Sequence[Existing], on: bool) -> Step | None:
    """The next call when the right one is there, beside others that are to go."""
    if any(one.enabled for one in others):
        return _retire(others)
    if keep.enabled != on:
        return Step("enable" if on else "disable", keep.id)
    return _retire(others)


def _retire(others: Sequence[Existing]) -> Step | None:
    """The next call so that these are gone: first all of them start nothing."""
    for one in others:
        if one.enabled:
            return Step("disable", one.id)
    return next((Step("delete", one.id) for one in others if not one.active), None)


def start_of(schedule: Schedule, others: Sequence[Existing], now: datetime) -> datetime | None:
    """From when on a recurring run is to count; None counts from its making.

    KFP takes a start that has passed for a time since when runs are missing, and starts one at once. That is wanted
    for one that takes the place of another, and for one that is to catch up; not for one that is new.
    """
    if others:
        come_to = max(one.last or (min(one.start, now) if one.start else one.created) for one in others)
        return max(come_to, schedule.start) if schedule.start else come_to
    if schedule.start is None or schedule.start > now or schedule.catch_up:
        return schedule.start
    if not schedule.seconds:
        return None
    interval = timedelta(seconds=schedule.seconds)
    return schedule.start + (now - schedule.start) // interval * interval
