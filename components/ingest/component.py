"""The ingest steps as KFP components: `resolve` (never cached) and `ingest` (cached by content)."""

from typing import NamedTuple

from kfp import dsl

from components.images import DATA


@dsl.component(base_image=DATA, install_kfp_package=False)
def resolve(
    source_uri: str,
    read_options: dict = {},  # noqa: B006  KFP reads the default and never changes it
) -> NamedTuple("Resolved", [("source_version", str)]):  # type: ignore[valid-type]  # KFP's way to name outputs
    """Digest what the source holds right now, so that every later step can be cached by content.

    Args:
        source_uri: Where the data is: a file, folder or glob (path or file://), gs://bucket/path, or
            sklearn://breast_cancer, wine, digits, diabetes.
        read_options: How to read it, where the files do not say it: format, delimiter, header, names, quote, escape,
            skip, null_values, encoding, date_format, timestamp_format, types.

    Returns:
        source_version: sha256 of the source's content and the options; same bytes, same version, on any machine.
    """
    from collections import namedtuple

    from components.ingest.resolve import resolve as look
    from components.step import step

    with step("resolve") as current:
        source = look(source_uri, read_options)
        count = f"{len(source.files):,} file{'s' if len(source.files) > 1 else ''}"
        current.fact = f"{count}, {source.bytes / 1e6:,.1f} MB, version {source.version[:12]}"
    return namedtuple("Resolved", ["source_version"])(source.version)


@dsl.component(base_image=DATA, install_kfp_package=False)
def ingest(
    source_uri: str,
    source_version: str,
    snapshot: dsl.Output[dsl.Dataset],
    read_options: dict = {},  # noqa: B006  KFP reads the default and never changes it
) -> None:
    """Copy the source into an immutable, versioned snapshot: zstd Parquet, snapshot.json and a DVC pointer.

    Args:
        source_uri: Where the data is; see resolve.
        source_version: What resolve found; the step fails if the source changed since.
        snapshot: The snapshot folder; its metadata says version, rows, columns and size.
        read_options: How to read it; see resolve.
    """
    from pathlib import Path

    from components.ingest.run import run
    from components.step import step

    with step("ingest") as current:
        made = run(source_uri, source_version, read_options, Path(snapshot.path))
        snapshot.metadata.update(
            version=made.version,
            source_uri=source_uri,
            rows=made.rows,
            bytes=made.bytes,
            columns=len(made.columns),
            schema={column.name: column.type for column in made.columns},
            missing={column.name: column.nulls for column in made.columns if column.nulls},
        )
        current.fact = f"{made.rows:,} rows, {len(made.columns)} columns, version {made.version[:12]}"
