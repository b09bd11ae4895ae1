"""A contract's rules as SQL that is true for the rows that break them: only those that some row does break.

Least, greatest, missing and listed values are in the profile, so that a rule over them needs no look at the rows. The
others are counted in the scan that makes the profile, or held against the few different texts that it lists.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from components.features import parsing
from components.ingest.engine import ROW, identifier, literal
from components.validate.compiled import ALIAS, pieces
from components.validate.contract import ColumnRule, Contract
from components.validate.counting import lists_texts
from components.validate.durations import seconds
from components.validate.pandera_schema import CheckSpec, checks, passes, read_by, row_rule
from components.validate.profile import ColumnProfile, Profile
from components.validate.reader import SOURCE, Reader
from components.validate.unique import is_unique, repeated

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir

_KINDS = {"integer": "a number", "number": "a number", "timestamp": "a time", "boolean": "true or false"}


@dataclass(frozen=True)
class Rule:
    """One way in which a row can break the contract.

    Attributes:
        columns: the column, or those of a key or of a rule over a row.
        reason: what is wrong, for people.
        broken: SQL that is true for the rows that break it.
    """

    columns: tuple[str, ...]
    reason: str
    broken: str


def undecided(reader: Reader, contract: Contract) -> tuple[Rule, ...]:
    """The rules that only a look at each row decides."""
    single = list(_single(reader, contract))
    if not single and not contract.rules:
        return ()
    table = reader.table
    broken: dict[tuple[tuple[str, ...], str], ir.Value] = {}
    for name, spec in single:
        column = reader.column(name)
        if spec is None:
            value = table[column].cast("float64")
            broken[(name,), "not a whole number"] = value != parsing.floor(value)
        else:
            broken[(name,), spec.reason] = ~passes(table, column, spec)
    for name, text in contract.rules.items():
        columns = read_by(name, text)
        holds = row_rule(reader.values(columns), name, text)
        broken[columns, f"breaks {name}: {text}"] = ~holds
    return tuple(Rule(columns, reason, text) for (columns, reason), text in pieces(table, broken).items())


def _single(reader: Reader, contract: Contract) -> "Iterator[tuple[str, CheckSpec | None]]":
    """Checks of single columns that footers do not show to hold; None is the one for whole numbers."""
    for name, rule in _rules(contract):
        known = reader.extremes(name)
        low, high = known.get("min", known.get("earliest")), known.get("max", known.get("latest"))
        for spec in checks(rule):
            if spec.check == "greater_than_or_equal_to" and low is not None and low >= rule.min:
                continue
            if spec.check == "less_than_or_equal_to" and high is not None and high <= rule.max:
                continue
            yield name, spec
        if rule.type == "integer" and not is_whole(reader.known.stored[name]):
            yield name, None


def by_value(reader: Reader, rule: Rule) -> bool:
    """Whether a rule is held against the different texts of its column, of which there are few in many rows."""
    return len(rule.columns) == 1 and lists_texts(reader, rule.columns[0])


def broken_by_value(
    connection: "duckdb.DuckDBPyConnection", reader: Reader, rules: Sequence[Rule], texts: Mapping[str, list[str]]
) -> list[Rule]:
    """Those of the rules that one of their column's different texts breaks."""
    broken = []
    for rule in rules:
        (name,) = rule.columns
        values = f"(SELECT unnest($texts::VARCHAR[]) AS {identifier(reader.column(name))}) AS {ALIAS}"
        query = f"SELECT count_if({rule.broken}) FROM {values}"
        if connection.execute(query, {"texts": texts[name]}).fetchall()[0][0]:
            broken.append(rule)
    return broken


def doubtful(
    connection: "duckdb.DuckDBPyConnection", reader: Reader, contract: Contract, profile: Profile, now: datetime
) -> list[Rule]:
    """The rules that some row breaks, as the profile and a look for repeats show; those of :func:`undecided` aside."""
    found: list[Rule] = []
    for name, rule in _rules(contract):
        found += _of_column(reader, name, rule, profile.columns[name], now)
        if rule.unique and not profile.columns[name].unique:
            found.append(_repeats(reader, (name,)))
    for key in contract.keys:
        if not is_unique(connection, SOURCE, [reader.value(name) for name in key]):
            found.append(_repeats(reader, key))
    return found


def is_whole(stored: str) -> bool:
    """Whether a stored type holds nothing but whole numbers."""
    return stored.endswith(("INT", "INTEGER"))


def _of_column(reader: Reader, name: str, rule: ColumnRule, seen: ColumnProfile, now: datetime) -> Iterator[Rule]:
    value = reader.value(name)
    if not rule.nullable and seen.missing:
        yield Rule((name,), "missing", reader.missing(name))
    if seen.unreadable:
        kind = _KINDS.get(rule.type, "a text")
        yield Rule((name,), f"not {kind}", f"({value} IS NULL AND NOT ({reader.missing(name)}))")
    if rule.max_ahead is not None:
        latest = now + timedelta(seconds=seconds(rule.max_ahead))
        if seen.latest is not None and seen.latest > latest:
            yield Rule(
                (name,),
                f"more than {rule.max_ahead} in the future",
                f"{value} > TIMESTAMP {literal(latest.isoformat())}",
            )


def _repeats(reader: Reader, columns: tuple[str, ...]) -> Rule:
    again = repeated(SOURCE, [reader.value(name) for name in columns])
    return Rule(columns, "occurs more than once", f"{ALIAS}.{identifier(ROW)} IN ({again})")


def _rules(contract: Contract) -> Iterator[tuple[str, ColumnRule]]:
    for name, rule in contract.columns.items():
        if not rule.empty and rule.type != "nested":
            yield name, rule
