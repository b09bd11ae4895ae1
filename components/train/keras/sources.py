"""The train split as batches in an order that follows from the seed and the epoch alone.

So a training that goes on in the middle of an epoch needs to know only how many of its rows are done.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.features.schema import FeatureSchema
from components.train.contract import MEASURED_ROWS, Data
from components.train.feature_set import Split, check_target
from components.train.keras.encoding import Encoding, Table
from components.train.keras.learner import HeldSteps, Learner

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

POOL_ROWS = 500_000
"""Rows that are shuffled together while streaming."""


class Epoch(Protocol):
    """One pass over the rows."""

    def advance(self, steps: int, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take at most so many steps; gives the totals with theirs added."""


class Source(Protocol):
    """Where the rows are."""

    @property
    def how(self) -> str:
        """What is said of it."""

    @property
    def rows(self) -> int:
        """How many there are."""

    def epoch(self, learner: Learner, number: int, done: int, batch: int) -> Epoch:
        """The pass of this number, after so many rows of it."""


class Held:
    """The whole table on the device; batches are gathered there."""

    how = "the table held on the device"

    def __init__(self, table: Table, seed: int) -> None:
        """The table moves to the device with the first pass."""
        self._table, self._seed = table, seed
        self._steps: HeldSteps | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._table)

    def epoch(self, learner: Learner, number: int, done: int, batch: int) -> Epoch:
        """A pass in a fresh order."""
        if self._steps is None:
            self._steps = learner.hold(self._table)
        order = _random(self._seed, number).permutation(self.rows)[done:]
        return _HeldEpoch(self._steps, order, batch)


@dataclass
class _HeldEpoch:
    steps: HeldSteps
    order: NDArray[np.int64]
    batch: int

    def advance(self, steps: int, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        rows, self.order = self.order[: steps * self.batch], self.order[steps * self.batch :]
        return self.steps(rows, self.batch, totals)


@dataclass(frozen=True)
class Streamed:
    """A table that is read from Parquet again in every epoch, in pools of row groups drawn at random."""

    path: Path
    schema: FeatureSchema
    encoding: Encoding
    seed: int
    pool_rows: int = POOL_ROWS
    how: str = "streamed from Parquet: the table does not fit on the device"

    @cached_property
    def _file(self) -> "pq.ParquetFile":
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.path)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self._file.metadata.num_rows)

    def epoch(self, learner: Learner, number: int, done: int, batch: int) -> Epoch:
        """A pass in a fresh order; pools that are done are not read again."""
        batches = tf.data.Dataset.from_generator(
            lambda: (part.arrays() for part in self.batches(number, done, batch)), output_signature=learner.columns
        )
        return _StreamedEpoch(learner, iter(batches.prefetch(4)), -(-(self.rows - done) // batch))

    def batches(self, number: int, done: int, batch: int) -> Iterator[Table]:
        """The batches of a pass, after so many rows of it."""
        left: Table | None = None
        for pool in self._pools(number, done):
            whole = pool if left is None else _joined([left, pool])
            end = len(whole) - len(whole) % batch
            for start in range(0, end, batch):
                yield whole.part(slice(start, start + batch))
            left = whole.part(slice(end, None))
        if left is not None and len(left):
            yield left

    def _pools(self, number: int, done: int) -> Iterator[Table]:
        random = _random(self.seed, number)
        groups = random.permutation(self._file.num_row_groups)
        sizes = [self._file.metadata.row_group(int(group)).num_rows for group in groups]
        first = 0
        while first < len(groups):
            last, rows = first, 0
            while last < len(groups) and (rows == 0 or rows + sizes[last] <= self.pool_rows):
                rows += sizes[last]
                last += 1
            order = random.permutation(rows)
            if done < rows:
                table = self._file.read_row_groups([int(group) for group in groups[first:last]])
                yield encode(table, self.schema, self.encoding).part(order[done:])
            done = max(0, done - rows)
            first = last


@dataclass
class _StreamedEpoch:
    learner: Learner
    stream: Any
    left: int

    def advance(self, steps: int, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        steps = min(steps, self.left)
        self.left -= steps
        return self.learner.follow(self.stream, steps, totals)


def source(data: Data, encoding: Encoding, seed: int, room: int) -> Source:
    """The train split on the device where it fits into so many bytes, else streamed.

    Raises:
        BadInput: the split cannot be learnt from.
    """
    rows = data.schema.rows.get("train", 0)
    columns = len(encoding.vocabularies) + len(encoding.numbers.names) + 1
    if rows <= MEASURED_ROWS and rows * columns * 4 <= room:
        return Held(encoding.encode(data.train), seed)
    streamed = Streamed(data.folder / "train.parquet", data.schema, encoding, seed)
    if streamed.rows * columns * 4 > room:
        return streamed
    file = streamed._file
    groups = (file.read_row_group(index) for index in range(file.num_row_groups))
    return Held(_joined([encode(group, data.schema, encoding) for group in groups]), seed)


def encode(table: "pa.Table", schema: FeatureSchema, encoding: Encoding) -> Table:
    """Rows of a Parquet file, encoded; as ``model_frame`` and :meth:`Encoding.encode` do, but by Arrow for text.

    Raises:
        BadInput: the target or a number cannot be used.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    from serving.bundle import model_frame

    codes = np.empty((len(table), len(encoding.vocabularies)), "int32")
    others = [feature for feature in schema.features if feature.kind == "numeric"]
    numbers = model_frame(
        table.select([feature.name for feature in others]).to_pandas(),
        schema.model_copy(update={"features": tuple(others)}),
    )
    for index, (name, vocabulary) in enumerate(encoding.vocabularies.items()):
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            found = pc.index_in(pc.fill_null(column, ""), pa.array(vocabulary.words, column.type))
            codes[:, index] = pc.add(pc.fill_null(found, -1), 1 + encoding.offsets[index]).to_numpy()
            continue
        one = tuple(feature for feature in schema.features if feature.name == name)
        text = model_frame(table.select([name]).to_pandas(), schema.model_copy(update={"features": one}))
        codes[:, index] = (
            pd.Index(vocabulary.words, dtype=object).get_indexer(pd.Index(text[name])) + 1 + encoding.offsets[index]
        )
    target = table.column(schema.target).to_pandas().to_numpy(dtype="float64", na_value=float("nan"))
    return encoding.encode(Split(numbers, check_target(target, schema, "train")), codes)


def _random(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, number])


def _joined(tables: list[Table]) -> Table:
    return Table(*(np.concatenate(columns) for columns in zip(*(table.arrays() for table in tables), strict=True)))
