"""A snapshot: the immutable, versioned copy of a source that every later step reads.

The folder holds ``part-*.parquet`` (zstd, rows in the source's order), ``snapshot.json`` and ``snapshot.dvc``, a DVC
pointer for the folder's other files.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from components.errors import BadInput
from components.ingest.engine import ROW, identifier, literal, table
from components.ingest.form import Form
from components.ingest.options import PersonalPolicy

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir

FILE = "snapshot.json"
POINTER = "snapshot.dvc"
VIEW = "snapshot"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OriginFile(_Frozen):
    """A file that the snapshot was made from; ``generation`` pins it there, where the source has versions."""

    name: str
    digest: str
    bytes: int
    generation: str = ""


class Part(_Frozen):
    """A Parquet file of the snapshot.

    Attributes:
        name: file name in the folder.
        rows: how many it has.
        bytes: its size.
        md5: of the file, by which the remote keeps it.
        origin: hexadecimal sha256 of the source files (partition and digest) that it was made of, so that a later
            snapshot takes it over where these have not changed; see :func:`components.ingest.resolve.origin`.
        source: these files in words: the name of the only one, or of the first and the last of them.
    """

    name: str
    rows: int
    bytes: int
    md5: str
    origin: str = ""
    source: str = ""


class Column(_Frozen):
    """A column: its DuckDB type and how many values are missing (blank texts are not: they are kept as they are)."""

    name: str
    type: str
    nulls: int


class Reading(_Frozen):
    """How the source's types were found, so that a later run can tell whether new files change them.

    Attributes:
        heads: columns by the first rows of every file.
        form: columns as they were read.
        thorough: whether all values had to be looked at, because one did not fit what the first rows suggested.
        partitions: DuckDB types of the columns that folders make.
    """

    heads: Form
    form: Form
    thorough: bool
    partitions: dict[str, str]


class PersonalColumn(_Frozen):
    """A column with personal data: which kind, in which share of the values looked at, and what was done."""

    column: str
    kind: str
    share: float
    policy: PersonalPolicy


class Reused(_Frozen):
    """What was taken over from an earlier version: how many of the files were neither fetched nor read."""

    version: str
    files: int


class Snapshot(_Frozen):
    """What ``snapshot.json`` says.

    Attributes:
        version: hexadecimal sha256 of source content and ingest options.
        source_uri: where it came from.
        files: the source's files with digest or generation.
        options: the ingest options that were given.
        rows: data rows.
        bytes: size of the parts.
        columns: in order.
        parts: in row order.
        reading: how types were found.
        personal: columns with personal data.
        reused: what was taken over from an earlier version.
    """

    layout: int = 1
    version: str
    source_uri: str
    files: tuple[OriginFile, ...]
    options: dict[str, Any]
    rows: int
    bytes: int
    columns: tuple[Column, ...]
    parts: tuple[Part, ...]
    reading: Reading | None = None
    personal: tuple[PersonalColumn, ...] = ()
    reused: Reused | None = None

    @property
    def taken(self) -> str:
        """What was taken over, as the end of a sentence; empty if nothing was."""
        if self.reused is None:
            return ""
        unchanged = f"{self.reused.files} of {len(self.files)} files unchanged"
        return f"; {unchanged}, taken from version {self.reused.version[:12]}"


def read(folder: Path) -> Snapshot:
    """Read ``snapshot.json``.

    Raises:
        BadInput: the folder is no snapshot.
    """
    try:
        return Snapshot.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{folder} is no snapshot: it has no {FILE}; run the ingest step first.") from error


def relation(connection: "duckdb.DuckDBPyConnection", folder: Path, snapshot: Snapshot) -> "ir.Table":
    """Make the snapshot readable as the view ``snapshot``, with :data:`ROW` as its first column.

    Returns:
        The Ibis table of that view; see :func:`components.ingest.engine.table`.
    """
    selects, before = [], 0
    for part in snapshot.parts:
        path = literal(folder / part.name)
        selects.append(
            f"SELECT file_row_number + {before + 1} AS {identifier(ROW)}, * EXCLUDE (file_row_number) "
            f"FROM read_parquet({path}, file_row_number = true, hive_partitioning = false)"
        )
        before += part.rows
    connection.execute(f"CREATE OR REPLACE VIEW {VIEW} AS {' UNION ALL '.join(selects)}")
    return table(connection, VIEW)
