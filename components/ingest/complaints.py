"""DuckDB's complaints about files, as one sentence with file and line."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from components.errors import BadInput
from components.files import is_full
from components.ingest.text import too_long, wrong_encoding

UNFIT = "a value is no longer what its column was taken for"
"""What a query raises (with DuckDB's ``error``) about a value that a cast would alter."""


_OURS = (duckdb.InternalException, duckdb.ParserException, duckdb.CatalogException, duckdb.InterruptException)
"""What no file is to blame for."""


_DAMAGE = ("ZSTD", "Snappy", "snappy", "LZ4", "Brotli", "decompress", "Out of buffer", "page", "Page")
"""Words of DuckDB's complaints about the inside of a Parquet file."""


@dataclass(frozen=True)
class Fetched:
    """A local copy of a source file and the name by which people know it."""

    name: str
    path: Path


def is_unfit(error: duckdb.Error) -> bool:
    """Whether a value did not fit its column's type, so that all values must be looked at."""
    message = str(error)
    return isinstance(error, duckdb.ConversionException) or UNFIT in message or "Could not parse string" in message


@contextmanager
def sentences(files: Sequence[Fetched]) -> Iterator[None]:
    """Turn DuckDB's errors about file content into one sentence each; those of :func:`is_unfit` pass.

    Raises:
        BadInput: the content is wrong.
    """
    try:
        yield
    except duckdb.Error as error:
        if is_unfit(error) or is_full(error) or isinstance(error, _OURS) or "Could not write" in str(error):
            raise
        raise BadInput(explain(str(error), files)) from error


def explain(message: str, files: Sequence[Fetched]) -> str:
    """One sentence for a DuckDB message about reading files."""
    name = next((file.name for file in files if str(file.path) in message), files[0].name)
    for path, shown in ((str(file.path), file.name) for file in files):
        message = message.replace(path, shown)
    line = re.search(r"CSV Error on Line: (\d+)|in line (\d+)", message)
    number = next((int(found) for found in line.groups() if found), 0) if line else 0
    where = f"{name}, line {number}" if number else name
    if "Malformed JSON" in message:  # DuckDB counts one too many there
        number -= 1
        where = f"{name}, line {number}"
    of_value = _of_value(message, where)
    return of_value or _of_text(message, name, number, where) or _of_binary(message, name) or _other(message, where)


def _of_text(message: str, name: str, number: int, where: str) -> str:
    """About delimited text and JSON lines; empty if it is about something else."""
    ragged = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message)
    if ragged:
        return f"{where}: {ragged[2]} values where the header has {ragged[1]} columns; mend that line."
    if any(words in message for words in ("Invalid unicode", "not utf-8", "invalid UTF-8")):
        return wrong_encoding(name, number) if number else f"{name} holds text that is not UTF-8; save it as UTF-8."
    if "unterminated quote" in message:
        return f"{where}: a quoted value starts here and never ends; close the quote."
    if "Maximum line size" in message or "does not support a full read" in message:
        return too_long(where, "2 MB")
    if "maximum_object_size" in message:
        return too_long(where, "16 MB")
    if "reached an invalid state" in message:
        return f"{where}: its lines end in different ways, or a value has a line break without quotes; write it anew."
    if "Malformed JSON" in message:
        what = re.search(r"in line \d+: (.+?)\.(?: |\n|$)", message)
        return f"{where}: not JSON ({what[1] if what else 'malformed'}); each line must be one JSON object."
    twice = re.search(r'has duplicate key "(.*?)"', message)
    if twice:
        return f"{where}: the key {twice[1]!r} occurs twice in one object; rename one of them."
    if "Expected OBJECT, but got" in message:
        return f"{where}: not a JSON object; each line must be one."
    return ""


def _of_binary(message: str, name: str) -> str:
    """About packed files and Parquet; empty if it is about something else."""
    if "end of GZIP stream" in message:
        return f"{name} is cut off: its gzip stream ends too early; copy it again."
    if "gzip" in message.lower() or ("ZSTD" in message and not _is_parquet(name)):
        return f"{name} is damaged: it cannot be unpacked; copy it again."
    if "No magic bytes" in message or "too small to be a Parquet" in message:
        return f"{name} is not a whole Parquet file; copy it again or check its suffix."
    if "TProtocol" in message or "footer" in message.lower():
        return f"{name} is damaged: what its footer says cannot be read; copy it again."
    if _is_parquet(name) and any(words in message for words in _DAMAGE):
        return f"{name} is damaged: a page cannot be unpacked; copy it again."
    if message.startswith("Out of Memory"):
        return f"{name} does not fit into memory: its rows are too wide; split its columns over several tables."
    return ""


def _of_value(message: str, where: str) -> str:
    """About a value that does not fit; empty if it is about something else."""
    pattern = re.search(r'Could not parse string "(.*?)" according to format specifier "(.*?)"', message, re.DOTALL)
    if pattern:
        return f"{where}: {pattern[1]!r} is not written as {pattern[2]}; mend it or choose another format."
    cast = re.search(r'Could not convert string [\'"](.*?)[\'"] to \'?(\w+)', message, re.DOTALL)
    if cast:
        column = re.search(r'converting column "(.*?)"', message)
        of = f" in column {column[1]!r}" if column else ""
        return f"{where}: {cast[1]!r}{of} is not a {cast[2]}; mend it or choose another type in read_options types."
    rounded = re.search(f"{UNFIT}: (.+)", message)
    if rounded:
        return (
            f"Numbers in column {rounded[1].splitlines()[0]!r} are too long for the fractions that other files have "
            "there; make the files alike."
        )
    return ""


def _other(message: str, where: str) -> str:
    return f"{where} cannot be read: {_first_line(message)}"


def _is_parquet(name: str) -> bool:
    return name.lower().endswith((".parquet", ".pq"))


def _first_line(message: str) -> str:
    text = next((line for line in message.splitlines() if line.strip()), "no reason given")
    return str(text).removeprefix("Invalid Input Error: ").removeprefix("IO Error: ").rstrip(".") + "."
