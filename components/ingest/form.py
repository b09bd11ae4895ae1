"""What a source's columns are: one type each, wide enough for the values of all its files.

Types of text tables are DuckDB's, with two additions: ``NULL`` is the type of a column without a value so far, and a
date or time that is not written as ISO 8601 says carries its pattern, as in ``DATE|%d/%m/%Y``. :func:`common` does not
depend on the order of its arguments, so it does not matter which files were looked at first, or in which run.
"""

from pydantic import BaseModel, ConfigDict

from components.ingest.options import Format

EMPTY = "NULL"
"""The type of a column in which nothing was seen but missing values."""

_SIGNED = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
_UNSIGNED = {"UTINYINT": 8, "USMALLINT": 16, "UINTEGER": 32, "UBIGINT": 64}
_FRACTIONS = {"FLOAT", "DOUBLE"}


class Form(BaseModel):
    """The columns of one file, or of several.

    Attributes:
        types: by name, in order.
        first: how many of them the first file has; those of JSON lines that come later are in alphabetical order.
        delimiter: of delimited text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    types: dict[str, str]
    first: int
    delimiter: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(self.types)

    @property
    def of_first(self) -> tuple[str, ...]:
        """The names of the columns that the first file has."""
        return self.names[: self.first]

    def same(self, other: "Form") -> bool:
        """Whether names, their order and types are equal."""
        return list(self.types.items()) == list(other.types.items()) and self.of_first == other.of_first


class Unlike(ValueError):
    """No type holds what two files have in a column."""

    def __init__(self, column: str, one: str, other: str) -> None:
        """Keep what the sentence needs."""
        super().__init__(f"{column}: {one} and {other}")
        self.column, self.one, self.other = column, one, other


def join(kind: Format, first: Form, other: Form) -> Form:
    """The columns of files together; ``first`` is that of the earlier ones.

    Raises:
        Unlike: a column of typed files (Parquet) has types that no type holds.
    """
    types = dict(first.types)
    for name, found in other.types.items():
        types[name] = common(kind, name, types[name], found) if name in types else found
    later = sorted(name for name in types if name not in first.of_first)
    return Form(
        types={name: types[name] for name in (*first.of_first, *later)}, first=first.first, delimiter=first.delimiter
    )


def common(kind: Format, column: str, one: str, other: str) -> str:
    """The narrowest type that holds the values of two.

    Text holds everything, for what is read from text can be kept as it was written. What is typed in its file is not
    turned into text.

    Raises:
        Unlike: there is none.
    """
    if one == other or other == EMPTY:
        return one
    if one == EMPTY:
        return other
    if kind not in ("csv", "tsv", "jsonl"):
        return _holding(column, one, other)
    if {one, other} == {"BIGINT", "DOUBLE"}:
        return "DOUBLE"
    if {one, other} == {"DATE", "TIMESTAMP"} and kind != "jsonl":
        return "TIMESTAMP"
    return "VARCHAR"


def _holding(column: str, one: str, other: str) -> str:
    both = {one, other}
    if both <= _SIGNED.keys() | _UNSIGNED.keys():
        signed = max((_SIGNED[name] for name in both & _SIGNED.keys()), default=0)
        unsigned = max((_UNSIGNED[name] for name in both & _UNSIGNED.keys()), default=0)
        names, bits = (_SIGNED, max(signed, 2 * unsigned if unsigned else 0)) if signed else (_UNSIGNED, unsigned)
        for name, width in names.items():
            if width >= bits:
                return name
    elif both <= _SIGNED.keys() | _UNSIGNED.keys() | _FRACTIONS:
        return "DOUBLE"
    elif both == {"DATE", "TIMESTAMP"}:
        return "TIMESTAMP"
    raise Unlike(column, one, other)


def may_round(one: str, into: str) -> bool:
    """Whether numbers of one type may be too long for another, which must then be looked at one by one."""
    return into == "DOUBLE" and (_SIGNED | _UNSIGNED).get(one, 0) == 64
