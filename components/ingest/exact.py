"""Casts that refuse what DuckDB would silently alter.

Its own casts make 3 of a 2.5 in a column of whole numbers and 7 of 007, and drop the hour of a time among dates and
the offset of one among times without. Values are looked at in one condition for the whole row, which costs a tenth of
the reading time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from components.ingest.complaints import UNFIT
from components.ingest.engine import identifier, literal

_DATE = r"[0-9]{4,}-[0-9]{1,2}-[0-9]{1,2}"
_TIME = r"[0-9]{1,2}:[0-9]{1,2}(:[0-9]{1,2}(\.[0-9]{1,6})?)?"


@dataclass(frozen=True)
class Casts:
    """How to read columns as text and cast them.

    Attributes:
        replaced: SQL by column.
        fits: a condition that holds, or fails with :data:`components.ingest.complaints.UNFIT`; empty for none.
    """

    replaced: dict[str, str]
    fits: str

    def where(self) -> str:
        """The WHERE clause that looks at every row and leaves none out."""
        return f"WHERE CASE WHEN {self.fits} THEN true ELSE error({literal(UNFIT)}) END" if self.fits else ""


def casts(types: Mapping[str, str], *, patterns_only: bool) -> Casts:
    """Casts for the columns of a text table.

    Args:
        types: by name; see :mod:`components.ingest.form`.
        patterns_only: whether the others' values are known to fit, so that DuckDB's own, faster reading will do.
    """
    replaced: dict[str, str] = {}
    fits: list[str] = []
    for name, kind in types.items():
        column = identifier(name)
        base, _, pattern = kind.partition("|")
        if pattern and base in ("DATE", "TIMESTAMP"):
            replaced[name] = f"strptime({column}, {literal(pattern)})::{base}"
            continue
        fit = "" if patterns_only else _fit(kind, column)
        if fit:
            replaced[name] = f"{column}::{kind}"
            fits.append(f"coalesce({fit}, true)")
    return Casts(replaced, " AND ".join(fits))


def tolerant(kind: str, column: str) -> str:
    """SQL that is true of the texts that mean what a type's value means; empty where DuckDB's own cast says it."""
    if kind == "BIGINT":
        return f"coalesce(TRY_CAST({column} AS BIGINT)::VARCHAR = trim({column}, ' +'), {column} IS NULL)"
    return _fit(kind, column)


def _fit(kind: str, column: str) -> str:
    """SQL that is true of the texts that a cast keeps as they are, false of others and null of null."""
    if kind == "BIGINT":
        return f"{column}::BIGINT::VARCHAR = {column}"
    if kind == "DATE":
        return f"({column} LIKE '____-__-__' OR regexp_full_match({column}, '{_DATE}'))"
    if kind == "TIMESTAMP":
        return f"({column} LIKE '____-__-_____:__:__' OR regexp_full_match({column}, '{_DATE}([ T]{_TIME})?Z?'))"
    return ""
