"""Avro files as Parquet, block by block; DuckDB's own reader is an extension, which would have to be downloaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.files import whole_file
from components.ingest.avro_types import Field, fields

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 5_000
"""Records that are turned into columns at once, at least."""

_BYTES = 2**20
"""Bytes of blocks, as they are in the file, after which fewer records will do."""

_GROUP = 32 * 2**20
"""Bytes of a row group in memory, about."""


def to_parquet(path: Path, name: str, out: Path) -> Path:
    """Write an Avro file as Parquet, record by record, in bounded memory.

    Args:
        path: the Avro file: an object container, as others write it.
        name: by which people know it.
        out: the Parquet file to make, whole or not at all.

    Returns:
        ``out``.

    Raises:
        BadInput: the file is damaged or cut off, or its schema is no table.
        StorageFull: the disk ran out.
    """
    import fastavro
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as stream, whole_file(out) as aside:
        try:
            reader = fastavro.block_reader(stream)
        except (ValueError, EOFError, LookupError, TypeError) as error:
            raise BadInput(f"{name} is no Avro file, or cut off ({_said(error)}); copy it again.") from error
        columns = fields(reader.writer_schema, name)
        schema = pa.schema([(column.name, column.type) for column in columns])
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            waiting: list[pa.RecordBatch] = []
            for batch in _batches(reader, columns, schema, name):
                waiting.append(batch)
                if sum(one.nbytes for one in waiting) > _GROUP:
                    writer.write_table(pa.Table.from_batches(waiting))
                    waiting.clear()
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting))
    return out


def _batches(blocks: Any, columns: tuple[Field, ...], schema: "pa.Schema", name: str) -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa

    done = 0
    try:
        for records in _records(blocks):
            arrays = [
                pa.array([column.value(record[column.name]) for record in records], column.type) for column in columns
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
            done += len(records)
    except Exception as error:  # bytes that make no sense raise whatever they, or one of six codecs, led to
        raise BadInput(
            f"{name} is cut off or damaged, within the {2 * _BATCH:,} records after record {done:,} ({_said(error)}); "
            "copy it again."
        ) from error


def _records(blocks: Any) -> Iterator[list[Any]]:
    records: list[Any] = []
    size = 0
    for block in blocks:
        records.extend(block)
        size += block.size
        if len(records) >= _BATCH or size >= _BYTES:
            yield records
            records, size = [], 0
    yield records


def _said(error: BaseException) -> str:
    return str(error).splitlines()[0][:120].rstrip(".") if str(error) else type(error).__name__
