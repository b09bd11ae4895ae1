"""How the columns of a snapshot differ from its contract's."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

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


def check_schema(contract: Contract, columns: Mapping[str, Found], where: str) -> tuple[str, ...]:
    """Compare columns and return those that were added.

    Raises:
        BadInput: a column is missing or has another type; the message is the difference.
    """
    added = tuple(name for name in columns if name not in contract.columns)
    wrong = [
        line for name, rule in contract.columns.items() if (line := _difference(name, rule, columns.get(name), added))
    ]
    if wrong:
        raise BadInput(
            f"The snapshot's columns do not fit the data contract: {'; '.join(wrong[:10])}"
            f"{f'; and {len(wrong) - 10} more' if len(wrong) > 10 else ''}. Mend the source, or edit {where}."
        )
    return added


def close(name: str, names: list[str]) -> list[str]:
    """Names that a person may have meant; the same name in another case comes first."""
    same = [other for other in names if other.casefold() == name.casefold()]
    lower = {other.casefold(): other for other in names}
    near = [lower[key] for key in get_close_matches(name.casefold(), list(lower), n=3, cutoff=0.6)]
    return list(dict.fromkeys([*same, *near]))


def _difference(name: str, rule: ColumnRule, found: Found | None, added: tuple[str, ...]) -> str:
    if found is None:
        renamed = close(name, list(added))
        return f"- {name} ({rule.type}) is missing" + (f" (renamed to {renamed[0]}?)" if renamed else "")
    if rule.empty or found.empty or _fits(rule.type, found):
        return ""
    return f"~ {name} was {rule.type} and is now {found.meaning} (stored as {found.stored})"


def _fits(wanted: Type, found: Found) -> bool:
    if wanted == found.meaning:
        return True
    numeric: tuple[Type, ...] = ("integer", "number")
    if wanted in numeric:
        return found.meaning in numeric or found.shares.get("number", 0.0) >= _HALF
    if wanted == "string":
        return bool(found.shares)  # stored as text, whatever it reads as
    return found.shares.get(wanted, 0.0) >= _HALF
