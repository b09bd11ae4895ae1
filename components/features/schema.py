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
    """A raw column that a request carries."""

    name: str
    type: InputType


class FeatureColumn(_Frozen):
    """A column that the model sees: an input as it is, or one derived by an expression."""

    name: str
    kind: Literal["numeric", "categorical"]
    expression: str = ""


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
        inputs: raw columns needed at serving, in order.
        features: the model's columns, in order; those with an expression are derived from inputs.
        dropped: columns left out, with reasons.
        data_version: the snapshot's version.
        split: how rows were assigned: ``key`` columns and ``seed``.
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
