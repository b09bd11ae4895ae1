"""The tables beside the snapshot, from which windows and joins are made."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.features import parsing
from components.features.engines import Engine
from components.features.history import Events
from components.features.schema import InputType
from components.features.spec import FeatureSpec

if TYPE_CHECKING:
    import ibis.expr.types as ir


def opened(engine: Engine, spec: FeatureSpec, given: Mapping[str, Any], folder: Path) -> dict[str, Events]:
    """Fetch the tables that a spec uses, at the version that was pinned, and open them.

    Args:
        engine: where to open them.
        spec: says which and how they belong to the rows.
        given: ``source_uri``, ``read_options`` and ``version`` by name.
        folder: for their copies.

    Raises:
        BadInput: the spec and what is given do not fit, or a table is no longer what was pinned.
        Unreachable: its store does not exist, refuses access or is down.
    """
    from components.ingest.run import run as ingest

    used = {window.table for window in spec.windows.values()} | {join.table for join in spec.joins.values()}
    found: dict[str, Events] = {}
    for name, table in spec.tables.items():
        if name not in given:
            there = ", ".join(given) or "empty"
            raise BadInput(f"feature_spec describes the table {name!r}, and feature_tables ({there}) has none of it.")
        if name not in used:
            continue
        copy = folder / f"table-{len(found)}"
        source = given[name]
        described = ingest(source["source_uri"], source.get("version", ""), source.get("read_options") or {}, copy)
        read = engine.read(f"table_{name}", [copy / part.name for part in described.parts])
        for what, column in [("time", table.time.column), *(("entity", column) for column in table.entity)]:
            if column not in read.columns:
                raise BadInput(
                    f"feature_spec tables.{name} {what} names the column {column!r}, which is not among "
                    f"{', '.join(read.columns[:40])}."
                )
        found[name] = Events(read, columns_of(read), table.time)
    return found


def columns_of(table: "ir.Table") -> "dict[str, ir.Value]":
    """A table's columns as expressions see them, by their stored types; nested ones are left out."""
    return {name: parsing.parse(table[name], kind) for name in table.columns if (kind := _meaning(table[name]))}


def _meaning(value: "ir.Value") -> InputType | None:
    kind = value.type()
    if kind.is_boolean():
        return "boolean"
    if kind.is_numeric():
        return "number"
    if kind.is_timestamp() or kind.is_date():
        return "timestamp"
    return "string" if kind.is_string() else None
