"""What must be known about a delimited text file before DuckDB reads it: its columns and dialect.

DuckDB's own detection is not used for this, because it hides faults: it renames duplicate columns and skips lines
until the rest looks regular, so that a ragged file can come out as an empty table with data for names.
"""

import csv
import gzip
import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from components.errors import BadInput
from components.ingest.engine import ROW
from components.ingest.options import Format, ReadOptions

LINE = 2_000_000
"""Bytes of a line that DuckDB reads."""

_HEAD = 4 * 2**20
_DELIMITERS = (",", ";", "\t", "|")
_MAGIC = {
    b"PAR1": "Parquet",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "a zip archive or Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "PDF",
    b"SQLite format 3": "SQLite",
    b"\x89PNG": "PNG",
    b"ARROW1": "Arrow",
    b"Obj\x01": "Avro",
}


class Empty(BadInput):
    """A file without a single character: nothing is wrong with it where there are others."""


@dataclass(frozen=True)
class Dialect:
    """Column names and delimiter of a text table."""

    names: tuple[str, ...]
    delimiter: str


def head(path: Path, name: str, options: ReadOptions) -> str:
    """The start of a text file, decompressed and decoded.

    Raises:
        Empty: there is nothing in it.
        BadInput: the file is binary or in another encoding.
    """
    raw = _raw(path, name)
    if not raw.removeprefix(b"\xef\xbb\xbf").strip():
        raise Empty(f"{name} is empty; nothing can be learned from it.")
    if options.encoding == "utf-8":
        if raw[:4] in (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff"):
            raise BadInput(f"{name} is UTF-32, which is not read; save it as UTF-8.")
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise BadInput(f'{name} is UTF-16; say so with read_options {{"encoding": "utf-16"}} or save it as UTF-8.')
        for magic, kind in _MAGIC.items():
            if raw.startswith(magic):
                raise BadInput(f"{name} is not text but looks like {kind}; give it the right suffix or export it.")
        if b"\x00" in raw[:65536]:
            raise BadInput(f"{name} is a binary file, not text; export the table as CSV or Parquet.")
    return _decoded(raw, name, options)


def dialect(path: Path, name: str, options: ReadOptions, kind: Format) -> Dialect:
    """Read the header of a CSV or TSV file.

    Raises:
        BadInput: there is no usable header.
    """
    text = head(path, name, options)
    for _ in range(options.skip):
        text = re.split("\r\n|\n|\r", text, maxsplit=1)[-1]
    if _longest_start(text) >= LINE:
        raise BadInput(too_long(f"{name}, line 1", "2 MB"))
    delimiter = options.delimiter or ("\t" if kind == "tsv" else _likely_delimiter(text, options))
    first = _first_record(text, delimiter, options)
    if first is None or not any(value.strip() for value in first):
        raise BadInput(f"{name} has no header line; nothing can be learned from it.")
    names = options.names or _header(first, name, options)
    if len(names) != len(first):
        raise BadInput(f"{name} has {len(first)} columns, but read_options names {len(names)} ({', '.join(names)}).")
    check_names(names, name)
    return Dialect(tuple(names), delimiter)


def check_names(names: tuple[str, ...], where: str) -> None:
    """Refuse names that occur twice; tables do not tell upper from lower case.

    Raises:
        BadInput: a name occurs twice or is reserved.
    """
    seen: dict[str, str] = {}
    for name in names:
        key = name.casefold()
        if key in seen:
            other = seen[key]
            how = "twice" if other == name else f"twice, as {other!r} and {name!r} (case is not told apart)"
            raise BadInput(f"{where}: column {name!r} occurs {how}; rename one of them.")
        seen[key] = name
    if ROW in seen:
        raise BadInput(f"{where}: the column name {ROW} is reserved; rename it.")


def _longest_start(text: str) -> int:
    """The length of the first line."""
    ends = [place for place in (text.find("\n"), text.find("\r")) if place >= 0]
    return min(ends, default=len(text))


def _raw(path: Path, name: str) -> bytes:
    lower = name.lower()
    try:
        if lower.endswith(".gz"):
            with gzip.open(path) as packed:
                return packed.read(_HEAD)
        if lower.endswith(".zst"):
            import pyarrow as pa

            with pa.CompressedInputStream(str(path), "zstd") as packed:
                return bytes(packed.read(_HEAD))
        with path.open("rb") as plain:
            return plain.read(_HEAD)
    except EOFError as error:
        raise BadInput(f"{name} is cut off: its gzip stream ends too early; copy it again.") from error
    except zlib.error as error:
        raise BadInput(f"{name} is damaged: its gzip stream cannot be unpacked; copy it again.") from error
    except (gzip.BadGzipFile, OSError) as error:
        if "runcated" in str(error):
            raise BadInput(f"{name} is cut off: its zstd stream ends too early; copy it again.") from error
        if isinstance(error, gzip.BadGzipFile) and _starts_with(path, b"\x1f\x8b"):
            raise BadInput(f"{name} is damaged: its gzip stream cannot be unpacked; copy it again.") from error
        if isinstance(error, gzip.BadGzipFile) or lower.endswith(".zst"):
            raise BadInput(f"{name} is not compressed as its suffix says; rename it or copy it again.") from error
        raise


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(magic)) == magic


def _decoded(raw: bytes, name: str, options: ReadOptions) -> str:
    encoding = "utf-8-sig" if options.encoding == "utf-8" else options.encoding
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        if len(raw) == _HEAD and error.start >= _HEAD - 4:  # a character cut by the end of the head
            return raw[: error.start].decode(encoding)
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadInput(wrong_encoding(name, line)) from error


def wrong_encoding(name: str, line: int) -> str:
    """The sentence for text that is not UTF-8."""
    return (
        f"{name}, line {line}: not UTF-8 text; save the file as UTF-8, or if all of it is in another encoding say so "
        'with read_options {"encoding": "latin-1"}.'
    )


def too_long(where: str, most: str) -> str:
    """The sentence for a line that no table has."""
    return f"{where}: a line is longer than {most}; is it really a table?"


def _likely_delimiter(text: str, options: ReadOptions) -> str:
    fields = {delimiter: len(_first_record(text, delimiter, options) or ()) for delimiter in _DELIMITERS}
    return max(_DELIMITERS, key=lambda delimiter: fields[delimiter])


def _first_record(text: str, delimiter: str, options: ReadOptions) -> list[str] | None:
    lines = (line for line in io.StringIO(text, newline="") if line.strip())
    csv.field_size_limit(_HEAD)
    try:
        if not options.quote:
            return next(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE), None)
        return next(csv.reader(lines, delimiter=delimiter, quotechar=options.quote), None)
    except csv.Error:
        return None


def _header(first: list[str], name: str, options: ReadOptions) -> tuple[str, ...]:
    if not options.header:
        return tuple(f"column{index}" for index in range(len(first)))
    if all(_is_number(value) for value in first):
        raise BadInput(
            f"{name}: its first line looks like data ({', '.join(first[:3])}), not column names; pass read_options "
            '{"header": false, "names": ["…"]}.'
        )
    return tuple(value.strip() or f"column{index}" for index, value in enumerate(first))


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
