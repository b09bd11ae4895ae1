"""What the check found, at the top of the report: broken rules, personal data, and columns that say little."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from components.validate.contract import Contract
from components.validate.profile import Profile

_LISTED = 20

_STYLE = (
    "font-family:sans-serif;max-width:70rem;margin:1rem auto;padding:1rem 1.5rem;border:1px solid #ccc;"
    "border-radius:6px;line-height:1.5"
)


def section(contract: Contract, profile: Profile, found: Mapping[str, Any]) -> str:
    """The section as HTML.

    Args:
        contract: what was applied.
        profile: what the columns hold.
        found: ``quarantined`` (rows), ``broken`` (rules with row counts, worst first) and ``added`` columns.
    """
    lines = [f"<li>{line}</li>" for line in _lines(contract, profile, found)]
    rows, bad = profile.rows, found["quarantined"]
    verdict = (
        f"{bad:,} of {rows:,} rows ({bad / rows:.2%}) set aside" if bad else f"all {rows:,} rows keep the contract"
    )
    return (
        f'<section style="{_STYLE}"><h2 style="margin-top:0">{escape(contract.dataset)}: {verdict}</h2>'
        f"<p>Data contract version {contract.version}, {len(contract.columns):,} columns.</p><ul>{''.join(lines)}</ul>"
        "<p>Counts here are of all rows; what follows is drawn from a sample without the rows set aside.</p></section>"
    )


def insert(page: str, block: str) -> str:
    """Put a block at the top of a page's body."""
    start = page.find("<body")
    at = page.find(">", start) + 1 if start >= 0 else 0
    return page[:at] + block + page[at:]


def _lines(contract: Contract, profile: Profile, found: Mapping[str, Any]) -> Iterator[str]:
    for rule, count in found["broken"][:_LISTED]:
        yield f"Broken: <b>{escape(rule)}</b>, {count:,} rows"
    personal = [f"{name} ({rule.personal})" for name, rule in contract.columns.items() if rule.personal]
    columns = profile.columns.values()
    missing = sorted((column for column in columns if 0 < column.missing < profile.rows), key=lambda one: -one.missing)
    yield from _named("Personal data", personal)
    yield from _named("New columns, which the contract does not know", found["added"])
    yield from _named("Empty columns", [one.name for one in columns if one.missing == profile.rows])
    yield from _named("Constant columns", [one.name for one in columns if one.distinct == 1 and not one.missing])
    yield from _named("Missing values", [f"{one.name} ({one.missing / profile.rows:.1%})" for one in missing])


def _named(what: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        yield f"{what}: {escape(', '.join(names[:_LISTED]))}{more}"
