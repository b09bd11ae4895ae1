"""Encoded rows as tensors: kept whole where the device has room, streamed from Parquet where it has not."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from components.features.schema import FeatureSchema
from serving import inputs
from serving.torch_model import Architecture, Encoder

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 1_000_000
"""About so many rows of a streamed table are shuffled together."""
_SPLIT = 65_536
_PARTS = ("numbers", "missing", "codes", "target")


@dataclass(frozen=True)
class Rows:
    """Encoded rows.

    Attributes:
        numbers: prepared numbers, float32 ``(n, numbers)``.
        missing: indicators, uint8 ``(n, indicators)``.
        codes: rows of the embedding table, int32 ``(n, categories)``.
        target: int64 classes or float32 standardised values, ``(n,)``.
    """

    numbers: Tensor
    missing: Tensor
    codes: Tensor
    target: Tensor

    def __len__(self) -> int:
        """How many rows."""
        return len(self.target)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Rows":
        """The rows with every tensor changed."""
        return Rows(*map(change, (self.numbers, self.missing, self.codes, self.target)))

    def at(self, index: Tensor) -> "Rows":
        """The rows at these positions."""
        return self.each(lambda part: part.index_select(0, index))

    def between(self, start: int, stop: int) -> "Rows":
        """Rows next to each other, without a copy."""
        return self.each(lambda part: part[start:stop])

    def to(self, device: torch.device) -> "Rows":
        """The rows on a device; to CUDA from pinned memory and without waiting."""
        if device.type != "cuda":
            return self.each(lambda part: part.to(device))
        return self.each(lambda part: part.to(device, non_blocking=True))


def bytes_per_row(architecture: Architecture) -> int:
    """What an encoded row takes."""
    return 4 * (len(architecture.numeric) + len(architecture.categorical)) + len(architecture.indicators) + 8


def encoded(encoder: Encoder, columns: Mapping[str, Any], target: Tensor) -> Rows:
    """Rows of the columns of a model frame."""
    numbers, missing, codes = map(torch.from_numpy, encoder.encode(columns))
    return Rows(numbers, missing, codes, target)


class Source(Protocol):
    """The rows of an epoch, batch by batch, in an order that follows from seed and epoch."""

    @property
    def steps(self) -> int:
        """Batches per epoch."""

    @property
    def rows(self) -> int:
        """Rows per epoch."""

    @property
    def batch(self) -> int:
        """Rows per step; fewer are left for the last."""

    @property
    def order(self) -> str:
        """Says how rows are put in order; a position in one order means nothing in another."""

    def batches(self, epoch: int, start: int) -> Iterator[Rows]:
        """The batches from the one numbered ``start`` on, on the device."""


class Resident:
    """All rows on the device, shuffled anew for each epoch by their index."""

    order = "resident"

    def __init__(self, rows: Rows, device: torch.device, batch: int, seed: int) -> None:
        """Move the rows to the device, where they are not there yet."""
        self._rows, self._device = rows.to(device), device
        self.batch, self._seed = batch, seed
        self.rows, self.steps = len(rows), -(-len(rows) // batch)

    def batches(self, epoch: int, start: int) -> Iterator[Rows]:
        """See :class:`Source`."""
        where = self._device if self._device.type == "cuda" else torch.device("cpu")
        generator = torch.Generator(where).manual_seed(mixed(self._seed, epoch))
        order = torch.randperm(self.rows, generator=generator, device=where).to(self._device)
        for step in range(start, self.steps):
            yield self._rows.at(order[step * self.batch : (step + 1) * self.batch])


class Streamed:
    """Row groups of a Parquet file in random order, a few shuffled together; the next ones are read meanwhile.

    Args:
        read: encoded rows of the row groups with these numbers, on the CPU.
        sizes: rows of each row group.
        device: what is trained on.
        batch: rows per step.
        seed: of the order.
    """

    order = "streamed"

    def __init__(
        self, read: Callable[[list[int]], Rows], sizes: list[int], device: torch.device, batch: int, seed: int
    ) -> None:
        """Nothing is read yet."""
        self._read, self._sizes, self._device = read, sizes, device
        self.batch, self._seed = batch, seed
        self.rows = sum(sizes)
        self.steps = sum(-(-sum(sizes[group] for group in chunk) // batch) for chunk in self._chunks(0))

    def batches(self, epoch: int, start: int) -> Iterator[Rows]:
        """See :class:`Source`; every epoch has the same chunks in another order, so it has as many batches."""
        chunks = self._chunks(epoch)
        counts = [-(-sum(self._sizes[group] for group in chunk) // self.batch) for chunk in chunks]
        first = 0
        while first < len(chunks) and start >= counts[first]:
            start -= counts[first]
            first += 1
        with ThreadPoolExecutor(1, "reader") as pool:
            ahead = pool.submit(self._load, chunks[first]) if first < len(chunks) else None
            for number in range(first, len(chunks)):
                assert ahead is not None
                rows = ahead.result()
                ahead = pool.submit(self._load, chunks[number + 1]) if number + 1 < len(chunks) else None
                yield from self._shuffled(rows.to(self._device), mixed(self._seed, epoch, number), start)
                start = 0

    def _shuffled(self, rows: Rows, seed: int, start: int) -> Iterator[Rows]:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(rows), generator=generator).to(self._device)
        for at in range(start * self.batch, len(rows), self.batch):
            yield rows.at(order[at : at + self.batch])

    def _load(self, groups: list[int]) -> Rows:
        rows = self._read(groups)
        return rows.each(lambda part: part.pin_memory()) if self._device.type == "cuda" else rows

    def _chunks(self, epoch: int) -> list[list[int]]:
        """Row groups that are shuffled together: the same ones in every epoch, in an order of its own."""
        random = np.random.default_rng(self._seed)
        chunks: list[list[int]] = [[]]
        for group in random.permutation(len(self._sizes)).tolist():
            if sum(self._sizes[other] for other in chunks[-1]) >= CHUNK_ROWS:
                chunks.append([])
            chunks[-1].append(group)
        order = np.random.default_rng([self._seed, epoch]).permutation(len(chunks))
        return [chunks[index] for index in order.tolist()]


class ParquetRows:
    """Encodes row groups of a split's Parquet file without making Python objects of their texts.

    Args:
        path: the split's file.
        schema: the columns.
        encoder: encodes them.
        target: target values to tensors.
    """

    def __init__(self, path: Path, schema: FeatureSchema, encoder: Encoder, target: Callable[[Any], Tensor]) -> None:
        """Read the file's footer."""
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path)
        self._schema, self._encoder, self._target = schema, encoder, target
        groups = self._file.metadata
        self.sizes = [groups.row_group(index).num_rows for index in range(self._file.num_row_groups)]

    def read(self, groups: list[int]) -> Rows:
        """Encoded rows of these row groups, on the CPU."""
        names = [*(feature.name for feature in self._schema.features), self._schema.target]
        table = self._file.read_row_groups(groups, columns=list(dict.fromkeys(names)))
        architecture = self._encoder.architecture
        codes = np.empty((table.num_rows, len(architecture.categorical)), "int32")
        for index, feature in enumerate(architecture.categorical):
            codes[:, index] = self._codes(index, feature.name, table.column(feature.name))
        numbers, missing = np.empty((table.num_rows, 0), "float32"), np.empty((table.num_rows, 0), "uint8")
        if architecture.numeric:
            numeric = [feature.name for feature in architecture.numeric]
            numbers, missing = self._encoder.numbers({n: self._seen(n, table.column(n)) for n in numeric})
        target = self._target(table.column(self._schema.target).to_numpy())
        return Rows(torch.from_numpy(numbers), torch.from_numpy(missing), torch.from_numpy(codes), target)

    def whole(self, device: torch.device, stop: Callable[[], None]) -> Rows:
        """Every row, on the device; ``stop`` is called between row groups and may raise."""
        total, at, filled = sum(self.sizes), 0, None
        for group in range(len(self.sizes)):
            part = self.read([group])
            if filled is None:
                filled = part.each(lambda each: torch.empty((total, *each.shape[1:]), dtype=each.dtype, device=device))
            for name in _PARTS:
                getattr(filled, name)[at : at + len(part)] = getattr(part, name).to(device)
            at += len(part)
            stop()
        assert filled is not None
        return filled

    def _codes(self, index: int, name: str, column: "pa.ChunkedArray") -> Any:
        import pyarrow as pa

        whole = column.combine_chunks()
        coded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
        distinct = self._seen(name, pa.chunked_array([coded.dictionary, pa.nulls(1, coded.dictionary.type)]))
        indices = coded.indices.fill_null(len(distinct) - 1).to_numpy(zero_copy_only=False)
        return self._encoder.codes(index, distinct)[indices.astype("int64")]

    def _seen(self, name: str, column: "pa.ChunkedArray") -> Any:
        """A column as the model sees it."""
        features = tuple(feature for feature in self._schema.features if feature.name == name)
        alone = self._schema.model_copy(update={"features": features})
        return inputs.model_columns({name: inputs.from_pandas(column.to_pandas())}, alone)[name]


def parts(rows: Rows) -> Iterator[Rows]:
    """The rows in their order, a part at a time."""
    for start in range(0, len(rows), _SPLIT):
        yield rows.between(start, start + _SPLIT)


def mixed(*numbers: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, "uint64")[0] >> np.uint64(1))
