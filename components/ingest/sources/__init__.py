"""Where data comes from: one module per kind of source, all behind one interface."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from components.errors import BadInput
from components.ingest.options import ReadOptions, suffix_format


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, as it was when listed.

    Attributes:
        name: relative to the source's root, with ``/``.
        digest: of the content, as ``algorithm:value``.
        bytes: size.
        generation: what pins exactly this content at its source, where it has versions: GCS's generation, S3's version
            or ETag, a range of Kafka offsets.
        stamp: what tells cheaply that a local file was written to since.
    """

    name: str
    digest: str
    bytes: int
    generation: str = ""
    stamp: str = ""


class Source(Protocol):
    """What a kind of source must be able to do."""

    def files(self) -> tuple[SourceFile, ...]:
        """List what there is, in the order in which it is read.

        Raises:
            BadInput: there is nothing to read.
            Unreachable: the store does not exist, refuses access or is down.
        """
        ...

    def fetch(self, files: tuple[SourceFile, ...], folder: Path) -> list[Path]:
        """Make the listed files available locally, under ``folder`` if they must be copied.

        Raises:
            BadInput: a file is no longer what was listed.
            Unreachable: the store refuses or is down.
        """
        ...

    def still(self, files: tuple[SourceFile, ...]) -> bool:
        """Whether the files that were read are still those that were listed."""
        ...

    def pinned(self) -> str:
        """A URI that means the same content later, once listed: the source's own, unless that one goes on growing."""
        ...


_SOURCES = {
    "file": "components.ingest.sources.local:LocalSource",
    "gs": "components.ingest.sources.gcs:GcsSource",
    "s3": "components.ingest.sources.s3:S3Source",
    "https": "components.ingest.sources.https:HttpsSource",
    "http": "components.ingest.sources.https:HttpsSource",
    "postgresql": "components.ingest.sources.sql:SqlSource",
    "mysql": "components.ingest.sources.sql:SqlSource",
    "sqlite": "components.ingest.sources.sql:SqlSource",
    "kafka": "components.ingest.sources.kafka:KafkaSource",
    "delta+file": "components.ingest.sources.delta:DeltaSource",
    "delta+s3": "components.ingest.sources.delta:DeltaSource",
    "delta+gs": "components.ingest.sources.delta:DeltaSource",
    "sklearn": "components.ingest.sources.builtin:BuiltinSource",
}
"""Module and class by scheme; a module is imported when it is needed."""


def open_source(uri: str, options: ReadOptions) -> Source:
    """Choose the module for a URI.

    Raises:
        BadInput: no source reads such a URI, or it is written wrongly.
    """
    known = "a local path, " + ", ".join(f"{scheme}://" for scheme in _SOURCES if scheme != "http")
    if not uri.strip():
        raise BadInput(f"The source URI is empty; give {known}.")
    scheme, separator, _ = uri.partition("://")
    scheme = scheme.lower() if separator else "file"
    if scheme not in _SOURCES:
        raise BadInput(f"{uri}: no source reads {scheme}:// URIs; use {known}.")
    module, _, name = _SOURCES[scheme].partition(":")
    opened: Source = getattr(import_module(module), name)(uri, options)
    return opened


def readable(names: list[str], options: ReadOptions, where: str) -> list[str]:
    """Keep the files that hold data (by suffix, unless the format is given), sorted; hidden files are left out.

    Raises:
        BadInput: nothing is left.
    """
    shown = [name for name in names if not any(part.startswith((".", "_")) for part in name.split("/"))]
    kept = sorted(name for name in shown if options.format or suffix_format(name))
    if not kept:
        found = f"found {', '.join(sorted(shown)[:5])}" if shown else "found no files"
        raise BadInput(
            f"{where} holds no CSV, TSV, JSON-lines, Parquet or Avro file ({found}); name other files' kind with "
            'read_options {"format": "csv"}.'
        )
    return kept
