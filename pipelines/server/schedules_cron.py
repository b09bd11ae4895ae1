"""Cron as KFP's scheduler reads it: six fields with seconds first, where five would mean something else.

KFP parses with robfig/cron 1.2, to which ``0 3 * * *`` is second 0 of minute 3 of every hour, since it takes the sixth
field, the day of the week, for optional. So what is sent always has six.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import islice

from components.errors import BadInput

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_YEARS = 5


@dataclass(frozen=True)
class Cron:
    """Times at which something happens.

    Attributes:
        text: six fields, as KFP takes them.
        fields: what each of them allows.
        either: whether a day is right when either its date or its weekday is, since both are restricted.
    """

    text: str
    fields: tuple[frozenset[int], ...]
    either: bool

    def after(self, moment: datetime, zone: tzinfo) -> Iterator[datetime]:
        """The times after a moment, in a time zone, for some years; those that a clock skips in spring are left out."""
        seconds, minutes, hours, days, months, weekdays = self.fields
        clock = sorted(time(hour, minute, second) for hour in hours for minute in minutes for second in seconds)
        local = moment.astimezone(zone)
        for offset in range(366 * _YEARS):
            day = local.date() + timedelta(days=offset)
            fits = day.day in days, day.isoweekday() % 7 in weekdays
            if day.month in months and (any(fits) if self.either else all(fits)):
                yield from (one for one in _on(day, clock, zone) if one > moment)

    def first(self, count: int, moment: datetime, zone: tzinfo) -> list[datetime]:
        """The first times after a moment."""
        return list(islice(self.after(moment, zone), count))


def read_cron(text: str) -> Cron:
    """Read a cron expression of the usual five fields, of KFP's six, or a name such as ``@daily``.

    Raises:
        BadInput: it is none, or its times never come.
    """
    given = _NAMED.get(text.strip().lower(), text).split()
    if len(given) not in (5, 6):
        raise BadInput(
            f"cron is {text!r}, which has {len(given)} fields: give five (minute hour day month weekday), such as "
            "'30 3 * * *', or six with seconds first."
        )
    if len(given) == 5:
        given = ["0", *given]
    given[5] = ",".join("0" if part == "7" else part for part in given[5].split(","))  # KFP knows Sunday as 0 only
    fields = tuple(_allowed(one, *about) for one, about in zip(given, _FIELDS, strict=True))
    star = [re.search(r"(^|,)[*?]", given[place]) is not None for place in (3, 5)]
    found = Cron(" ".join(given), fields, either=not any(star))
    if not found.first(1, datetime(2024, 1, 1, tzinfo=UTC), UTC):
        raise BadInput(f"cron is {text!r}, and no such day comes within {_YEARS} years.")
    return found


def _on(day: date, clock: list[time], zone: tzinfo) -> Iterator[datetime]:
    for one in clock:
        moment = datetime.combine(day, one, zone)
        if moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == moment.replace(tzinfo=None):
            yield moment


def _allowed(text: str, name: str, least: int, most: int, names: dict[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d+))?", part)
        if not match:
            raise BadInput(f"cron has {part!r} for the {name}: give a number, a range, a list, or *.")
        first, last, step = match.groups()
        if first in "*?":
            low, high = least, most
        else:
            low = _number(first, name, names)
            high = _number(last, name, names) if last else most if step else low
        if not least <= low <= high <= most or (step and not int(step)):
            raise BadInput(f"cron has {part!r} for the {name}: it is {least} to {most}, in ascending ranges.")
        found.update(range(low, high + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, name: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not text.isdigit():
        or_name = f" or a name such as {next(iter(names))}" if names else ""
        raise BadInput(f"cron has {text!r} for the {name}: give a number{or_name}.")
    return int(text)
