"""Train, valid or test: by a hash of the row's key alone, so that new rows never move old ones, or by time."""

import math
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.features import parsing
from components.ingest.engine import ROW
from components.validate.profile import Profile, typed

if TYPE_CHECKING:
    import ibis.expr.types as ir

TRAIN, VALID = 0.70, 0.15
"""Shares of train and valid; the rest is test."""

_SEPARATOR = "|"


def assigned(key: "ir.StringValue", seed: int) -> "ir.StringValue":
    """The split of a key: the first 8 hexadecimal digits of md5("seed|key"), as a share of 2**32.

    The digits are compared as text, which orders them like the number they write.
    """
    import ibis

    digits = (ibis.literal(f"{seed}{_SEPARATOR}") + key).hexdigest("md5").left(8)
    return ibis.cases((digits < _hex(TRAIN), "train"), (digits < _hex(TRAIN + VALID), "valid"), else_="test")


def in_order(table: "ir.Table", profile: Profile, column: str) -> "ir.StringValue":
    """The split by place in the order of a column, or of the source: rows of equal value are in the same split.

    Raises:
        BadInput: there is no such column, or it has missing values.
    """
    import ibis

    if column in profile.columns:
        if missing := profile.columns[column].missing:
            raise BadInput(f"The order column {column!r} has {missing:,} missing values: rows need a place in time.")
        place = typed(table[column], profile.columns[column].type)
    elif column == "rows":
        place = table[ROW]
    else:
        names = ", ".join(profile.columns)
        raise BadInput(
            f"feature_spec's order names {column!r}, which is neither 'rows' nor a column; those are {names}."
        )
    share = ibis.percent_rank().over(ibis.window(order_by=place))
    return ibis.cases((share < TRAIN, "train"), (share < TRAIN + VALID, "valid"), else_="test")


def key_text(table: "ir.Table", profile: Profile, columns: tuple[str, ...]) -> "ir.StringValue":
    """A row's key as text; numbers are written as doubles, however the snapshot stores them.

    A whole-number column becomes one of doubles when a later snapshot has a fraction in it, and a text column when
    it has a blank: the key must not change with that.
    """
    import ibis

    parts = [_as_text(table[name], profile, name).fill_null("") for name in columns if name != ROW]
    key = parts[0]
    for part in parts[1:]:
        key = key + ibis.literal(_SEPARATOR) + part
    return key


def content(profile: Profile, target: str) -> tuple[str, ...]:
    """The columns of a row's content as its key: all but the target, so that a corrected label moves no row."""
    return tuple(
        name
        for name, column in profile.columns.items()
        if name != target and column.type != "nested" and column.missing < profile.rows
    )


def _as_text(value: "ir.Value", profile: Profile, name: str) -> "ir.StringValue":
    kind = profile.columns[name].type
    return (value if kind == "nested" else parsing.text(value) if kind == "string" else typed(value, kind)).cast(
        "string"
    )


def _hex(share: float) -> str:
    return f"{math.ceil(share * 2**32):08x}"
