"""Draws the rows of the train split that the bundle keeps, for explanations and to measure exports on."""

from pathlib import Path
from typing import TYPE_CHECKING

from components.features.schema import FeatureSchema
from components.settings import settings

if TYPE_CHECKING:
    from serving.background import Background

ROW_GROUPS = 16
"""Of a longer file, so many evenly spaced ones are drawn from."""


def draw(features: Path, schema: FeatureSchema, seed: int) -> "Background | None":
    """Draw rows of raw input columns, without replacement and in order of the file.

    ``SLUICEWAY_BACKGROUND_ROWS`` says how many; they are data of whoever the model learnt from, so that 0 keeps none.

    Args:
        features: a feature set.
        schema: its columns.
        seed: the same rows are drawn by the same seed.

    Returns:
        None where none are to be kept, or the file lacks a raw input column.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from serving.background import Background
    from serving.inputs import coerce, columns_of

    wanted = settings().background_rows
    names = [column.name for column in schema.inputs]
    with pq.ParquetFile(features / "train.parquet") as file:
        if not wanted or not set(names) <= set(file.schema_arrow.names):
            return None
        groups = file.num_row_groups
        chosen = sorted(set(np.linspace(0, groups - 1, min(groups, ROW_GROUPS)).astype(int).tolist()))
        sizes = [file.metadata.row_group(group).num_rows for group in chosen]
        places = np.sort(np.random.default_rng(seed).permutation(sum(sizes))[:wanted])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        parts = [
            file.read_row_group(group, columns=names).take(places[(places >= start) & (places < end)] - start)
            for group, start, end in zip(chosen, starts, starts[1:], strict=False)
        ]
    return Background(coerce(columns_of(pa.concat_tables(parts), schema), schema))
