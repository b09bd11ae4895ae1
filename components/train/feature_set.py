"""Reads a feature set as the frames that models are fitted and measured on."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.features.schema import FeatureSchema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Split:
    """One split: the model's input columns and the target.

    Attributes:
        inputs: ``(rows, features)``, the frame that :func:`serving.bundle.model_frame` makes.
        target: ``(rows,)``; int64 class index, or float64 for regression.
    """

    inputs: "pd.DataFrame"
    target: "np.ndarray[Any, Any]"


def check_target(values: "np.ndarray[Any, Any]", schema: FeatureSchema, split: str) -> "np.ndarray[Any, Any]":
    """The target of a split: float64 values of ``(rows,)`` for regression, else int64 class indices.

    Args:
        values: the column as float64, NaN for missing.
        schema: task and classes.
        split: its name, for messages.

    Raises:
        BadInput: missing or infinite values, or an index outside the classes.
    """
    import numpy as np

    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise BadInput(
            f"{bad:,} of {len(values):,} rows of the {split} split have no finite value in the target "
            f"{schema.target!r}: remove those rows before training."
        )
    if schema.task == "regression":
        return values
    indices = values.astype("int64")
    if len(indices) and (indices.min() < 0 or indices.max() >= len(schema.classes)):
        raise BadInput(
            f"The target {schema.target!r} of the {split} split holds a class index outside 0 to "
            f"{len(schema.classes) - 1}: run the features step again."
        )
    return indices


def read_table(folder: Path, split: str, schema: FeatureSchema, at_most: int = 0) -> "pd.DataFrame":
    """A split's table as written by the features step; with ``at_most``, every n-th row group of it.

    Raises:
        BadInput: the file or a column of it is missing, or it has no rows.
    """
    import pandas as pd

    path = folder / f"{split}.parquet"
    if not path.is_file():
        raise BadInput(f"The feature set {folder} has no {path.name}: run the features step again.")
    table = _row_groups(path, at_most) if at_most else pd.read_parquet(path)
    absent = [f.name for f in schema.features if f.name not in table] + [schema.target] * (schema.target not in table)
    if absent:
        raise BadInput(f"{path} has no column {', '.join(map(repr, absent))}: run the features step again.")
    if table.empty:
        raise BadInput(
            f"The {split} split of {folder} has no rows: give more data, or a larger share to that split, "
            "in the features step."
        )
    return table


def read_split(folder: Path, name: str, schema: FeatureSchema, at_most: int = 0) -> Split:
    """Read a split, or a sample of at most so many rows; every class must have a row in the train split.

    Raises:
        BadInput: the feature set is incomplete or empty, or a class has no row to learn from.
    """
    from serving.bundle import model_frame

    table = read_table(folder, name, schema, at_most)
    target = table[schema.target].to_numpy(dtype="float64", na_value=float("nan"))
    split = Split(model_frame(table, schema), check_target(target, schema, name))
    if name == "train":
        check_classes(schema, split.target)
    return split


def _row_groups(path: Path, at_most: int) -> "pd.DataFrame":
    import math

    import pandas as pd
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    every = max(1, math.ceil(file.metadata.num_rows / at_most))
    sample: pd.DataFrame = file.read_row_groups(list(range(0, file.num_row_groups, every))).to_pandas()
    return sample


def read_schema(folder: Path) -> FeatureSchema:
    """Read ``features.json``.

    Raises:
        BadInput: it is missing or not valid.
    """
    try:
        return FeatureSchema.read(folder)
    except FileNotFoundError as error:
        raise BadInput(f"{folder} is not a feature set: it has no features.json.") from error
    except ValueError as error:
        raise BadInput(f"features.json in {folder} is not valid: {error}".replace("\n", " ")) from error


def check_classes(schema: FeatureSchema, target: "np.ndarray[Any, Any]") -> None:
    """Every class must have a row to learn from.

    Args:
        schema: task and classes.
        target: of the train split; class indices ``(rows,)``.

    Raises:
        BadInput: names the classes without one.
    """
    import numpy as np

    if schema.task == "regression":
        return
    counts = np.bincount(target, minlength=len(schema.classes))
    absent = [schema.classes[index] for index in np.flatnonzero(counts == 0)]
    if absent:
        raise BadInput(
            f"No row of the train split has {schema.target!r} = {', '.join(map(repr, absent))}: "
            "give more rows of that class, or remove the class from the data."
        )
