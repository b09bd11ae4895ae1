"""DuckDB's complaints about files, as one sentence with file and line."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from components.errors import BadInput
from components.files import is_full
from components.ingest.text import wrong_encoding

UNFIT = "a value is no longer what its column was taken for"
"""What a query raises (with DuckDB's ``error``) about a value that a cast would alter."""


@dataclass(frozen=True)
class Fetched:
    """A local copy of a source file and the name by which people know it."""

    name: str
    path: Path


def is_unfit(error: duckdb.Error) -> bool:
    """Whether a value did not fit its column's type, so that all values must be looked at."""
    return isinstance(error, duckdb.ConversionException) or UNFIT in str(error)


@contextmanager
def sentences(files: Sequence[Fetched]) -> Iterator[None]:
    """Turn DuckDB's errors about file content into one sentence each; those of :func:`is_unfit` pass.

    Raises:
        BadInput: the content is wrong.
    """
    try:
        yield
    except (duckdb.InvalidInputException, duckdb.IOException, duckdb.BinderException) as error:
        if is_unfit(error) or is_full(error) or "Could not write" in str(error):
            raise
        raise BadInput(explain(str(error), files)) from error


def explain(message: str, files: Sequence[Fetched]) -> str:
    """One sentence for a DuckDB message about reading files."""
    name = next((file.name for file in files if str(file.path) in message), files[0].name)
    for path, shown in ((str(file.path), file.name) for file in files):
        message = message.replace(path, shown)
    line = re.search(r"CSV Error on Line: (\d+)", message)
    where = f"{name}, line {line[1]}" if line else name
    ragged = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message)
    if ragged:
        return f"{where}: {ragged[2]} values where the header has {ragged[1]} columns; mend that line."
    if "Invalid unicode" in message or "not utf-8" in message:
        return wrong_encoding(name, int(line[1])) if line else f"{name} holds text that is not UTF-8; save it as UTF-8."
    if "unterminated quote" in message:
        return f"{where}: a quoted value starts here and never ends; close the quote."
    if "Maximum line size" in message:
        return f"{where}: the line is longer than 2 MB; is it really a text table?"
    if "GZIP" in message or "gzip" in message:
        return f"{name} is cut off or damaged: its gzip stream ends too early; copy it again."
    if "No magic bytes" in message or "too small to be a Parquet" in message or "footer" in message.lower():
        return f"{name} is not a whole Parquet file; copy it again or check its suffix."
    cast = re.search(r'Could not convert string "(.*?)" to \'?(\w+)', message, re.DOTALL)
    if cast:
        column = re.search(r'converting column "(.*?)"', message)
        of = f" in column {column[1]!r}" if column else ""
        return f"{where}: {cast[1]!r}{of} is not a {cast[2]}; mend it or choose another type in read_options types."
    return f"{where} cannot be read: {_first_line(message)}"


def _first_line(message: str) -> str:
    text = next((line for line in message.splitlines() if line.strip()), "no reason given")
    return str(text).removeprefix("Invalid Input Error: ").removeprefix("IO Error: ").rstrip(".") + "."
