"""Make a snapshot of a source."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from components.errors import BadInput
from components.files import whole_folder
from components.ingest import catalog, dvc
from components.ingest.complaints import Fetched, explain, is_unfit, sentences
from components.ingest.engine import engine, identifier, literal, write_parquet
from components.ingest.reader import Reader
from components.ingest.resolve import Source, resolve
from components.ingest.snapshot import FILE, POINTER, Column, OriginFile, Part, Snapshot

PART = "part-00000.parquet"


def run(
    source_uri: str, source_version: str, read_options: Mapping[str, Any], out: Path, dataset: str = ""
) -> Snapshot:
    """Copy a source into the snapshot folder ``out``, whole or not at all.

    Args:
        source_uri: a path, ``file://``, ``gs://`` or ``sklearn://`` URI.
        source_version: what :func:`resolve` said; empty to take the source as it is now.
        read_options: see :class:`components.ingest.options.ReadOptions`.
        out: the folder to make.
        dataset: name under which the version is listed; empty lists it nowhere.

    Raises:
        BadInput: the source cannot be read, or is no longer what was resolved.
        Unreachable: its store, or the one that keeps versions, refuses or is down.
        StorageFull: the disk ran out.
    """
    source = resolve(source_uri, read_options)
    if source_version and source.version != source_version:
        raise BadInput(
            f"{source_uri} changed between resolve (version {source_version[:12]}) and ingest (now "
            f"{source.version[:12]}); run the pipeline again when nothing is writing to it."
        )
    with whole_folder(out) as folder, TemporaryDirectory(prefix=".fetched-", dir=out.parent) as fetched:
        paths = source.opened.fetch(source.files, Path(fetched))
        files = [Fetched(file.name, path) for file, path in zip(source.files, paths, strict=True)]
        with engine(out.parent) as connection:
            rows = _copy(connection, files, source, folder / PART)
            columns = _columns(connection, folder / PART)
        if rows == 0:
            raise BadInput(f"{source_uri} has column names and no rows; nothing can be learned from it.")
        if not source.opened.still(source.files):
            raise BadInput(f"{source_uri} changed while it was read; run the step again when nothing writes to it.")
        snapshot = _finish(folder, source, source_uri, rows, columns)
        if dataset:
            catalog.publish(folder, snapshot, dataset)
        return snapshot


def _copy(connection: duckdb.DuckDBPyConnection, files: list[Fetched], source: Source, part: Path) -> int:
    reader = Reader(files, source.format, source.options)
    with sentences(files):
        try:
            return write_parquet(connection, reader.query(connection), part)
        except duckdb.Error as error:
            if not is_unfit(error):
                raise
            part.unlink(missing_ok=True)
        try:
            return write_parquet(connection, reader.query(connection, thorough=True), part)
        except duckdb.ConversionException as error:
            raise BadInput(explain(str(error), files)) from error


def _columns(connection: duckdb.DuckDBPyConnection, part: Path) -> tuple[Column, ...]:
    """Names, types and null counts; counts come from the Parquet footer where it has them."""
    described = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({literal(part)})").fetchall()
    footer = connection.execute(
        "SELECT path_in_schema, sum(stats_null_count), count(*) = count(stats_null_count) "
        f"FROM parquet_metadata({literal(part)}) GROUP BY ALL"
    ).fetchall()
    nulls = {name: int(count) for name, count, complete in footer if complete and count is not None}
    unknown = [name for name, *_ in described if name not in nulls]
    if unknown:
        counts = ", ".join(f"count(*) - count({identifier(name)})" for name in unknown)
        (found,) = connection.execute(f"SELECT {counts} FROM read_parquet({literal(part)})").fetchall()
        nulls.update(zip(unknown, found, strict=True))
    return tuple(Column(name=name, type=kind, nulls=nulls[name]) for name, kind, *_ in described)


def _finish(folder: Path, source: Source, uri: str, rows: int, columns: tuple[Column, ...]) -> Snapshot:
    part = folder / PART
    size = part.stat().st_size
    snapshot = Snapshot(
        version=source.version,
        source_uri=uri,
        files=tuple(
            OriginFile(name=file.name, digest=file.digest, bytes=file.bytes, generation=file.generation)
            for file in source.files
        ),
        options=source.options.given(),
        rows=rows,
        bytes=size,
        columns=columns,
        parts=(Part(name=PART, rows=rows, bytes=size, md5=dvc.md5(part)),),
    )
    (folder / FILE).write_text(snapshot.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / POINTER).write_text(dvc.pointer(dvc.tracked(folder), "snapshot"), encoding="utf-8")
    return snapshot
