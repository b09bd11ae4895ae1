"""The contract between features, training and serving: which columns go in, and what they mean.

A feature set is a folder with ``train.parquet``, ``valid.parquet``, ``test.parquet`` and ``features.json``. The
tables hold the raw input columns under their own names (types parsed), the derived columns, and the target:
an integer index into ``classes`` for classification, a float for regression. A bundle carries the same
``features.json``, so that serving parses and derives exactly as training did.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

FILE = "features.json"
SPLITS = ("train", "valid", "test")

BLANK = " \t\n\r\v\f"
"""What is stripped, and alone is a missing value; Python's own ``strip`` would also take Unicode's spaces."""

Task = Literal["binary", "multiclass", "regression"]
InputType = Literal["number", "string", "boolean", "timestamp"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputColumn(_Frozen):
    """A column that a request carries.

    Attributes:
        name: of the column.
        type: of its values.
        kind: ``column``: a raw column of the source; ``windowed`` or ``joined``: a feature of the entity's past or of
            other tables, which whoever asks provides as of now (from a feature store, say), or leaves missing.
        description: what it is, where it is no raw column.
    """

    name: str
    type: InputType
    kind: Literal["column", "windowed", "joined"] = "column"
    description: str = ""


class Encoding(_Frozen):
    """What a category becomes, as learnt from the train split; see :mod:`components.features.encodings`.

    Attributes:
        how: ``rate``, ``count`` or ``hash``.
        total: of ``rate``: how many train rows the rates are shares of.
        counts: of ``rate`` and ``count``: categories and how many train rows have them, in order.
        buckets: of ``hash``.
    """

    how: Literal["rate", "count", "hash"]
    total: int = 0
    counts: tuple[tuple[str | float, int], ...] = ()
    buckets: int = 0


class FeatureColumn(_Frozen):
    """A column that the model sees: an input as it is, or one derived by an expression, which may be encoded."""

    name: str
    kind: Literal["numeric", "categorical"]
    expression: str = ""
    encoding: Encoding | None = None


class DroppedColumn(_Frozen):
    """A raw column that the model does not see, and why."""

    name: str
    reason: str


class FeatureSchema(_Frozen):
    """What ``features.json`` holds.

    Attributes:
        task: what kind of prediction the target asks for.
        target: the target column's name.
        classes: class labels as text, in index order; empty for regression.
        inputs: columns needed at serving, in order.
        features: the model's columns, in order; those with an expression are derived from inputs.
        dropped: columns left out, with reasons.
        data_version: the snapshot's version.
        split: how rows were assigned: ``key`` columns and ``seed``; or by ``time``: the column, where the splits begin,
            the gap and how many rows fell into it.
        rows: row count per split.
    """

    task: Task
    target: str
    classes: tuple[str, ...] = ()
    inputs: tuple[InputColumn, ...]
    features: tuple[FeatureColumn, ...]
    dropped: tuple[DroppedColumn, ...] = ()
    data_version: str
    split: dict[str, str | int | list[str]] = {}
    rows: dict[str, int] = {}

    @classmethod
    def read(cls, folder: Path) -> "FeatureSchema":
        """Read ``features.json`` from a feature set or a bundle."""
        return cls.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
