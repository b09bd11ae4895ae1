"""Counting what the columns of a snapshot hold, in few scans of those values that nothing else tells.

The footers of the Parquet files know nulls, least and greatest values; a glance tells which columns have few different
values, and which so many that their number is only worth an estimate.
"""

import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from components.ingest.engine import WIDE
from components.validate.profile import LISTED, ColumnProfile, Profile
from components.validate.reader import SOURCE, Reader
from components.validate.unique import is_unique

if TYPE_CHECKING:
    import duckdb

_Key = TypeVar("_Key")

_COUNTED = 2_000
"""Up to so many different values in a glance, all of them are counted exactly, which is cheap where they repeat."""

_NEARLY_ALL = 0.5
"""From this share of different values in a glance on, their number is estimated from it."""

_AT_ONCE = 2_000
"""Aggregates in one query, or columns in one that unpivots."""

_DISTINCT = 12
"""Of these, so many may look for different values: each holds megabytes, in each thread."""

_WIDE = 100
"""In a table of more columns numbers of different values are estimated."""

_MANY = 500_000
"""From so many rows on, rules over texts of which there are few are held against these instead of the rows."""


@dataclass(frozen=True)
class Counted(Generic[_Key]):
    """What a scan found.

    Attributes:
        profile: what the columns hold.
        also: the further counts that were asked for.
        texts: all different texts of columns that have few, in a large table.
    """

    profile: Profile
    also: dict[_Key, int]
    texts: dict[str, list[str]]


def lists_texts(reader: Reader, name: str) -> bool:
    """Whether a scan lists the different texts of a column, in a table of many rows."""
    seen = reader.known.seen[name]
    few = seen.distinct <= _COUNTED and seen.distinct < _NEARLY_ALL * seen.present
    return reader.types[name] == "string" and few and reader.known.rows >= _MANY


def profile(
    connection: "duckdb.DuckDBPyConnection",
    reader: Reader,
    exact: Set[str] = frozenset(),
    unique: Set[str] = frozenset(),
    lengths: Set[str] = frozenset(),
    also: Mapping[_Key, str] | None = None,
) -> Counted[_Key]:
    """Count what the columns hold.

    Args:
        connection: where the reader's view is.
        reader: the snapshot, and how its columns are to be read.
        exact: columns whose different values are counted, if not exactly, from all rows: the target for one.
        unique: columns that are looked at for repeated values.
        lengths: texts whose longest is wanted.
        also: SQL of further counts for the same scan.
    """
    also = also or {}
    aggregates: dict[tuple[str | int, str], str] = {(index, ""): text for index, text in enumerate(also.values())}
    for name in reader.types:
        wanted = _wanted(reader, name, name in exact)
        if name in lengths:
            wanted["longest"] = f"max(length({reader.value(name)}))"
        aggregates.update({(name, key): text for key, text in wanted.items()})
    found: dict[str | int, dict[str, Any]] = {}
    if len(reader.types) > WIDE:
        listed = [str(owner) for owner, key in aggregates if key == "values"]
        for name, values in _listed(connection, reader, listed).items():
            del aggregates[name, "values"]
            found[name] = {"values": values}
    for (owner, key), value in scan(connection, aggregates).items():
        found.setdefault(owner, {})[key] = value
    columns = {name: _column(reader, name, found.get(name, {})) for name in reader.types}
    for name in unique:
        columns[name] = _checked_for_repeats(connection, reader, columns[name])
    counts = {name: int(found[index][""] or 0) for index, name in enumerate(also)}
    texts = {name: found[name]["values"] or [] for name in columns if lists_texts(reader, name)}
    return Counted(Profile(rows=reader.known.rows, columns=columns), counts, texts)


def scan(connection: "duckdb.DuckDBPyConnection", aggregates: Mapping[_Key, str]) -> dict[_Key, Any]:
    """Compute aggregates, given as SQL, in as few scans of the snapshot as is fast.

    Those over different values have scans of their own: beside others, DuckDB takes ten times as long for them from
    some tens of millions of rows on.
    """
    found: dict[_Key, Any] = {}
    distinct = _batched([key for key, text in aggregates.items() if "DISTINCT" in text], _DISTINCT)
    plain = _batched([key for key, text in aggregates.items() if "DISTINCT" not in text], _AT_ONCE)
    for batch in (*distinct, *plain):
        query = f"SELECT {', '.join(aggregates[key] for key in batch)} FROM {SOURCE}"
        found.update(zip(batch, connection.execute(query).fetchall()[0], strict=True))
    return found


def _listed(connection: "duckdb.DuckDBPyConnection", reader: Reader, names: list[str]) -> dict[str, list[str]]:
    """The different texts of thousands of columns, by one aggregation: one each takes ten times as long."""
    found: dict[str, list[str]] = {name: [] for name in names}
    for batch in _batched(names, _AT_ONCE):
        columns = ", ".join(f"{reader.value(name)} AS c{place}" for place, name in enumerate(batch))
        pairs = f"UNPIVOT (SELECT {columns} FROM {SOURCE}) ON COLUMNS(*) INTO NAME place VALUE text"
        query = f"SELECT place[2:]::INTEGER, text FROM ({pairs}) GROUP BY ALL"
        for place, text in connection.execute(query).fetchall():
            found[batch[place]].append(text)
    return found


def _batched(keys: list[_Key], size: int) -> Iterator[list[_Key]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def _wanted(reader: Reader, name: str, exact: bool) -> dict[str, str]:
    """The aggregates that a column needs, by name."""
    kind, value = reader.types[name], reader.value(name)
    if kind == "nested":
        return {}
    counts = {}
    if name in reader.parsed:
        counts = {"missing": f"count_if({reader.missing(name)})", "readable": f"count({value})"}
    known = reader.extremes(name)
    if kind in ("integer", "number") and known.get("min") is None:
        counts |= {"min": f"min({value})::DOUBLE", "max": f"max({value})::DOUBLE"}
    if kind == "timestamp" and known.get("earliest") is None:
        counts |= {"earliest": f"min({value})::TIMESTAMP", "latest": f"max({value})::TIMESTAMP"}
    seen = reader.known.seen[name]
    repeats = seen.distinct < _NEARLY_ALL * seen.present
    if kind == "string" and (seen.distinct <= LISTED or lists_texts(reader, name)):
        counts["values"] = f"list(DISTINCT {value}) FILTER ({value} IS NOT NULL)"
    elif seen.distinct <= LISTED or (repeats and seen.distinct <= _COUNTED):
        counting = "approx_count_distinct(" if _is_wide(reader) and not exact else "count(DISTINCT "
        counts["distinct"] = f"{counting}{value})"
    elif exact or repeats:
        counts["distinct"] = f"approx_count_distinct({value})"
    return counts


def _is_wide(reader: Reader) -> bool:
    return len(reader.types) > _WIDE


def _column(reader: Reader, name: str, found: Mapping[str, Any]) -> ColumnProfile:
    """A column's profile from its aggregates and from what was known."""
    known, seen = reader.known, reader.known.seen[name]
    missing = found.get("missing", known.nulls[name])
    present = known.rows - missing
    unreadable = present - found.get("readable", present)
    values = found.get("values", ()) or ()
    distinct = len(values) if "values" in found else found.get("distinct")
    if distinct is None:
        distinct = _estimate(seen.present, seen.distinct, present)
    counted = {key: found[key] for key in ("min", "max", "earliest", "latest", "longest") if key in found}
    return ColumnProfile(
        name=name,
        stored=known.stored[name],
        type=reader.types[name],
        missing=missing,
        unreadable=unreadable,
        distinct=min(distinct, present - unreadable),
        values=tuple(sorted(values)) if "values" in found and distinct <= LISTED else None,
        spaced=round(seen.spaced / seen.present * present) if seen.present else 0,
        **(reader.extremes(name) | counted),
    )


def _estimate(looked_at: int, different: int, present: int) -> int:
    """How many different values there are, when so many were among those looked at.

    The number for which as many were to be expected if all are equally frequent: D (1 - (1 - 1/D)^n) = d, solved by
    halving. All may differ where all looked at did.
    """
    if different >= looked_at:
        return present
    low, high = float(different), float(max(present, different))
    for _ in range(60):
        middle = (low + high) / 2
        expected = -middle * math.expm1(looked_at * math.log1p(-1 / middle)) if middle > 1 else 1.0
        low, high = (middle, high) if expected < different else (low, middle)
    return round(high)


def _checked_for_repeats(
    connection: "duckdb.DuckDBPyConnection", reader: Reader, column: ColumnProfile
) -> ColumnProfile:
    """Whether no value occurs twice, which also says exactly how many there are."""
    present = reader.known.rows - column.missing - column.unreadable
    if present < 2 or not is_unique(connection, SOURCE, [reader.value(column.name)]):
        return column
    return column.model_copy(update={"unique": True, "distinct": present})
