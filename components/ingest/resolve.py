"""What a source holds right now: the digest that pins every later step to its content."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from components.errors import BadInput
from components.ingest.options import Format, ReadOptions
from components.ingest.sources import Source as Opened
from components.ingest.sources import SourceFile, open_source
from components.ingest.sources.local import LocalSource

LAYOUT = 2
"""Raised when the way a snapshot is made from the same source changes."""


@dataclass(frozen=True)
class Source:
    """A source as it was when looked at.

    Attributes:
        version: hexadecimal sha256 of content and options; the same wherever the bytes lie. Empty until the files are
            digested.
        uri: a URI that means this content later, too; see :meth:`components.ingest.sources.Source.pinned`.
        files: what it consists of, in reading order.
        bytes: size of all files.
        format: what the files are.
        options: how they are to be read.
        opened: what fetches them.
    """

    version: str
    uri: str
    files: tuple[SourceFile, ...]
    bytes: int
    format: Format
    options: ReadOptions
    opened: Opened

    def digested(self, digests: Mapping[str, str]) -> "Source":
        """The same with the digests of its files, by name, where they were not known yet."""
        files = tuple(replace(file, digest=file.digest or digests[file.name]) for file in self.files)
        return replace(self, files=files, version=_version(files, self.format, self.options))


def resolve(source_uri: str, options: Mapping[str, Any], later: Callable[[int], bool] | None = None) -> Source:
    """Look at a source and digest it, without copying it.

    Args:
        source_uri: where it is.
        options: how to read it.
        later: asked about the size of each file; if all are to be digested later, by whoever reads them, and they lie
            on this machine, then digests and version are left empty.

    Raises:
        BadInput: there is nothing to read, or nothing that can be read.
        Unreachable: the store does not exist, refuses access or is down.
    """
    chosen = ReadOptions.of(options)
    opened = open_source(source_uri, chosen)
    files = _files(opened, chosen, later)
    kind = _one_format(files, chosen, source_uri)
    return Source(
        version=_version(files, kind, chosen) if all(file.digest for file in files) else "",
        uri=opened.pinned(),
        files=files,
        bytes=sum(file.bytes for file in files),
        format=kind,
        options=chosen,
        opened=opened,
    )


def _files(opened: Opened, options: ReadOptions, later: Callable[[int], bool] | None) -> tuple[SourceFile, ...]:
    if later is None or not isinstance(opened, LocalSource):
        return opened.files()
    listed = opened.listed()
    wanted = all(later(file.bytes) and options.format_of(file.name) != "avro" for file in listed)
    return listed if wanted else opened.files()


def _one_format(files: tuple[SourceFile, ...], options: ReadOptions, uri: str) -> Format:
    formats = {options.format_of(file.name): file.name for file in files}
    if None in formats:
        raise BadInput(
            f"{formats[None]}: its suffix does not say what it is; name it with "
            'read_options {"format": "csv"} (or tsv, jsonl, parquet, avro).'
        )
    if len(formats) > 1:
        examples = ", ".join(sorted(formats.values()))
        raise BadInput(f"{uri} mixes kinds of files ({examples}); narrow it with a glob such as *.csv.")
    (kind,) = formats
    assert kind is not None
    return kind


def _version(files: tuple[SourceFile, ...], kind: Format, options: ReadOptions) -> str:
    content = {
        "layout": LAYOUT,
        "format": kind,
        "options": options.given(),
        "files": [[partition(file.name), file.digest] for file in files],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def resolve_tables(tables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Pin the tables that features are joined from.

    Args:
        tables: by the name that the feature spec uses: a URI, or a mapping with ``source_uri`` and ``read_options``.

    Returns:
        By name: ``source_uri`` (pinned), ``read_options`` and ``version``.

    Raises:
        BadInput: a table is described wrongly, or cannot be read.
        Unreachable: its store does not exist, refuses access or is down.
    """
    pinned = {}
    for name, given in tables.items():
        asked = {"source_uri": given} if isinstance(given, str) else given
        known = {"source_uri", "read_options"}
        if not isinstance(asked, Mapping) or "source_uri" not in asked or set(asked) - known:
            raise BadInput(f"feature_tables {name!r} must be a URI, or an object with source_uri and read_options.")
        options: Any = asked.get("read_options") or {}
        source = resolve(str(asked["source_uri"]), options)
        pinned[name] = {"source_uri": source.uri, "read_options": options, "version": source.version}
    return pinned


def origin(files: Iterable[SourceFile], kind: Format, options: ReadOptions) -> str:
    """What a part is made from: it may be taken over by every snapshot whose files and options say the same."""
    return _version(tuple(files), kind, options)


def partition(name: str) -> str:
    """The part of a file's name that carries data: folders such as ``year=2026/month=07``, which become columns."""
    return "/".join(part for part in PurePosixPath(name).parts[:-1] if "=" in part)
