"""What a raw value means: the same expressions for a table of millions of rows and for one request.

A blank text is a missing value, whatever the column's type; so are NaN and the infinities.
"""

import sys
from typing import TYPE_CHECKING

from components.features.schema import InputType

if TYPE_CHECKING:
    import ibis.expr.types as ir

_LARGEST = sys.float_info.max

_WHOLE_FROM = 2.0**52
"""Doubles of this size on have no fraction."""


def text(value: "ir.Value") -> "ir.StringValue":
    """The value as text; blank is missing."""
    shown = value.cast("string")
    return (shown.strip() == "").ifelse(None, shown)


def number(value: "ir.Value") -> "ir.FloatingValue":
    """The value as a finite double; anything else is missing."""
    kind = value.type()
    if kind.is_string():
        value = value.strip().try_cast("float64")
    elif not kind.is_floating():
        return value.cast("float64")
    return finite(value.cast("float64"))


def finite(value: "ir.FloatingValue") -> "ir.FloatingValue":
    """The double where it is finite, else missing; NaN counts as greater than any number, in DuckDB as in Spark."""
    return value.between(-_LARGEST, _LARGEST).ifelse(value, None)


def floor(value: "ir.FloatingValue") -> "ir.FloatingValue":
    """The next lower whole number as a double; Ibis makes it a 64-bit integer, which large doubles overflow."""
    small = (value.abs() < _WHOLE_FROM).ifelse(value, None)
    return small.floor().cast("float64").coalesce(value)


def boolean(value: "ir.Value") -> "ir.BooleanValue":
    """True and false, also as text in any case or as a number other than and equal to zero."""
    import ibis

    kind = value.type()
    if kind.is_boolean():
        return value
    if kind.is_numeric():
        return number(value) != 0
    lower = value.cast("string").strip().lower()
    return ibis.cases((lower == "true", True), (lower == "false", False), else_=ibis.null("boolean"))


def timestamp(value: "ir.Value") -> "ir.TimestampValue":
    """The moment in UTC without a zone; a text with an offset is converted, one without is taken as UTC."""
    if value.type().is_string():
        return value.try_cast("timestamp('UTC', 6)").cast("timestamp(6)")
    return value.cast("timestamp(6)")


def parse(value: "ir.Value", kind: InputType) -> "ir.Value":
    """Parse a raw column as the given type."""
    return {"number": number, "string": text, "boolean": boolean, "timestamp": timestamp}[kind](value)
