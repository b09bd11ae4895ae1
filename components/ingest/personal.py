"""Personal data in a source: noticed before it is copied, and then reported, dropped, hashed or refused.

It is looked for in the first rows, so that copying stays one pass; :func:`missed` looks again, across the copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.ingest import keyed_hash
from components.ingest.engine import identifier, literal
from components.ingest.options import PersonalPolicy, ReadOptions
from components.ingest.personal_kinds import KINDS, Kind, spelled

if TYPE_CHECKING:
    import duckdb

_ROWS = 1_000
"""Rows that are looked at, in each place."""

_CELLS = 200_000
"""Values that are looked at in all: of ten thousand columns, the first rows alone."""

_FEWEST_ROWS = 50

_FIRST = 100
"""A kind that none of so many values is, is not looked for in the others (but for e-mails, which hide in texts)."""

_PLACES = 16
"""Places of a snapshot that are looked into afterwards."""


@dataclass(frozen=True)
class Finding:
    """Personal data in a column: which kind, in which share of the values looked at, and what is done about it."""

    column: str
    kind: str
    share: float
    policy: PersonalPolicy


@dataclass(frozen=True)
class Plan:
    """How to copy a source.

    Attributes:
        query: the SELECT to run, on the same connection: columns dropped, or replaced by their hash.
        found: what was found; of columns that are hashed or dropped because the options name them, too.
    """

    query: str
    found: tuple[Finding, ...]


def plan(connection: "duckdb.DuckDBPyConnection", query: str, options: ReadOptions) -> Plan:
    """Look for personal data in the first rows of a query, and do with it as the options say.

    Raises:
        BadInput: there is personal data and it is to be refused; a column that the options name does not exist; or
            something is to be hashed and there is no key.
    """
    columns = _columns(connection, query)
    _check_named(options, list(columns))
    found = tuple(_with_policy(detect(connection, query, columns), options, list(columns)))
    _refuse([finding for finding in found if finding.policy == "refuse"])
    if sum(finding.policy == "drop" for finding in found) == len(columns):
        raise BadInput("read_options personal_data drops every column; keep or hash those that are needed.")
    return Plan(applied(connection, query, found), found)


def applied(connection: "duckdb.DuckDBPyConnection", query: str, found: Sequence[Finding]) -> str:
    """A query of the same columns, with these dropped or replaced by their hash as they were in another one."""
    dropped = [finding.column for finding in found if finding.policy == "drop"]
    hashed = [finding.column for finding in found if finding.policy == "hash"]
    if hashed:
        keyed_hash.prepare(connection)
    return _rewritten(query, dropped, hashed)


def missed(connection: "duckdb.DuckDBPyConnection", parts: Sequence[Path], done: Plan, options: ReadOptions) -> None:
    """Look for personal data across the copied parts, of which :func:`plan` saw the first rows only.

    Raises:
        BadInput: some is to be dropped, hashed or refused and was not; the message says which options do so.
    """
    policy = options.personal_data.policy
    if policy in ("report", "keep"):
        return
    known = {finding.column for finding in done.found} | set(options.personal_data.columns)
    query = across(connection, parts)
    late = [one for one in detect(connection, query, _columns(connection, query)) if one[0] not in known]
    if late:
        shown = ", ".join(f"{name} ({kind})" for name, kind, _ in late)
        names = ", ".join(f'"{name}": "{"hash" if policy == "refuse" else policy}"' for name, _, _ in late)
        raise BadInput(
            f"Personal data begins only after the first rows in {shown}; say what to do with it by read_options "
            f'{{"personal_data": {{"policy": "{policy}", "columns": {{{names}}}}}}} (or "keep").'
        )


def across(connection: "duckdb.DuckDBPyConnection", parts: Sequence[Path], rows: int = _ROWS) -> str:
    """A query for about so many rows of Parquet files, from places all over them; DuckDB reads few others.

    The same files give the same rows, in order.
    """
    chosen = parts[:: -(-len(parts) // _PLACES)]
    places = -(-_PLACES // len(chosen))
    each = max(1, rows // (len(chosen) * places))
    selects = []
    for part in chosen:
        source = f"read_parquet({literal(part)}, file_row_number = true, hive_partitioning = false)"
        ((total,),) = connection.execute(f"SELECT count(*) FROM {source}").fetchall()
        starts = range(0, total, max(each, -(-total // places)))
        ranges = " OR ".join(f"file_row_number BETWEEN {start} AND {start + each - 1}" for start in starts)
        selects.append(f"SELECT * EXCLUDE (file_row_number) FROM {source} WHERE {ranges or 'true'}")
    return " UNION ALL ".join(selects)


def detect(
    connection: "duckdb.DuckDBPyConnection", query: str, columns: dict[str, str]
) -> list[tuple[str, str, float]]:
    """Columns that hold personal data in a query's first rows: name, kind, and which share of the values are of it."""
    looked = [name for name, kind in columns.items() if _may_hold(kind)]
    if not looked:
        return []
    rows = min(_ROWS, max(_FEWEST_ROWS, _CELLS // len(looked)))
    texts = ", ".join(f"{identifier(name)}::VARCHAR" for name in looked)
    sample = connection.execute(f"SELECT {texts} FROM ({query}) LIMIT {rows}").fetchall()
    found = []
    for name, values in zip(looked, zip(*sample, strict=True), strict=False):
        counts: dict[str, int] = {}
        for value in values:
            if value is not None and (text := value.strip()):
                counts[text] = counts.get(text, 0) + 1
        if counts and (kind := _kind(name, counts)):
            found.append((name, *kind))
    return found


def _kind(name: str, counts: dict[str, int]) -> tuple[str, float] | None:
    """The first kind that enough of a column's values are; ``counts`` says how often each value occurs."""
    called, total = spelled(name), sum(counts.values())
    for kind in KINDS:
        hinted = kind.called.search(called) is not None
        hits = _hits(kind, counts, hinted)
        share = sum(counts[text] for text in hits) / total
        least = min(kind.least, len(counts)) if hinted else kind.least
        if len(hits) >= least and share >= (kind.hinted if hinted else kind.share):
            return kind.name, round(share, 4)
    return None


def _hits(kind: Kind, counts: dict[str, int], hinted: bool) -> list[str]:
    is_one = kind.loose if hinted and kind.loose else kind.is_one
    texts = list(counts)
    hits = [text for text in texts[:_FIRST] if is_one(text)]
    if hits or kind.share < 1 / _FIRST * 2:
        hits += [text for text in texts[_FIRST:] if is_one(text)]
    return hits


def _may_hold(kind: str) -> bool:
    """Texts, whole numbers, and whatever holds texts inside; no times, truth values or fractions."""
    return not kind.startswith(("TIME", "DATE", "BOOL", "DOUBLE", "FLOAT", "INTERVAL", "BLOB", "UUID", "BIT"))


def _columns(connection: "duckdb.DuckDBPyConnection", query: str) -> dict[str, str]:
    return {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {query}").fetchall()}


def _with_policy(found: list[tuple[str, str, float]], options: ReadOptions, columns: list[str]) -> list[Finding]:
    asked = options.personal_data
    findings = {name: Finding(name, kind, share, asked.columns.get(name, asked.policy)) for name, kind, share in found}
    for name, policy in asked.columns.items():
        if name not in findings and policy in ("drop", "hash"):
            findings[name] = Finding(name, "named in read_options", 1.0, policy)
    return [findings[name] for name in columns if name in findings]


def _check_named(options: ReadOptions, columns: list[str]) -> None:
    for name in options.personal_data.columns:
        if name not in columns:
            shown = ", ".join(columns[:40])
            raise BadInput(f"read_options personal_data names the column {name!r}, which is not among {shown}.")


def _refuse(refused: list[Finding]) -> None:
    if refused:
        shown = ", ".join(f"{one.column} ({one.kind}, {one.share:.0%} of the values looked at)" for one in refused)
        raise BadInput(
            f"The source holds personal data, which read_options refuses: {shown}; leave the columns out at the "
            'source, or set personal_data columns to "drop", "hash" or "keep".'
        )


def _rewritten(query: str, dropped: list[str], hashed: list[str]) -> str:
    if not dropped and not hashed:
        return query
    exclude = f" EXCLUDE ({', '.join(identifier(name) for name in dropped)})" if dropped else ""
    hashes = ", ".join(f"{keyed_hash.expression(identifier(name))} AS {identifier(name)}" for name in hashed)
    replace = f" REPLACE ({hashes})" if hashed else ""
    return f"SELECT *{exclude}{replace} FROM ({query})"
