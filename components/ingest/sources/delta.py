"""Delta Lake tables: ``delta+file://``, ``delta+s3://`` and ``delta+gs://``, with ``?version=N`` or as they are now.

What is read is one version of the table, which the pinned URI names. The snapshot's version is a digest of the table's
id, that version and its files, so that neither a newer commit nor another table in its place is taken for it.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from components.errors import BadInput, SluicewayError, Unreachable
from components.ingest.engine import identifier
from components.ingest.options import ReadOptions
from components.ingest.sources import SourceFile
from components.ingest.sources.arriving import Column, Rows, write
from components.ingest.text import check_names

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

_COLOURS = re.compile(r"\x1b\[[0-9;]*m|↳")


class DeltaSource:
    """A version of a Delta table, as one table; the columns that it is partitioned by are columns."""

    def __init__(self, uri: str, options: ReadOptions) -> None:
        """Check the URI; nothing is read yet.

        Raises:
            BadInput: it is written wrongly.
        """
        parts = urlsplit(uri, allow_fragments=False)
        given = parse_qs(parts.query)
        number = given.pop("version", [""])[0]
        if given or not parts.path.strip("/") or (number and not number.isdecimal()):
            raise BadInput(f"{uri}: write delta+file:///folder, delta+s3://bucket/path or …?version=3.")
        self._address = f"{parts.scheme.removeprefix('delta+')}://{parts.netloc}{parts.path}"
        self._number = int(number) if number else None

    def files(self) -> tuple[SourceFile, ...]:
        """Fix the version, and digest what its log says."""
        table = self._table()
        check_names(tuple(field.name for field in table.schema().fields), f"Table {self._address}")
        digest, size = _identity(table)
        return (SourceFile(f"{Path(self._address).name}.parquet", digest, size, generation=str(self._number)),)

    def fetch(self, files: tuple[SourceFile, ...], folder: Path) -> list[Path]:
        """Read the version and write it, sorted by all columns since its own files are read in any order.

        Raises:
            BadInput: its files have been deleted.
        """
        table = self._table()
        if _identity(table)[0] != files[0].digest:
            raise BadInput(f"{self._address} was replaced while it was read; run the pipeline again.")
        path = folder / files[0].name
        write(self._rows(table), path)
        return [path]

    def still(self, files: tuple[SourceFile, ...]) -> bool:
        """A version of a table never changes."""
        return True

    def pinned(self) -> str:
        """The URI with the version."""
        return f"delta+{self._address}?version={self._number}"

    def _table(self) -> "DeltaTable":
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        try:
            table = DeltaTable(self._address, version=self._number, storage_options=_storage())
        except (DeltaError, OSError, ValueError) as error:
            raise self._explained(error) from error
        self._number = table.version()
        return table

    def _rows(self, table: "DeltaTable") -> Rows:
        import pyarrow as pa

        reader = pa.RecordBatchReader.from_stream(table.scan())
        return Rows(
            schema=reader.schema,
            batches=self._batches(reader),
            columns=tuple(Column(name, identifier(name)) for name in reader.schema.names),
        )

    def _batches(self, reader: "pa.RecordBatchReader") -> Iterator["pa.RecordBatch"]:
        import pyarrow as pa

        try:
            yield from reader
        except (pa.ArrowException, OSError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> SluicewayError:
        from deltalake.exceptions import TableNotFoundError

        said = " ".join(_COLOURS.sub("", str(error)).split())
        named = "" if self._number is None else f", version {self._number}"
        if isinstance(error, TableNotFoundError) or "No files in log segment" in said:
            return BadInput(f"There is no Delta table at {self._address}; check the path.")
        if "specified end version" in said or "Invalid table version" in said:
            return BadInput(f"{self._address} has no version {self._number}, or not any more; choose another one.")
        if "Unsupported" in said or "not supported" in said:
            return BadInput(f"{self._address} uses what this reader of Delta tables does not know ({said[:160]}).")
        if re.search("AccessDenied|Forbidden|Unauthorized|InvalidAccessKeyId|SignatureDoesNotMatch", said):
            return Unreachable(f"{self._address} refuses access; check the store's credentials ({said[:160]}).")
        if re.search("NoSuchBucket|bucket does not exist", said):
            return Unreachable(f"{self._address}: there is no such bucket, or none for these credentials.")
        if "NotFound" in said or "not found" in said or "No such file" in said:
            return BadInput(
                f"{self._address}{named}: files of this version are gone, as after VACUUM ({said[-120:]}); choose a "
                "newer version, or keep files for longer."
            )
        return Unreachable(f"{self._address}{named} cannot be read ({said[:200]}); try again later.")


def _identity(table: "DeltaTable") -> tuple[str, int]:
    """A digest of what identifies the version's content, and the size of its files."""
    import pyarrow as pa

    actions = pa.table(table.get_add_actions(flatten=True))
    paths, sizes = actions["path"].to_pylist(), actions["size_bytes"].to_pylist()
    said: list[Any] = [table.metadata().id, table.version(), table.schema().to_json()]
    said.append(sorted(zip(paths, sizes, strict=True)))
    return f"sha256:{hashlib.sha256(json.dumps(said).encode()).hexdigest()}", sum(sizes)


def _storage() -> dict[str, str]:
    """What the store's client does not take from the environment by itself, and patience with bounds."""
    options = {"max_retries": "4", "retry_timeout": "60s"}
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["allow_http"] = "true"
    return options
