"""A contract from the first snapshot of a data set, with slack for what the next ones may bring."""

import re

from components.validate.contract import ColumnRule, Contract, RowBounds
from components.validate.profile import LISTED, ColumnProfile, Profile

SLACK = 0.5
"""How far beyond the range seen first values may lie, as a share of that range."""

FEWEST_ROWS = 0.1
"""A later snapshot may have this share of the first one's rows; fewer looks like a cut-off export."""

ENOUGH_ROWS = 20
"""With fewer rows than this, all-different values say nothing."""

_NAMED_ID = re.compile(r"(^|[_\s.-])(id|key|uuid|guid|index)$|^(id|uuid|guid|row_?number)([_\s.-]|$)", re.IGNORECASE)
_CAMEL_ID = re.compile(r"[a-z0-9](ID|Id|Key|Uuid|UUID)$")
_UNNAMED = re.compile(r"column\d+|unnamed.*", re.IGNORECASE)


def infer(profile: Profile, dataset: str, version: str, target: str) -> Contract:
    """Infer a contract.

    Args:
        profile: what the snapshot holds.
        dataset: the data set's name.
        version: the snapshot's version.
        target: the column to predict, which is never an identifier.
    """
    columns = {name: _rule(column, profile.rows, name == target) for name, column in profile.columns.items()}
    bounds = RowBounds(min=max(1, int(profile.rows * FEWEST_ROWS)))
    return Contract(dataset=dataset, inferred_from=version, rows=bounds, columns=columns)


def is_identifier(column: ColumnProfile, rows: int) -> bool:
    """Whether a column names the row: only different texts without spaces, or numbers in a column called an id."""
    if not column.unique or column.missing or rows < ENOUGH_ROWS:
        return False
    if column.type == "string":
        return column.spaced <= rows * 0.1
    return column.type == "integer" and _called_id(column.name)


def _called_id(name: str) -> bool:
    return bool(_NAMED_ID.search(name) or _CAMEL_ID.search(name) or _UNNAMED.fullmatch(name))


def _rule(column: ColumnProfile, rows: int, is_target: bool) -> ColumnRule:
    if column.missing == rows:
        return ColumnRule(type=column.type, empty=True)
    identifier = not is_target and is_identifier(column, rows)
    low, high = (None, None) if identifier else _range(column)
    return ColumnRule(
        type=column.type,
        nullable=column.missing > 0,
        identifier=identifier,
        unique=identifier,
        min=low,
        max=high,
        allowed=_allowed(column, rows, is_target),
    )


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
