"""Source files as DuckDB queries: what columns they have, and the SELECT that reads them."""

from collections.abc import Sequence
from itertools import groupby

import duckdb

from components.errors import BadInput
from components.ingest import jsonlines, parquet, partitions
from components.ingest.complaints import Fetched, sentences
from components.ingest.engine import identifier, literal, mapping
from components.ingest.exact import casts, tolerant
from components.ingest.form import EMPTY, Form, Unlike, join
from components.ingest.options import Format, ReadOptions, compression
from components.ingest.text import check_names, dialect

_AT_ONCE = 1_000
"""Columns that are looked into by one query."""

_SAMPLE = 20480
"""Rows at the start of a file that are looked at for column types."""

_CANDIDATES = "'BIGINT', 'HUGEINT', 'DOUBLE', 'DATE', 'TIMESTAMP', 'TIMESTAMP WITH TIME ZONE', 'VARCHAR'"
"""Without BOOLEAN, as which DuckDB would take Yes and No: labels must come through as they were written. With HUGEINT,
so that numbers too long for BIGINT are noticed (and kept as text) and not rounded to a DOUBLE."""

_ISO = ("", "%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%f")
"""Patterns that need not be said: casts read them."""


class Reader:
    """Reads the files of one source, which are of one format."""

    def __init__(self, kind: Format, options: ReadOptions, names: Sequence[str]) -> None:
        """Find the columns that folders such as ``year=2026`` make.

        Args:
            kind: of all files.
            options: how to read them.
            names: of all files, relative to the source.

        Raises:
            BadInput: folders do not name the same columns everywhere.
        """
        self.kind = kind
        self._options = options
        self.partitions = partitions.types(names, options)
        self._own: dict[str, Form] = {}

    def form(self, connection: duckdb.DuckDBPyConnection, file: Fetched, *, thorough: bool = False) -> Form:
        """The columns of a file.

        Args:
            connection: to look with.
            file: what to look at.
            thorough: whether to look at every value; else, of delimited text, at the first ones.

        Raises:
            components.ingest.text.Empty: it has no content.
            BadInput: it is damaged, or no table.
        """
        if self.kind in ("csv", "tsv"):
            found = self._delimited(connection, file, thorough)
        elif self.kind == "jsonl":
            jsonlines.check(file, self._options)
            with sentences([file]):
                found = jsonlines.form(connection, file)
        else:
            with sentences([file]):
                found = parquet.form(connection, file)
            self._own[file.name] = found
        check_names(found.names, file.name)
        partitions.check(self.partitions, found.names, file.name)
        return found

    def together(self, first: Form, first_name: str, other: Form, other_name: str) -> Form:
        """The columns of files together, the earlier ones first.

        Raises:
            BadInput: they have other columns, or types that nothing holds.
        """
        names = (first.names, other.names)
        if self.kind in ("parquet", "avro"):  # found by name, whatever their order
            names = (tuple(sorted(first.names)), tuple(sorted(other.names)))
        if self.kind != "jsonl" and (names[0] != names[1] or first.delimiter != other.delimiter):
            raise BadInput(_difference(first_name, first.names, other_name, other.names))
        try:
            return join(self.kind, first, other)
        except Unlike as error:
            raise BadInput(
                f"{other_name} has {error.other} in column {error.column!r}, where the files before it, from "
                f"{first_name} on, have {error.one}; make them alike."
            ) from error

    def query(self, files: Sequence[Fetched], form: Form, *, known: bool = False) -> str:
        """The SELECT over files, in their order.

        Args:
            files: each of which :meth:`form` has looked at.
            form: the columns of all files of the source.
            known: whether every value is known to fit, because all were looked at.

        Raises:
            BadInput: the options name a type for a column that does not exist.
        """
        chosen = self._options.types
        unknown = [name for name in chosen if name not in form.types]
        if unknown:
            raise BadInput(
                f"read_options types names the column {unknown[0]!r}, which {files[0].name} does not have; "
                f"its columns are {', '.join(form.names)}."
            )
        if self.kind in ("parquet", "avro"):
            return self._typed(files, form)
        runs = groupby(files, lambda file: compression(file.name))
        one = self._json_query if self.kind == "jsonl" else self._csv_query
        return " UNION ALL ".join(one(list(run), packed, form, known) for packed, run in runs)

    def _json_query(self, files: list[Fetched], packed: str, form: Form, known: bool) -> str:
        columns = mapping({**_plain(form.types), **self._options.types})
        return (
            f"SELECT {self._columns(files)} FROM read_json({_list(files)}, format = 'newline_delimited', "
            f"columns = {columns}, compression = {literal(packed)}, {self._hive()})"
        )

    def _csv_query(self, files: list[Fetched], packed: str, form: Form, known: bool) -> str:
        chosen = self._options.types
        types = {name: self._type(name, kind) for name, kind in form.types.items()}
        found = casts(
            {name: kind for name, kind in types.items() if name not in chosen or "|" in kind}, patterns_only=known
        )
        read = mapping({**types, **dict.fromkeys(found.replaced, "VARCHAR")})
        replaced = ", ".join(f"{cast} AS {identifier(name)}" for name, cast in found.replaced.items())
        return (
            f"SELECT {self._columns(files, replaced)} "
            f"FROM read_csv({_list(files)}, auto_detect = false, columns = {read}, "
            f"{self._dialect(form.delimiter, packed)}, {self._hive()}) {found.where()}"
        )

    def _delimited(self, connection: duckdb.DuckDBPyConnection, file: Fetched, thorough: bool) -> Form:
        found = dialect(file.path, file.name, self._options, self.kind)
        types = self._sniffed(connection, file, found.names, found.delimiter, thorough)
        return Form(types=types, first=len(types), delimiter=found.delimiter)

    def _sniffed(
        self,
        connection: duckdb.DuckDBPyConnection,
        file: Fetched,
        names: tuple[str, ...],
        delimiter: str,
        thorough: bool,
    ) -> dict[str, str]:
        text = dict.fromkeys(names, "VARCHAR")
        options = self._dialect(delimiter, compression(file.name))
        for option, pattern in (
            ("dateformat", self._options.date_format),
            ("timestampformat", self._options.timestamp_format),
        ):
            options += f", {option} = {literal(pattern)}" if pattern else ""
        listed = ", ".join(literal(name) for name in names)
        query = (
            "SELECT Columns, DateFormat, TimestampFormat FROM "
            f"sniff_csv({literal(file.path)}, names = [{listed}], sample_size = {-1 if thorough else _SAMPLE}, "
            f"strict_mode = false, null_padding = true, auto_type_candidates = [{_CANDIDATES}], {options})"
        )
        try:
            ((columns, dates, stamps),) = connection.execute(query).fetchall()
            kinds = [column["type"] for column in columns]
            if len(kinds) != len(names):
                return text
            patterns = {"DATE": dates, "TIMESTAMP": stamps}
            patterns = {kind: pattern for kind, pattern in patterns.items() if pattern not in _ISO}
            types = {
                name: "VARCHAR" if kind == "HUGEINT" else f"{kind}|{patterns[kind]}" if patterns.get(kind) else kind
                for name, kind in zip(names, kinds, strict=True)
            }
            return {**types, **self._looked(connection, file, types, delimiter, thorough)}
        except duckdb.Error:  # irregular: reading it as text will say in which line
            return text

    def _looked(
        self,
        connection: duckdb.DuckDBPyConnection,
        file: Fetched,
        types: dict[str, str],
        delimiter: str,
        thorough: bool,
    ) -> dict[str, str]:
        """The types of columns about which DuckDB is too generous.

        Those of text in which there is no value where types were looked for; and, of all values, those that its casts
        would alter.
        """
        right = {name: f"count({identifier(name)}) > 0" for name, kind in types.items() if kind == "VARCHAR"}
        if thorough:
            fits = {name: tolerant(kind, identifier(name)) for name, kind in types.items()}
            right.update({name: f"coalesce(bool_and({fit}), true)" for name, fit in fits.items() if fit})
        if not right:
            return {}
        as_text = mapping(dict.fromkeys(types, "VARCHAR"))
        source = (
            f"read_csv({literal(file.path)}, auto_detect = false, columns = {as_text}, "
            f"{self._dialect(delimiter, compression(file.name))}, hive_partitioning = false)"
        )
        rows = source if thorough else f"(FROM {source} LIMIT {_SAMPLE})"
        looked: dict[str, bool] = {}
        names = list(right)
        for some in (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)):
            (found,) = connection.execute(f"SELECT {', '.join(right[name] for name in some)} FROM {rows}").fetchall()
            looked.update(zip(some, found, strict=True))
        return {
            name: EMPTY if types[name] == "VARCHAR" else "VARCHAR" for name, is_right in looked.items() if not is_right
        }

    def _typed(self, files: Sequence[Fetched], form: Form) -> str:
        selects = []
        for own, run in groupby(files, lambda file: tuple(self._own[file.name].types.items())):
            columns = parquet.columns(dict(own), {**_plain(form.types), **self._options.types})
            keys = "".join(f", {identifier(name)}" for name in self.partitions)
            selects.append(f"SELECT {columns}{keys} FROM read_parquet({_list(list(run))}, {self._hive()})")
        return " UNION ALL ".join(selects)

    def _type(self, name: str, kind: str) -> str:
        """A column's type as the options have it, with their pattern."""
        chosen = self._options.types.get(name, "").upper()
        patterns = {"DATE": self._options.date_format, "TIMESTAMP": self._options.timestamp_format}
        if chosen:
            return f"{chosen}|{patterns[chosen]}" if patterns.get(chosen) else chosen
        return "VARCHAR" if kind == EMPTY else kind

    def _dialect(self, delimiter: str, packed: str) -> str:
        options = self._options
        nulls = ", ".join(literal(text) for text in ("", *options.null_values))
        return (
            f"delim = {literal(delimiter)}, quote = {literal(options.quote)}, "
            f"escape = {literal(options.escape)}, header = {str(options.header).lower()}, skip = {options.skip}, "
            f"nullstr = [{nulls}], encoding = {literal(options.encoding)}, "
            f"compression = {literal(packed)}"
        )

    def _hive(self) -> str:
        if not self.partitions:
            return "hive_partitioning = false"
        return f"hive_partitioning = true, hive_types = {mapping(self.partitions)}"

    def _columns(self, files: Sequence[Fetched], replaced: str = "") -> str:
        """All columns, those of folders last; without those that DuckDB would make of folders above the source."""
        replace = f" REPLACE ({replaced})" if replaced else ""
        if not self.partitions:
            return f"*{replace}"
        keys = [identifier(name) for name in self.partitions]
        above = {part.partition("=")[0] for file in files for part in file.path.parts[:-1] if "=" in part}
        others = [identifier(name) for name in sorted(above - set(self.partitions))]
        return f"* EXCLUDE ({', '.join(keys + others)}){replace}, {', '.join(keys)}"


def _list(files: Sequence[Fetched]) -> str:
    return "[" + ", ".join(literal(file.path) for file in files) + "]"


def _plain(types: dict[str, str]) -> dict[str, str]:
    """Types as DuckDB knows them."""
    return {name: "VARCHAR" if kind == EMPTY else kind for name, kind in types.items()}


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
