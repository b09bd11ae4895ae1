"""When a row was, as whole microseconds since 1970: what windows and joins are ordered by on every engine."""

import datetime
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.features import parsing
from components.features.spec import Moment

if TYPE_CHECKING:
    import ibis.expr.types as ir

FARTHEST = 2**62
"""Beyond it there is no time: what is added to a time must still be one."""

_PER = {"seconds": 1_000_000.0, "milliseconds": 1_000.0, "microseconds": 1.0}
_EPOCH = datetime.datetime(1970, 1, 1)


def micros(value: "ir.Value", moment: Moment) -> "ir.IntegerValue":
    """Microseconds since 1970 in UTC; missing where it cannot be read, is infinite or absurdly far away.

    Args:
        value: a raw column: times, texts of times, or numbers in the moment's unit.
        moment: which unit.

    Raises:
        BadInput: its values are no times.
    """
    import ibis

    kind = value.type()
    if kind.is_boolean() or not (kind.is_numeric() or kind.is_string() or kind.is_timestamp() or kind.is_date()):
        raise BadInput(
            f"The time column {moment.column!r} holds {kind} values; name one of times, or of numbers since 1970."
        )
    if kind.is_numeric():
        scaled = parsing.number(value) * _PER[moment.unit]
        near = scaled.between(-float(FARTHEST), float(FARTHEST)).ifelse(scaled, None)
        return parsing.floor(near + 0.5).cast("int64")
    passed = parsing.timestamp(value).delta(ibis.literal(_EPOCH), unit="microsecond")
    return passed.between(-FARTHEST, FARTHEST).ifelse(passed, None)


def shown(moment: int) -> str:
    """Microseconds since 1970 as people read them."""
    try:
        return (_EPOCH + datetime.timedelta(microseconds=moment)).isoformat(" ")
    except OverflowError:
        return f"{moment} microseconds since 1970"


def in_words(amount: int) -> str:
    """Microseconds as a duration, exactly, in the largest unit that makes a whole number."""
    for unit, size in (("day", 86_400_000_000), ("hour", 3_600_000_000), ("minute", 60_000_000), ("second", 1_000_000)):
        if amount % size == 0:
            return f"{amount // size:,} {unit}{'' if amount == size else 's'}"
    return f"{amount / 1_000_000} seconds"
