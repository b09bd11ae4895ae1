"""DuckDB's scalar functions on single Python values, for features computed without DuckDB.

Only what the expression language needs beyond Python's own operators. Numbers are doubles that may be infinite or NaN,
which DuckDB orders above everything and equal to itself; a time is microseconds since 1970 in UTC. No function takes a
missing value; those that may have no result return ``None``.
"""

import datetime
import math
import re
import zoneinfo
from functools import lru_cache

from components.features.schema import BLANK

_LARGEST_TIME = 2**63 - 1
"""As a time it is ``infinity``, and its negative ``-infinity``."""

_DAY = 86_400_000_000
_HOUR = 3_600_000_000
_MINUTE = 60_000_000
_DAYS_OF_400_YEARS = 146_097
_EPOCH = datetime.date(1970, 1, 1).toordinal()


def power(base: float, exponent: float) -> float:
    """``pow`` of C: NaN where there is no real result, infinite where it overflows or divides by zero."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and math.fmod(exponent, 2) != 0 else math.inf
    except ValueError:
        if base != 0:
            return math.nan
        odd = math.fmod(exponent, 2) != 0 and exponent.is_integer()
        return math.copysign(math.inf, base) if odd else math.inf


def less(one: float, other: float) -> bool:
    """``one < other``, NaN being the greatest."""
    return one < other or (other != other and one == one)


def equal(one: float, other: float) -> bool:
    """``one == other``, NaN being equal to itself."""
    return one == other or (one != one and other != other)


def least(*values: float) -> float:
    """The least value, NaN being the greatest."""
    return min((value for value in values if value == value), default=math.nan)


def greatest(*values: float) -> float:
    """The greatest value, which is NaN if one is."""
    return max(values) if all(value == value for value in values) else math.nan


# One underscore may stand between two digits, but not after the first eight decimals, or sixteen (DuckDB takes them by
# eights); a plus may precede a minus.
_NUMBER = re.compile(
    r"""\+?-? (?: \d+(?:_\d+)* (?: \. (?!(?:\d{8})+_) (?:\d+(?:_\d+)*)? )? | \. (?!(?:\d{8})+_) \d+(?:_\d+)* )
    (?: [eE][+-]?\d+(?:_\d+)* )?""",
    re.ASCII | re.VERBOSE,
)


def number(text: str) -> float | None:
    """The finite double that a text without blanks around it spells, as ``TRY_CAST`` reads it."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text.replace("_", "").lstrip("+") if "_" in text or text[0] == "+" else text)
    return value if math.isfinite(value) else None


class _Simple(dict[int, int]):
    """Maps one code point to one, as DuckDB does; Python's own methods may lengthen a text (ß becomes SS)."""

    def __init__(self, upper: bool) -> None:
        super().__init__({ord("ß"): ord("ẞ")} if upper else {ord("İ"): ord("i")})
        self._upper = upper

    def __missing__(self, code: int) -> int:
        character = chr(code)
        mapped = character.upper() if self._upper else character.lower()
        if len(mapped) != 1:
            mapped = character.title()
        return ord(mapped) if len(mapped) == 1 else code


_UPPER = _Simple(upper=True)
_LOWER = _Simple(upper=False)


def upper(text: str) -> str:
    """The text in capital letters, code point by code point."""
    return text.upper() if text.isascii() else text.translate(_UPPER)


def lower(text: str) -> str:
    """The text in small letters, code point by code point."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def strip(text: str) -> str:
    """The text without ASCII's white space around it."""
    return text.strip(BLANK)


def _date(time: int) -> tuple[datetime.date, int]:
    """A time's date, moved by whole cycles of 400 years into those that Python knows, and the years it was moved."""
    days = time // _DAY + _EPOCH
    if 1 <= days <= 3_652_059:
        return datetime.date.fromordinal(days), 0
    cycles = days // _DAYS_OF_400_YEARS - 1
    return datetime.date.fromordinal(days - cycles * _DAYS_OF_400_YEARS), 400 * cycles


def _is_finite(time: int) -> bool:
    return -_LARGEST_TIME < time < _LARGEST_TIME


def year(time: int) -> float | None:
    """The year; 0 is the one before the year 1."""
    if not _is_finite(time):
        return None
    date, moved = _date(time)
    return float(date.year + moved)


def month(time: int) -> float | None:
    """The month, from 1."""
    return float(_date(time)[0].month) if _is_finite(time) else None


def day(time: int) -> float | None:
    """The day of the month, from 1."""
    return float(_date(time)[0].day) if _is_finite(time) else None


def weekday(time: int) -> float | None:
    """The day of the week, Monday being 0."""
    return float((time // _DAY + 3) % 7) if _is_finite(time) else None


def hour(time: int) -> float | None:
    """The hour of the day."""
    return float(time % _DAY // _HOUR) if _is_finite(time) else None


def minute(time: int) -> float | None:
    """The minute of the hour."""
    return float(time % _HOUR // _MINUTE) if _is_finite(time) else None


_MOMENT = re.compile(
    r"""[ \t\n\r\v\f]* (?P<sign>-?) (?P<year>0*\d{1,7}) (?P<by>[ \-/\\]) (?P<month>\d{1,2}) (?P=by) (?P<day>\d{1,2})
    (?P<bc>[ \t\n\r\v\f]\([bB][cC]\))? (?!\d)
    (?: [ T]? [ \t\n\r\v\f]* (?P<hour>\d{1,9}) : (?P<minute>\d{0,2})
        (?: (?<=\d) : (?P<second>\d{0,2}) (?: (?<=\d) \. (?P<fraction>\d*) )? )?
        (?: (?: Z | (?P<east>[+-]) (?P<hours>\d\d) (?: :? (?P<minutes>\d\d) | : (?P<to>\d\d) : (?P<seconds>\d\d) )?
              | (?: [+-] \d\d : (?: \d\d : )? )? [ ] (?P<zone>[A-Za-z0-9_/+\-]*) )
            [ \t\n\r\v\f]* )?
    )?""",
    re.ASCII | re.VERBOSE,
)
"""What DuckDB reads, with its oddities: minutes and seconds may be empty, and so may the zone after a blank, before
which half an offset is passed over."""

_SPECIAL = re.compile(r"[ \t\n\r\v\f]* (?P<sign>-?) (?: inf | (?P<word>infinity|epoch) [ \t\n\r\v\f]* )", re.I | re.X)


def moment(text: str) -> int | None:
    """The moment that a text spells, as a cast to a time with a zone reads it; UTC where it names none.

    Names of zones are those of the IANA database, where the machine has one.
    """
    found = _MOMENT.fullmatch(text)
    if found is None:
        return _special(text)
    year_, month_, day_ = int(found["year"]), int(found["month"]), int(found["day"])
    if found["sign"] or found["bc"]:
        if found["bc"] and (found["sign"] or not year_):
            return None
        year_ = -year_ + bool(found["bc"])
    clock = _clock(found)
    moved = (year_ - 1) // 400 * 400
    try:
        days = datetime.date(year_ - moved, month_, day_).toordinal()
    except ValueError:
        return None
    if clock is None:
        return None
    time = (days - _EPOCH + moved // 400 * _DAYS_OF_400_YEARS) * _DAY + clock
    if not _is_finite(time):
        return None
    return _in_utc(time, found)


def _special(text: str) -> int | None:
    found = _SPECIAL.fullmatch(text)
    if found is None:
        return None
    if (found["word"] or "").lower() == "epoch":
        return 0
    return -_LARGEST_TIME if found["sign"] else _LARGEST_TIME


def _clock(found: re.Match[str]) -> int | None:
    if found["hour"] is None:
        return 0
    hours, minutes, seconds = int(found["hour"]), int(found["minute"] or 0), int(found["second"] or 0)
    micros = int((found["fraction"] or "0")[:6].ljust(6, "0"))
    if minutes > 59 or seconds > 59:
        return None
    clock = hours * _HOUR + minutes * _MINUTE + seconds * 1_000_000 + micros
    return clock if clock <= _DAY else None


def _in_utc(time: int, found: re.Match[str]) -> int | None:
    if found["east"]:
        ahead = int(found["hours"]) * 3600 + int(found["minutes"] or found["to"] or 0) * 60 + int(found["seconds"] or 0)
        time -= (ahead if found["east"] == "+" else -ahead) * 1_000_000
    elif found["zone"]:
        zone = _zone(found["zone"].lower())
        if zone is None:
            return None
        time -= _ahead(time, zone)
    return time if _is_finite(time) else None


@lru_cache(maxsize=1)
def _zones() -> dict[str, str]:
    return {name.lower(): name for name in zoneinfo.available_timezones()}


def _zone(name: str) -> datetime.tzinfo | None:
    if name in ("utc", "gmt"):
        return datetime.UTC
    return zoneinfo.ZoneInfo(_zones()[name]) if name in _zones() else None


def _ahead(time: int, zone: datetime.tzinfo) -> int:
    """Microseconds by which a zone's clocks, showing this time, are ahead of UTC.

    An hour that clocks show twice is the later one; one that they skip counts as if they had not.
    """
    date, moved = _date(time)
    if moved > 0:  # as late as Python's years go, where today's rules hold
        date = date.replace(year=date.year + 8800)
    shown = datetime.datetime.combine(date, datetime.time()) + datetime.timedelta(microseconds=time % _DAY)
    offsets = [shown.replace(tzinfo=zone, fold=fold).utcoffset() or datetime.timedelta() for fold in (0, 1)]
    return min(offsets) // datetime.timedelta(microseconds=1)
