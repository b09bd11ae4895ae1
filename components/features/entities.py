"""Which rows of two tables are of the same entity, however their columns are named and stored."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from components.errors import BadInput
from components.features import parsing

if TYPE_CHECKING:
    import ibis.expr.types as ir


class HasTable(Protocol):
    """What has a table."""

    @property
    def table(self) -> "ir.Table":
        """The table."""


def aligned(
    events: HasTable, rows: HasTable, pairs: Mapping[str, str]
) -> "tuple[dict[str, ir.Value], dict[str, ir.Value]]":
    """The columns ``e0``, ``e1``, … that name the entity in a table of events and in the rows, of equal types.

    Whole numbers meet as whole numbers, other numbers as doubles, and texts as texts (blank is missing); a whole
    number meets a text by its digits. Whole numbers of one type, however large, need no common one.

    Args:
        events: the one.
        rows: the other.
        pairs: columns of the events, and what the rows call them.

    Raises:
        BadInput: a column does not exist, or the two cannot be compared.
    """
    theirs, ours = {}, {}
    for place, (their_name, our_name) in enumerate(pairs.items()):
        for side, name in ((events, their_name), (rows, our_name)):
            if name not in side.table.columns:
                known = [column for column in side.table.columns if not column.startswith("__")]
                raise BadInput(f"There is no entity column {name!r}; the columns are {', '.join(known[:30])}.")
        one, other = _comparable(events.table[their_name], rows.table[our_name], their_name, our_name)
        theirs[f"e{place}"], ours[f"e{place}"] = one, other
    return theirs, ours


def _comparable(one: "ir.Value", other: "ir.Value", name: str, named: str) -> "tuple[ir.Value, ir.Value]":
    if one.type() == other.type() and _is_whole(one):
        return one, other
    kinds = {_kind(one), _kind(other)}
    if kinds <= {"whole"}:
        return one.cast("int64"), other.cast("int64")
    if kinds <= {"whole", "number"}:
        return parsing.number(one), parsing.number(other)
    if kinds <= {"whole", "text", "other"}:
        return parsing.text(one), parsing.text(other)
    raise BadInput(
        f"The entity columns {name!r} ({one.type()}) and {named!r} ({other.type()}) cannot be compared; have both read "
        'as text, with read_options {"types": …}.'
    )


def _is_whole(value: "ir.Value") -> bool:
    """Whether all values are whole numbers: Spark has decimals where DuckDB has unsigned ones of 64 bits."""
    kind = value.type()
    return bool(kind.is_integer() or (kind.is_decimal() and kind.scale == 0))


def _kind(value: "ir.Value") -> str:
    kind = value.type()
    if (kind.is_integer() and kind.nbytes <= 8 and not kind.is_unsigned_integer()) or (
        kind.is_unsigned_integer() and kind.nbytes <= 4
    ):
        return "whole"
    if _is_whole(value) or kind.is_string():
        return "text" if kind.is_string() else "other"
    return "number" if kind.is_numeric() and not kind.is_boolean() else "other"
