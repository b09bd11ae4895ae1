"""A contract from the first snapshot of a data set, with slack for what the next ones may bring.

A rule is only made where the next ordinary snapshot keeps it: a column that grows with time gets no bounds, and how old
the newest row may be is for people to say, since an old snapshot may be run again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from components.validate.contract import ColumnRule, Contract, RowBounds
from components.validate.glance import Seen
from components.validate.profile import LISTED, ColumnProfile, Profile

SLACK = 1.0
"""How far beyond the range seen first values may lie, as a share of that range."""

FEWEST_ROWS = 0.1
"""A later snapshot may have this share of the first one's rows; fewer looks like a cut-off export."""

ENOUGH_ROWS = 20
"""With fewer rows than this, all-different values say nothing."""

MANY_ROWS = 1_000
"""From here on shares of missing values and pairs of columns say something."""

LONGER = 10
"""How many times as long as the longest text later ones may be: a quote that is not closed makes longer ones."""

SHORT = 100
"""Characters that every text may have."""

MORE_MISSING = 0.3
"""How much the share of missing values may grow."""

AHEAD = "1 day"
"""How far in the future times may lie where the first ones were all past: time zones are mixed up by hours."""

TREND = 0.9
"""From this correlation with the order of the rows on, a column grows or falls with time."""

_NAMED_ID = re.compile(r"(^|[_\s.-])(id|key|uuid|guid|index)$|^(id|uuid|guid|row_?number)([_\s.-]|$)", re.IGNORECASE)
_CAMEL_ID = re.compile(r"[a-z0-9](ID|Id|Key|Uuid|UUID)$")
_UNNAMED = re.compile(r"column\d+|unnamed.*", re.IGNORECASE)
_TO_COME = re.compile(r"due|until|end|expir|valid|deadline|plan|schedul|next|renew|forecast", re.IGNORECASE)


@dataclass(frozen=True)
class Clues:
    """What an inference takes into account beside the profile.

    Attributes:
        patterns: regular expressions that all texts of a column match.
        personal: kinds of personal data by column.
        keys: columns of which no two rows have the same values.
        seen: the glance.
        now: the present time, in UTC without a zone.
    """

    now: datetime
    patterns: Mapping[str, str] = field(default_factory=dict)
    personal: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[tuple[str, ...], ...] = ()
    seen: Mapping[str, Seen] = field(default_factory=dict)


def infer(profile: Profile, dataset: str, version: str, target: str, clues: Clues) -> Contract:
    """Infer a contract.

    Args:
        profile: what the snapshot holds.
        dataset: the data set's name.
        version: the snapshot's version.
        target: the column to predict, which is never an identifier.
        clues: what else is known.
    """
    columns = {name: _rule(column, profile.rows, name == target, clues) for name, column in profile.columns.items()}
    bounds = RowBounds(min=max(1, int(profile.rows * FEWEST_ROWS)))
    return Contract(dataset=dataset, inferred_from=version, rows=bounds, keys=clues.keys, columns=columns)


def may_identify(name: str, kind: str, seen: Seen, rows: int) -> bool:
    """Whether it is worth a look if a column names the row: as far as a glance shows, all its values differ."""
    if rows < ENOUGH_ROWS or not seen.present or not seen.all_differ:
        return False
    if kind == "string":
        return seen.spaced <= seen.present * 0.1
    return kind == "integer" and called_id(name)


def is_identifier(column: ColumnProfile, rows: int) -> bool:
    """Whether a column names the row: only different texts without spaces, or numbers in a column called an id."""
    if not column.unique or column.missing or rows < ENOUGH_ROWS:
        return False
    if column.type == "string":
        return column.spaced <= rows * 0.1
    return column.type == "integer" and called_id(column.name)


def likely_key(profile: Profile, target: str) -> tuple[str, ...]:
    """Columns called ids that together may name the row: by chance alone some would have met by now.

    Under independence n rows have about n² / (2 d₁ d₂ …) pairs with the same values; ten or more are expected.
    """
    if any(is_identifier(column, profile.rows) for column in profile.columns.values()) or profile.rows < MANY_ROWS:
        return ()
    ids = [c for c in profile.columns.values() if c.name != target and not c.missing and called_id(c.name)]
    different = 1.0
    for column in ids:
        different *= column.distinct
    if len(ids) < 2 or profile.rows**2 / (2 * different) < 10:
        return ()
    return tuple(column.name for column in ids)


def called_id(name: str) -> bool:
    """Whether a column is called as identifiers are."""
    return _is_named_id(name) or _UNNAMED.fullmatch(name) is not None


def _is_named_id(name: str) -> bool:
    return _NAMED_ID.search(name) is not None or _CAMEL_ID.search(name) is not None


def _rule(column: ColumnProfile, rows: int, is_target: bool, clues: Clues) -> ColumnRule:
    name, seen = column.name, clues.seen.get(column.name)
    personal = clues.personal.get(name, "")
    if column.missing == rows:
        return ColumnRule(type=column.type, empty=True, personal=personal)
    identifier = not is_target and is_identifier(column, rows)
    trending = seen is not None and abs(seen.trend) >= TREND
    numbers_rows = identifier or (column.type == "integer" and _is_named_id(name))
    low, high = (None, None) if numbers_rows or trending else _range(column)
    allowed = _allowed(column, rows, is_target)
    is_text = column.type == "string" and allowed is None
    past = column.type == "timestamp" and column.latest is not None and column.latest <= clues.now
    return ColumnRule(
        type=column.type,
        nullable=column.missing > 0,
        identifier=identifier,
        unique=identifier,
        min=low,
        max=high,
        allowed=allowed,
        pattern=clues.patterns.get(name) if is_text else None,
        max_length=max(SHORT, LONGER * column.longest) if is_text and column.longest is not None else None,
        max_ahead=AHEAD if past and not _TO_COME.search(name) else None,
        max_missing=_most_missing(column.missing / rows, rows),
        personal=personal,
    )


def _most_missing(share: float, rows: int) -> float | None:
    if share == 0 or share > 0.5 or rows < MANY_ROWS:
        return None
    return round(share + MORE_MISSING, 2)


def _range(column: ColumnProfile) -> tuple[float | None, float | None]:
    if column.min is None or column.max is None:
        return None, None
    slack = SLACK * ((column.max - column.min) or max(abs(column.max), 1.0))
    low, high = column.min - slack, column.max + slack
    if column.min >= 0:  # counts, prices and ages stay positive
        low = max(low, 0.0)
    if column.max <= 0:
        high = min(high, 0.0)
    if column.type == "integer":
        return float(int(low)), float(int(high))
    return low, high


def _allowed(column: ColumnProfile, rows: int, is_target: bool) -> tuple[str, ...] | None:
    """The texts seen, where there are few, each on average in twenty rows; labels always."""
    if column.values is None:
        return None
    few = len(column.values) <= min(LISTED, max(2, rows // 20))
    return column.values if few or is_target else None
