"""Source files as one DuckDB query."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from components.errors import BadInput
from components.ingest.complaints import UNFIT, Fetched, sentences
from components.ingest.engine import identifier, literal
from components.ingest.options import Format, ReadOptions, compression
from components.ingest.text import Dialect, check_names, dialect, head

_SNIFFED = 4
"""How many files are looked at for column types at first; all of them when a value does not fit."""

_CANDIDATES = "'BIGINT', 'HUGEINT', 'DOUBLE', 'DATE', 'TIMESTAMP', 'TIMESTAMP WITH TIME ZONE', 'VARCHAR'"
"""Without BOOLEAN, as which DuckDB would take Yes and No: labels must come through as they were written. With HUGEINT,
so that numbers too long for BIGINT are noticed (and kept as text) and not rounded to a DOUBLE."""


@dataclass(frozen=True)
class _Sniffed:
    types: dict[str, str]
    date_format: str
    timestamp_format: str


class Reader:
    """Files of one format, checked and readable as one query."""

    def __init__(self, files: Sequence[Fetched], kind: Format, options: ReadOptions) -> None:
        """Check what can be checked without reading everything.

        Raises:
            BadInput: a file is empty, binary or has other columns than the first.
        """
        self._files = files
        self._kind = kind
        self._options = options
        self._dialect: Dialect | None = None
        if kind in ("csv", "tsv"):
            self._dialect = self._one_dialect()
        elif kind == "jsonl":
            for file in files:
                _check_json(file, options)

    def query(self, connection: duckdb.DuckDBPyConnection, thorough: bool = False) -> str:
        """The SELECT over all files; ``thorough`` looks at every value to find the column types."""
        if self._dialect is not None:
            return self._delimited(connection, self._dialect, thorough)
        if self._kind == "parquet":
            self._check_parquet(connection)
            return f"SELECT {self._star()} FROM read_parquet({self._list()}, {self._partitioned()})"
        size = -1 if thorough else 20480
        return (
            f"SELECT {self._star()} FROM read_json({self._list()}, format = 'newline_delimited', "
            f"sample_size = {size}, {self._partitioned()})"
        )

    def _delimited(self, connection: duckdb.DuckDBPyConnection, found: Dialect, thorough: bool) -> str:
        sniffed = self._types(connection, found, thorough)
        exact = {} if thorough else _exact_casts(sniffed, self._options)
        columns = ", ".join(
            f"{literal(name)}: {literal('VARCHAR' if name in exact else kind)}" for name, kind in sniffed.types.items()
        )
        replaced = ", ".join(f"{cast} AS {identifier(name)}" for name, cast in exact.items())
        formats = ""
        if sniffed.date_format:
            formats += f", dateformat = {literal(sniffed.date_format)}"
        if sniffed.timestamp_format:
            formats += f", timestampformat = {literal(sniffed.timestamp_format)}"
        return (
            f"SELECT {self._star()} {f'REPLACE ({replaced})' if replaced else ''} "
            f"FROM read_csv({self._list()}, auto_detect = false, columns = {{{columns}}}, "
            f"{self._csv_options(found)}{formats}, {self._partitioned()})"
        )

    def _csv_options(self, found: Dialect) -> str:
        options = self._options
        nulls = ", ".join(literal(text) for text in ("", *options.null_values))
        return (
            f"delim = {literal(found.delimiter)}, quote = {literal(options.quote)}, "
            f"escape = {literal(options.escape)}, header = {str(options.header).lower()}, skip = {options.skip}, "
            f"nullstr = [{nulls}], encoding = {literal(options.encoding)}, "
            f"compression = {literal(compression(self._files[0].name))}"
        )

    def _types(self, connection: duckdb.DuckDBPyConnection, found: Dialect, thorough: bool) -> _Sniffed:
        looked_at = self._files if thorough else self._files[:_SNIFFED]
        seen = [self._sniff(connection, file, found, thorough) for file in looked_at]
        types = {name: _common([one.types[name] for one in seen]) for name in found.names}
        dates = {one.date_format for one in seen if one.date_format}
        stamps = {one.timestamp_format for one in seen if one.timestamp_format}
        if len(dates) > 1 or len(stamps) > 1:  # written differently in different files: kept as text
            types = {
                name: "VARCHAR" if kind.startswith(("DATE", "TIMESTAMP")) else kind for name, kind in types.items()
            }
        types.update(self._chosen_types(found))
        options = self._options
        return _Sniffed(
            types,
            options.date_format or (dates.pop() if len(dates) == 1 else ""),
            options.timestamp_format or (stamps.pop() if len(stamps) == 1 else ""),
        )

    def _chosen_types(self, found: Dialect) -> dict[str, str]:
        unknown = [name for name in self._options.types if name not in found.names]
        if unknown:
            raise BadInput(
                f"read_options types names the column {unknown[0]!r}, which {self._files[0].name} does not have; "
                f"its columns are {', '.join(found.names)}."
            )
        return self._options.types

    def _sniff(self, connection: duckdb.DuckDBPyConnection, file: Fetched, found: Dialect, thorough: bool) -> _Sniffed:
        names = ", ".join(literal(name) for name in found.names)
        size = -1 if thorough else 20480
        query = (
            "SELECT Columns, DateFormat, TimestampFormat FROM "
            f"sniff_csv({literal(file.path)}, names = [{names}], sample_size = {size}, strict_mode = false, "
            f"null_padding = true, auto_type_candidates = [{_CANDIDATES}], {self._csv_options(found)})"
        )
        try:
            ((columns, dates, stamps),) = connection.execute(query).fetchall()
        except duckdb.Error:  # irregular: reading it as text will say in which line
            return _Sniffed(dict.fromkeys(found.names, "VARCHAR"), "", "")
        kinds = ["VARCHAR" if column["type"] == "HUGEINT" else column["type"] for column in columns]
        if len(kinds) != len(found.names):
            return _Sniffed(dict.fromkeys(found.names, "VARCHAR"), "", "")
        return _Sniffed(dict(zip(found.names, kinds, strict=True)), dates or "", stamps or "")

    def _one_dialect(self) -> Dialect:
        first = dialect(self._files[0].path, self._files[0].name, self._options, self._kind)
        for file in self._files[1:]:
            other = dialect(file.path, file.name, self._options, self._kind)
            if other != first:
                raise BadInput(_difference(self._files[0].name, first.names, file.name, other.names))
        return first

    def _check_parquet(self, connection: duckdb.DuckDBPyConnection) -> None:
        first: tuple[str, ...] = ()
        for file in self._files:
            with sentences([file]):
                names = _parquet_names(connection, file.path)
            check_names(names, file.name)
            first = first or names
            if names != first:
                raise BadInput(_difference(self._files[0].name, first, file.name, names))

    def _list(self) -> str:
        return "[" + ", ".join(literal(file.path) for file in self._files) + "]"

    def _keys(self) -> set[str]:
        """Names of partition folders (``year=2026``), relative to the source."""
        return {part.partition("=")[0] for file in self._files for part in file.name.split("/")[:-1] if "=" in part}

    def _partitioned(self) -> str:
        return f"hive_partitioning = {str(bool(self._keys())).lower()}"

    def _star(self) -> str:
        """All columns, without those that DuckDB would make of folders above the source."""
        keys = self._keys()
        above = {part.partition("=")[0] for file in self._files for part in file.path.parts[:-1] if "=" in part} - keys
        if not keys or not above:
            return "*"
        return f"* EXCLUDE ({', '.join(identifier(name) for name in sorted(above))})"


def _exact_casts(sniffed: _Sniffed, options: ReadOptions) -> dict[str, str]:
    """Casts that refuse what DuckDB would silently alter in a column whose type comes from the first rows only.

    Its own casts make 3 of a late 2.5 in a column of whole numbers, and drop the hour of a time among dates and the
    offset of one among times without. The exact ones cost about a fifth of the reading time.
    """
    casts: dict[str, str] = {}
    for name, kind in sniffed.types.items():
        column = identifier(name)
        fits = ""
        if name in options.types:
            continue
        if kind == "BIGINT":
            fits = f"{column}::BIGINT::VARCHAR = {column}"
        elif kind == "DATE" and not sniffed.date_format:
            fits = f"{column}::DATE::TIMESTAMP = {column}::TIMESTAMP AND length({column}) <= 10"
        elif kind == "TIMESTAMP" and not sniffed.timestamp_format:
            fits = f"{column}::TIMESTAMP = {column}::TIMESTAMPTZ::TIMESTAMP"
        if fits:
            casts[name] = (
                f"CASE WHEN {column} IS NULL THEN NULL WHEN {fits} THEN {column}::{kind} "
                f"ELSE error({literal(UNFIT)}) END"
            )
    return casts


def _parquet_names(connection: duckdb.DuckDBPyConnection, path: Path) -> tuple[str, ...]:
    """Top-level column names as they are in the file (DuckDB would rename duplicates)."""
    rows = connection.execute(f"SELECT name, coalesce(num_children, 0) FROM parquet_schema({literal(path)})").fetchall()
    names: list[str] = []
    inside = 0
    for name, children in rows[1:]:
        if inside == 0:
            names.append(name)
            inside = children
        else:
            inside += children - 1
    return tuple(names)


def _common(kinds: list[str]) -> str:
    """The narrowest type that holds the values of several files."""
    distinct = set(kinds)
    if len(distinct) == 1:
        return distinct.pop()
    if distinct <= {"BIGINT", "DOUBLE"}:
        return "DOUBLE"
    if distinct <= {"DATE", "TIMESTAMP"}:
        return "TIMESTAMP"
    return "VARCHAR"


def _check_json(file: Fetched, options: ReadOptions) -> None:
    line = next((line for line in head(file.path, file.name, options).splitlines() if line.strip()), "")
    try:
        pairs = json.loads(line, object_pairs_hook=tuple)
    except json.JSONDecodeError as error:
        if line.lstrip().startswith(("[", "{")):
            raise BadInput(
                f"{file.name}, line 1: not one JSON object per line ({error.msg}); write the file as JSON lines."
            ) from error
        raise BadInput(f"{file.name}, line 1: not JSON ({error.msg}); each line must be one JSON object.") from error
    if not isinstance(pairs, tuple) or not all(isinstance(pair, tuple) for pair in pairs):
        raise BadInput(f'{file.name}, line 1: not a JSON object; each line must be one, as in {{"a": 1}}.')
    check_names(tuple(name for name, _ in pairs), file.name)


def _difference(first: str, names: tuple[str, ...], other: str, others: tuple[str, ...]) -> str:
    missing = [name for name in names if name not in others]
    added = [name for name in others if name not in names]
    what = []
    if missing:
        what.append(f"lacks {', '.join(missing[:5])}")
    if added:
        what.append(f"has {', '.join(added[:5])} in addition")
    if not what:
        what.append("has them in another order or with another delimiter")
    return f"{other} and {first} do not have the same columns: {other} {' and '.join(what)}; make them alike."
