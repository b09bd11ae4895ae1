"""Versions as a person sees them in the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.ingest.catalog import Entry
from pipelines.data.model import ColumnChange, Diff, Profile
from pipelines.data.report import number

_FILES, _COLUMNS = 20, 30


def listed(console: Console, entries: Sequence[Entry]) -> None:
    """One line per version, the newest first."""
    table = Table(box=None, pad_edge=False)
    for name in ("data set", "version", "ingested", "rows", "columns", "size", "source"):
        table.add_column(name, no_wrap=name != "source", overflow="fold")
    for one in entries:
        made = one.snapshot
        table.add_row(
            escape(one.dataset),
            one.version[:12],
            f"{one.ingested.astimezone():%Y-%m-%d %H:%M}",
            f"{made.rows:,}",
            str(len(made.columns)),
            size(made.bytes),
            escape(made.source_uri),
        )
    console.print(table if entries else "No versions are listed yet; `sluiceway data ingest` or a run makes one.")


def shown(console: Console, entry: Entry, models: Sequence[dict[str, Any]] | None) -> None:
    """Everything about one version; ``models`` is None where MLflow could not be asked."""
    made = entry.snapshot
    console.print(f"[bold]{escape(entry.dataset)}@{entry.version}[/]", soft_wrap=True)
    facts = {
        "source": made.source_uri,
        "options": ", ".join(f"{name}={value}" for name, value in made.options.items()) or "none",
        "rows": f"{made.rows:,} in {len(made.columns)} columns, {size(made.bytes)}",
        "ingested": f"{entry.ingested.astimezone():%Y-%m-%d %H:%M}, first {entry.created.astimezone():%Y-%m-%d %H:%M}",
        "bytes": f"{entry.remote}, as {entry.directory}",
        "models": "MLflow cannot be asked" if models is None else "; ".join(map(_model, models)) or "none registered",
    }
    for name, value in facts.items():
        console.print(f"  {name:9} {escape(value)}", highlight=False, soft_wrap=True)
    files = Table("file", "digest", "size", "generation", box=None, pad_edge=False)
    for file in made.files[:_FILES]:
        files.add_row(escape(file.name), file.digest[:26], size(file.bytes), escape(file.generation))
    _print(console, files, len(made.files) - _FILES, "files")
    parts = Table("part", "md5", "rows", "size", box=None, pad_edge=False)
    for part in made.parts[:_FILES]:
        parts.add_row(part.name, part.md5, f"{part.rows:,}", size(part.bytes))
    _print(console, parts, len(made.parts) - _FILES, "parts")
    columns = Table("column", "type", "missing", box=None, pad_edge=False)
    for column in made.columns:
        columns.add_row(escape(column.name), column.type, f"{column.nulls:,}" if column.nulls else "")
    console.print()
    console.print(columns)


def compared(console: Console, diff: Diff, most: int = _COLUMNS) -> None:
    """Rows, schema, and the most changed columns."""
    console.print(f"[bold]{escape(diff.dataset)}[/]: {diff.before.version[:12]} → {diff.after.version[:12]}")
    console.print(f"  rows     {diff.before.rows:,} → {diff.after.rows:,}{_by_key(diff)}", highlight=False)
    if diff.identical:
        console.print("  content  the same bytes")
    for name, (old, new) in diff.options.items():
        console.print(f"  option   {escape(f'{name}: {old} → {new}')}", highlight=False, soft_wrap=True)
    for name in diff.added:
        console.print(f"  [green]+ {escape(name)}[/]", highlight=False)
    for name in diff.removed:
        console.print(f"  [red]- {escape(name)}[/]", highlight=False)
    for other in diff.retyped:
        console.print(f"  [red]~ {escape(other.name)}: {other.before} → {other.after}[/]", highlight=False)
    changed = [one for one in diff.columns if one.distance is None or one.distance > 0]
    if not changed:
        console.print("  No column's distribution differs.")
        return
    table = Table("column", "distance", "PSI", "missing", "distinct", "median or top", box=None, pad_edge=False)
    for one in changed[:most]:
        old, new = one.before, one.after
        colour = "red" if (one.distance or 0) >= 0.3 else "yellow" if (one.distance or 0) >= 0.1 else "default"
        table.add_row(
            escape(one.name),
            f"[{colour}]{number(one.distance)}[/]",
            number(one.psi),
            _change(f"{old.missing:.2%}", f"{new.missing:.2%}"),
            _change(f"{old.distinct:,}", f"{new.distinct:,}"),
            escape(_typical(one)),
        )
    console.print()
    console.print(table)
    if len(changed) > most:
        console.print(f"… and {len(changed) - most} more columns (--json or --html has all)")
    console.print("[dim]distance: Jensen-Shannon, 0 (equal) to 1 (disjoint); distinct and medians are estimates[/]")


def size(count: int) -> str:
    """Bytes for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def _by_key(diff: Diff) -> str:
    if diff.keyed is None:
        return ""
    by = escape(", ".join(diff.keyed.key))
    repeated = f"; {diff.keyed.repeated:,} keys are repeated" if diff.keyed.repeated else ""
    told = f"{diff.keyed.added:,} added, {diff.keyed.removed:,} removed, {diff.keyed.changed:,} changed"
    return f"; by {by}: {told}{repeated}"


def _typical(change: ColumnChange) -> str:
    if change.kind == "category":
        most = sorted(change.bins, key=lambda one: -abs(one.after - one.before))[:1]
        return "".join(f"{one.label}: {one.before:.1%} → {one.after:.1%}" for one in most)
    return _change(_median(change.before), _median(change.after))


def _median(profile: Profile) -> str:
    if not profile.quantiles:
        return "-"
    median = profile.quantiles[2]
    return median if isinstance(median, str) else number(median)


def _change(old: str, new: str) -> str:
    return old if old == new else f"{old} → {new}"


def _model(one: dict[str, Any]) -> str:
    aliases = f" ({', '.join(one['aliases'])})" if one["aliases"] else ""
    return f"{one['model']} version {one['version']}{aliases}"


def _print(console: Console, table: Table, more: int, what: str) -> None:
    console.print()
    console.print(table)
    if more > 0:
        console.print(f"… and {more} more {what} (--json has all)")
