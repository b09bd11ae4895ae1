"""Compares two versions of a data set in DuckDB: a few scans of each, in bounded memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.ingest.catalog import Entry
from components.ingest.engine import engine, identifier, literal
from pipelines.data.columns import changes
from pipelines.data.model import Diff, Keyed, Retyped, Side

if TYPE_CHECKING:
    import duckdb

BEFORE, AFTER = "before", "after"


def compare(
    before: Entry, after: Entry, paths: tuple[Sequence[Path], Sequence[Path]], key: Sequence[str], spill: Path
) -> Diff:
    """Say what differs between two versions.

    Args:
        before: the earlier version.
        after: the later one.
        paths: the Parquet parts of both.
        key: columns that name a row; empty counts rows only.
        spill: folder for what does not fit in memory.

    Raises:
        BadInput: a key column is not in both versions.
    """
    old, new = ({column.name: column.type for column in entry.snapshot.columns} for entry in (before, after))
    common = [name for name in new if name in old]
    for name in key:
        if name not in common:
            raise BadInput(f"The key column {name!r} is not in both versions; choose of {', '.join(common[:20])}.")
    with engine(spill) as connection:
        for view, files in zip((BEFORE, AFTER), paths, strict=True):
            names = ", ".join(literal(path) for path in files)
            connection.execute(
                f"CREATE VIEW {view} AS FROM read_parquet([{names}], hive_partitioning = false, union_by_name = true)"
            )
        same = [name for name in common if old[name] == new[name]]
        return Diff(
            dataset=after.dataset,
            before=_side(before),
            after=_side(after),
            identical=[part.md5 for part in before.snapshot.parts] == [part.md5 for part in after.snapshot.parts],
            options=_options(before, after),
            keyed=_keyed(connection, key, same) if key else None,
            added=tuple(name for name in new if name not in old),
            removed=tuple(name for name in old if name not in new),
            retyped=tuple(Retyped(name=name, before=old[name], after=new[name]) for name in common if name not in same),
            columns=changes(connection, {name: (old[name], new[name]) for name in common}, _rows(before, after)),
        )


def _side(entry: Entry) -> Side:
    made = entry.snapshot
    return Side(version=made.version, rows=made.rows, bytes=made.bytes, source_uri=made.source_uri)


def _rows(before: Entry, after: Entry) -> tuple[int, int]:
    return before.snapshot.rows, after.snapshot.rows


def _options(before: Entry, after: Entry) -> dict[str, tuple[object, object]]:
    old, new = before.snapshot.options, after.snapshot.options
    return {name: (old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)}


def _keyed(connection: "duckdb.DuckDBPyConnection", key: Sequence[str], same: Sequence[str]) -> Keyed:
    """Match rows by key and compare a 64-bit hash of what both have; missing keys match each other."""
    names = ", ".join(identifier(name) for name in key)
    values = ", ".join(identifier(name) for name in same if name not in key) or "0"
    sides = (
        f"SELECT {names}, sum(hash({values})::HUGEINT) AS __hash, count(*) AS __count, true AS __there "
        f"FROM {view} GROUP BY ALL"
        for view in (BEFORE, AFTER)
    )
    left, right = sides
    on = " AND ".join(f"a.{identifier(name)} IS NOT DISTINCT FROM b.{identifier(name)}" for name in key)
    (found,) = connection.execute(
        "SELECT count(*) FILTER (a.__there IS NULL), count(*) FILTER (b.__there IS NULL), "
        "count(*) FILTER (a.__hash <> b.__hash OR a.__count <> b.__count), "
        "count(*) FILTER (a.__count > 1 OR b.__count > 1) "
        f"FROM ({left}) a FULL JOIN ({right}) b ON {on}"
    ).fetchall()
    added, removed, changed, repeated = (int(count) for count in found)
    return Keyed(key=tuple(key), added=added, removed=removed, changed=changed, repeated=repeated)
