"""What the footers of a snapshot's Parquet files already say exactly, so that nobody has to count it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.ingest.engine import literal

if TYPE_CHECKING:
    import duckdb

_VISIBLE = "!"
"""The first character after the blanks: a column whose least text is not below it has no blank text."""


@dataclass(frozen=True)
class Extremes:
    """A column's least and greatest values.

    Attributes:
        low: least number; None where there is none, or values may be infinite or no numbers (the footer lacks them).
        high: greatest number.
        earliest: least time.
        latest: greatest time.
        blank: whether a text may be blank.
    """

    low: float | None = None
    high: float | None = None
    earliest: datetime | None = None
    latest: datetime | None = None
    blank: bool = True


def read(connection: "duckdb.DuckDBPyConnection", parts: Sequence[Path]) -> dict[str, Extremes]:
    """The extremes of the columns of which every row group has them."""
    files = ", ".join(literal(part) for part in parts)
    stamps = {"earliest": "min", "latest": "max"}
    times = ", ".join(
        f"{how}(try_cast(stats_{how}_value AS TIMESTAMPTZ) AT TIME ZONE 'UTC') AS {name}"
        for name, how in stamps.items()
    )
    rows = connection.execute(
        "SELECT path_in_schema, min(try_cast(stats_min_value AS DOUBLE)), max(try_cast(stats_max_value AS DOUBLE)), "
        f"{times}, coalesce(min(stats_min_value) < {literal(_VISIBLE)}, true) "
        f"FROM parquet_metadata([{files}]) WHERE stats_null_count IS NULL OR stats_null_count < num_values "
        "GROUP BY path_in_schema HAVING count(*) = count(stats_min_value) AND count(*) = count(stats_max_value) "
        "AND count(DISTINCT (file_name, row_group_id)) = count(*)"
    ).fetchall()
    return {name: Extremes(low, high, early, late, blank) for name, low, high, early, late, blank in rows}
