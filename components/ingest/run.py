"""Make a snapshot of a source."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from components.errors import BadInput
from components.files import whole_folder
from components.ingest import catalog, dvc, personal
from components.ingest.earlier import Earlier
from components.ingest.engine import engine, identifier, literal
from components.ingest.fetching import Fetching
from components.ingest.follow import Report, silent
from components.ingest.groups import groups
from components.ingest.making import Maker, Piece
from components.ingest.options import ReadOptions
from components.ingest.remote import Remote
from components.ingest.resolve import Source, origin, resolve
from components.ingest.snapshot import FILE, POINTER, Column, OriginFile, Part, PersonalColumn, Reused, Snapshot
from components.settings import settings

_BESIDE = 3
"""Threads beside DuckDB's: one reads files through, one follows what is written."""


def run(
    source_uri: str,
    source_version: str,
    read_options: Mapping[str, Any],
    out: Path,
    dataset: str = "",
    report: Report = silent,
) -> Snapshot:
    """Copy a source into the snapshot folder ``out``, whole or not at all.

    Args:
        source_uri: a path, or a URI of one of :mod:`components.ingest.sources`.
        source_version: what :func:`resolve` said; empty to take the source as it is now.
        read_options: see :class:`components.ingest.options.ReadOptions`.
        out: the folder to make.
        dataset: name under which the version is listed; empty lists it nowhere. Parts whose files have not changed
            since the newest version of the same source are taken from there, and these files are not read.
        report: takes lines about how far it has come.

    Raises:
        BadInput: the source cannot be read, or is no longer what was resolved.
        Unreachable: its store refuses or is down.
        StorageFull: the disk ran out.
    """
    options = ReadOptions.of(read_options)
    before = catalog.previous(dataset, source_uri, options.given()) if dataset else None
    known = {file.bytes for file in before.files} if before else set()
    source = resolve(source_uri, read_options, later=lambda size: size not in known)
    if source.version:
        _check_version(source, source_version, source_uri)
    with (
        whole_folder(out) as folder,
        TemporaryDirectory(prefix=".fetched-", dir=out.parent) as fetched,
        engine(out.parent) as connection,
        ThreadPoolExecutor(_BESIDE) as pool,
    ):
        cut = groups(source.files)
        earlier = _earlier(before, source, cut)
        if earlier.version:
            report(f"{_taken(earlier, source)}; the others are read.")
        with Fetching(source.opened, source.format, cut, Path(fetched)) as fetching:
            maker = Maker(connection, source, cut, fetching, earlier, pool, report)
            pieces = maker.make(folder)
        if sum(piece.rows for piece in pieces) == 0:
            raise BadInput(f"{source_uri} has column names and no rows; nothing can be learned from it.")
        if not source.opened.still(source.files):
            raise BadInput(f"{source_uri} changed while it was read; run the step again when nothing writes to it.")
        source = source.digested(maker.digests)
        _check_version(source, source_version, source_uri)
        paths = [piece.path for piece in pieces]
        personal.missed(connection, paths, personal.Plan("", maker.found or ()), options)
        snapshot = _finish(folder, source, source_uri, maker, pieces, _columns(connection, paths))
        if dataset:
            catalog.publish(folder, snapshot, dataset)
        return snapshot


def _check_version(source: Source, asked: str, uri: str) -> None:
    if asked and source.version != asked:
        raise BadInput(
            f"{uri} changed between resolve (version {asked[:12]}) and ingest (now {source.version[:12]}); run the "
            "pipeline again when nothing is writing to it."
        )


def _earlier(before: Snapshot | None, source: Source, cut: Sequence[Any]) -> Earlier:
    if before is None or not source.version:
        return Earlier.nothing()
    remote = Remote(settings().remote)
    return Earlier.of(before, source, cut, remote.has, remote.get)


def _taken(earlier: Earlier, source: Source) -> str:
    return f"{earlier.files} of {len(source.files)} files unchanged, taken from version {earlier.version[:12]}"


def _columns(connection: duckdb.DuckDBPyConnection, parts: Sequence[Path]) -> tuple[Column, ...]:
    """Names, types and null counts; counts come from the Parquet footers where they have them."""
    listed = "[" + ", ".join(literal(part) for part in parts) + "]"
    described = connection.execute(
        f"DESCRIBE SELECT * FROM read_parquet({literal(parts[0])}, hive_partitioning = false)"
    ).fetchall()
    footer = connection.execute(
        "SELECT path_in_schema, sum(stats_null_count), count(*) = count(stats_null_count) "
        f"FROM parquet_metadata({listed}) GROUP BY ALL"
    ).fetchall()
    nulls = {name: int(count) for name, count, complete in footer if complete and count is not None}
    unknown = [name for name, *_ in described if name not in nulls]
    if unknown:
        counts = ", ".join(f"count(*) - count({identifier(name)})" for name in unknown)
        (found,) = connection.execute(
            f"SELECT {counts} FROM read_parquet({listed}, hive_partitioning = false)"
        ).fetchall()
        nulls.update(zip(unknown, found, strict=True))
    return tuple(Column(name=name, type=kind, nulls=nulls[name]) for name, kind, *_ in described)


def _finish(
    folder: Path, source: Source, uri: str, maker: Maker, pieces: Sequence[Piece], columns: tuple[Column, ...]
) -> Snapshot:
    digested = {file.name: file for file in source.files}
    parts = tuple(
        Part(
            name=piece.path.name,
            rows=piece.rows,
            bytes=piece.path.stat().st_size,
            md5=piece.md5,
            origin=origin([digested[file.name] for file in piece.files], source.format, source.options),
            source=_in_words([file.name for file in piece.files]),
        )
        for piece in pieces
    )
    earlier = maker.earlier
    snapshot = Snapshot(
        version=source.version,
        source_uri=uri,
        files=tuple(
            OriginFile(name=file.name, digest=file.digest, bytes=file.bytes, generation=file.generation)
            for file in source.files
        ),
        options=source.options.given(),
        rows=sum(part.rows for part in parts),
        bytes=sum(part.bytes for part in parts),
        columns=columns,
        parts=parts,
        reading=maker.reading,
        personal=tuple(
            PersonalColumn(column=one.column, kind=one.kind, share=one.share, policy=one.policy)
            for one in maker.found or ()
        ),
        reused=Reused(version=earlier.version, files=earlier.files) if earlier.version else None,
    )
    (folder / FILE).write_text(snapshot.model_dump_json(indent=2) + "\n", encoding="utf-8")
    known = {part.name: part.md5 for part in parts}
    (folder / POINTER).write_text(dvc.pointer(dvc.tracked(folder, known), "snapshot"), encoding="utf-8")
    return snapshot


def _in_words(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]} ({len(names)} files)"
