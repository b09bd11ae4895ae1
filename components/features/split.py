"""Train, valid or test: by a hash of the row's key alone, so that new rows never move old ones, or by time."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.features import parsing
from components.features.engines import Engine
from components.ingest.engine import ROW
from components.validate.profile import Profile, typed

if TYPE_CHECKING:
    import ibis.expr.types as ir

TRAIN, VALID = 0.70, 0.15
"""Shares of train and valid; the rest is test."""

GAP = "gap"
"""Where a row of a split by time is that is too close to the next split."""

_SEPARATOR = "|"


def digits(key: "ir.StringValue", seed: int) -> "ir.StringValue":
    """The first 8 hexadecimal digits of md5("seed|key")."""
    import ibis

    return (ibis.literal(f"{seed}{_SEPARATOR}") + key).hexdigest("md5").left(8)


def assigned(digits: "ir.StringValue") -> "ir.StringValue":
    """The split of a key's digits, as a share of 2**32.

    The digits are compared as text, which orders them like the number they write.
    """
    import ibis

    return ibis.cases((digits < _hex(TRAIN), "train"), (digits < _hex(TRAIN + VALID), "valid"), else_="test")


@dataclass(frozen=True)
class Periods:
    """A split by time, in microseconds since 1970.

    Attributes:
        valid: when the first valid row was.
        test: when the first test row was.
        gap: rows so close before either of them are left out.
    """

    valid: int
    test: int
    gap: int

    def of(self, at: "ir.IntegerValue") -> "ir.StringValue":
        """The split of a moment; :data:`GAP` where it is in none."""
        import ibis

        return ibis.cases(
            (at < self.valid - self.gap, "train"),
            (at < self.valid, GAP),
            (at >= self.test, "test"),
            (at < self.test - self.gap, "valid"),
            else_=GAP,
        )


def periods(engine: Engine, at: "ir.IntegerColumn", gap: int, column: str) -> Periods:
    """When valid and test begin, so that the shares of rows are as stated; rows of one moment are in one split.

    Args:
        engine: where to count.
        at: when the rows were, missing where that is unknown.
        gap: microseconds.
        column: what the time is called, for messages.

    Raises:
        BadInput: rows have no time, or all have the same.
    """
    import ibis

    table = at.name("at").as_table()
    (found,) = engine.rows(table.aggregate(missing=table["at"].isnull().sum()))
    if found["missing"]:
        raise BadInput(
            f"{int(found['missing']):,} rows have no usable time in {column!r}, and a split by time gives every row a "
            "place; have them refused by the contract (nullable: false), or split by key."
        )
    ranked = table.select("at", share=ibis.percent_rank().over(ibis.window(order_by=table["at"])))
    bounds = ranked.aggregate(
        valid=ranked["at"].min(where=ranked["share"] >= TRAIN),
        test=ranked["at"].min(where=ranked["share"] >= TRAIN + VALID),
    )
    (begin,) = engine.rows(bounds)
    if begin["valid"] is None or begin["test"] is None or begin["valid"] == begin["test"]:
        raise BadInput(f"Too many rows have the same time in {column!r} to tell the past from the future by it.")
    return Periods(int(begin["valid"]), int(begin["test"]), gap)


def key_text(table: "ir.Table", profile: Profile, columns: tuple[str, ...]) -> "ir.StringValue":
    """A row's key as text; numbers are written as doubles, however the snapshot stores them.

    A whole-number column becomes one of doubles when a later snapshot has a fraction in it, and a text column when
    it has a blank: the key must not change with that.
    """
    import ibis

    parts = [_as_text(table[name], profile, name).fill_null("") for name in columns if name != ROW]
    return ibis.literal(_SEPARATOR).join(parts)  # flat: thousands of columns, one added to the other, nest too deep


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
