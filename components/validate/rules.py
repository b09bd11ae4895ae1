"""A contract's rules as Ibis expressions that are true for the rows that break them.

pandera's Ibis back end was tried first: it has no row locator (failure cases hold the column alone, numbered by an
unordered row number), runs a query per check and brings the outcome of every row into pandas. Here all rules are
counted in one scan, and only those that the profile does not already show to hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.features import parsing
from components.ingest.engine import ROW
from components.validate.contract import ColumnRule, Contract
from components.validate.profile import ColumnProfile, Profile, is_missing, typed

if TYPE_CHECKING:
    import ibis.expr.types as ir

_KINDS = {"integer": "a number", "number": "a number", "timestamp": "a time", "boolean": "true or false"}


@dataclass(frozen=True)
class Rule:
    """One way in which a value can break the contract."""

    column: str
    reason: str
    broken: "ir.BooleanValue"


def doubtful(table: "ir.Table", contract: Contract, profile: Profile) -> list[Rule]:
    """The rules that some row may break, in column order; a snapshot in order has none."""
    found: list[Rule] = []
    for name, rule in contract.columns.items():
        if rule.empty or rule.type == "nested":
            continue
        found.extend(_of_column(table, name, rule, profile.columns[name]))
    return found


def _of_column(table: "ir.Table", name: str, rule: ColumnRule, seen: ColumnProfile) -> Iterator[Rule]:
    raw = table[name]
    value = typed(raw, rule.type)
    if not rule.nullable and seen.missing:
        yield Rule(name, "missing", is_missing(raw))
    if seen.unreadable:
        yield Rule(name, f"not {_KINDS.get(rule.type, 'a text')}", value.isnull() & ~is_missing(raw))
    if rule.type == "integer" and not raw.type().is_integer():
        yield Rule(name, "not a whole number", (value != parsing.floor(value)).fill_null(False))
    if rule.min is not None and seen.min is not None and seen.min < rule.min:
        yield Rule(name, f"below {rule.min:g}", (value < rule.min).fill_null(False))
    if rule.max is not None and seen.max is not None and seen.max > rule.max:
        yield Rule(name, f"above {rule.max:g}", (value > rule.max).fill_null(False))
    if rule.allowed is not None and (seen.values is None or not set(seen.values) <= set(rule.allowed)):
        shown = ", ".join(rule.allowed[:5]) + (", …" if len(rule.allowed) > 5 else "")
        yield Rule(name, f"not one of {shown}", ~value.cast("string").isin(rule.allowed).fill_null(True))
    if rule.unique and not seen.unique:
        yield Rule(name, "occurs more than once", _repeated(table, raw))


def _repeated(table: "ir.Table", value: "ir.Value") -> "ir.BooleanValue":
    """True from the second occurrence on."""
    import ibis

    earlier = ibis.row_number().over(group_by=value, order_by=table[ROW])
    return (earlier > 0) & value.notnull()
