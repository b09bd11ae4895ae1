"""How the columns of a snapshot differ from its contract's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from components.errors import BadInput
from components.validate.contract import ColumnRule, Contract, Type

_HALF = 0.5
"""A text column of which this share still reads as the contract's type has strays; with less it was retyped."""


@dataclass(frozen=True)
class Found:
    """A column as the snapshot has it: stored and meant type, and which share of a text reads as each other type."""

    stored: str
    meaning: Type
    shares: Mapping[Type, float]
    empty: bool


@dataclass(frozen=True)
class Change:
    """How one column differs from the contract's.

    Attributes:
        column: its name.
        change: what happened to it.
        was: the contract's type; empty for an added one.
        now: what the values mean in the snapshot; empty for a missing one.
        stored: DuckDB's type in the snapshot.
        renamed: the added column that a missing one may have become.
    """

    column: str
    change: Literal["added", "missing", "retyped"]
    was: str = ""
    now: str = ""
    stored: str = ""
    renamed: str = ""

    def __str__(self) -> str:
        """As a line of a diff."""
        if self.change == "added":
            return f"+ {self.column} ({self.now})"
        if self.change == "retyped":
            return f"~ {self.column} was {self.was} and is now {self.now} (stored as {self.stored})"
        return f"- {self.column} ({self.was}) is missing" + (f" (renamed to {self.renamed}?)" if self.renamed else "")


def differences(contract: Contract, columns: Mapping[str, Found]) -> tuple[Change, ...]:
    """How a snapshot's columns differ from the contract's: those of the contract first, then those added."""
    added = [name for name in columns if name not in contract.columns]
    changes = [
        change
        for name, rule in contract.columns.items()
        if (change := _difference(name, rule, columns, added)) is not None
    ]
    return (
        *changes,
        *(Change(name, "added", now=columns[name].meaning, stored=columns[name].stored) for name in added),
    )


def check_schema(changes: Sequence[Change], where: str) -> None:
    """Refuse what cannot be read by the contract; columns that were added are no harm.

    Raises:
        BadInput: a column is missing or has another type; the message is the difference.
    """
    wrong = [change for change in changes if change.change != "added"]
    if wrong:
        more = f"; and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        added = [change for change in changes if change.change == "added"]
        new = f"; new columns: {', '.join(str(change) for change in added[:10])}" if added else ""
        raise BadInput(
            f"The snapshot's columns do not fit the data contract: {'; '.join(map(str, wrong[:10]))}{more}{new}. Mend "
            f"the source, or edit {where}."
        )


def close(name: str, names: list[str]) -> list[str]:
    """Names that a person may have meant; the same name in another case comes first."""
    same = [other for other in names if other.casefold() == name.casefold()]
    lower = {other.casefold(): other for other in names}
    near = [lower[key] for key in get_close_matches(name.casefold(), list(lower), n=3, cutoff=0.6)]
    return list(dict.fromkeys([*same, *near]))


def _difference(name: str, rule: ColumnRule, columns: Mapping[str, Found], added: list[str]) -> Change | None:
    found = columns.get(name)
    if found is None:
        return Change(name, "missing", was=rule.type, renamed=_renamed(name, rule, columns, added))
    if rule.empty or found.empty or _fits(rule.type, found):
        return None
    return Change(name, "retyped", was=rule.type, now=found.meaning, stored=found.stored)


def _renamed(name: str, rule: ColumnRule, columns: Mapping[str, Found], added: list[str]) -> str:
    """The new column that a missing one may have become: of a near name, else the only new one of its type."""
    near = close(name, added)
    if near:
        return near[0]
    alike = [other for other in added if columns[other].meaning == rule.type]
    return alike[0] if len(alike) == 1 else ""


def _fits(wanted: Type, found: Found) -> bool:
    if wanted == found.meaning:
        return True
    numeric: tuple[Type, ...] = ("integer", "number")
    if wanted in numeric:
        return found.meaning in numeric or found.shares.get("number", 0.0) >= _HALF
    if wanted == "string":
        return bool(found.shares)  # stored as text, whatever it reads as
    return found.shares.get(wanted, 0.0) >= _HALF
