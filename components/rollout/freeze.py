"""Times in which a rollout takes no step."""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, field_validator

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

_WEEKDAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_FURTHEST = timedelta(days=8)  # windows come again every week: what is frozen for longer is frozen for good


class Freeze(BaseModel):
    """A window that comes again every week, such as Friday afternoon.

    Attributes:
        days: weekdays on which it begins; all when none is named.
        start: when it begins, "HH:MM".
        end: when it ends, "HH:MM"; not after ``start`` means on the next day.
        timezone: of both, an IANA name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: tuple[Day, ...] = ()
    start: str = "00:00"
    end: str = "00:00"
    timezone: str = "UTC"

    @field_validator("start", "end")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if not _CLOCK.fullmatch(value):
            raise ValueError(f'a time is "HH:MM" from "00:00" to "23:59"; got {value!r}')
        return value

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the name of a folder of zones
            raise ValueError(f'a time zone is an IANA name such as "Europe/Berlin"; got {value!r}') from error
        return value


def frozen_until(windows: tuple[Freeze, ...], now: datetime) -> datetime | None:
    """When the freeze that is in force ends; None when there is none.

    Windows that touch or overlap count as one. A freeze without an end is reported as ending in a week or so.

    A time that the change to summer time leaves out is read with the offset before the change, as iCalendar does
    (RFC 5545, 3.3.5). Of a time that comes twice in autumn, a window begins with the first and ends with the second.

    Args:
        windows: the plan's.
        now: with a time zone.

    Returns:
        The end, in UTC.
    """
    until = moment = now.astimezone(UTC)
    while until - moment < _FURTHEST:
        ends = [end for window in windows for start, end in _around(window, until) if start <= until < end]
        if not ends:
            break
        until = max(ends)
    return until if until > moment else None


def _around(window: Freeze, moment: datetime) -> list[tuple[datetime, datetime]]:
    """The window's beginnings and ends, in UTC, of the days from which it could reach a moment."""
    today = moment.astimezone(ZoneInfo(window.timezone)).date()
    start, end = time.fromisoformat(window.start), time.fromisoformat(window.end)
    over_midnight = timedelta(days=end <= start)
    return [
        (_first(day, start, window.timezone), _last(day + over_midnight, end, window.timezone))
        for day in (today - timedelta(days=1), today)
        if not window.days or _WEEKDAYS[day.weekday()] in window.days
    ]


def _first(day: date, clock: time, zone: str) -> datetime:
    return datetime.combine(day, clock, ZoneInfo(zone)).astimezone(UTC)


def _last(day: date, clock: time, zone: str) -> datetime:
    return max(datetime.combine(day, clock.replace(fold=fold), ZoneInfo(zone)).astimezone(UTC) for fold in (0, 1))
