"""The rows of training data that a bundle keeps, against which its predictions are explained."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import BadBundle, BadInput
from components.features.schema import FeatureSchema
from serving.inputs import Columns, coerce

FILE = "background.json"
"""Raw input columns by name, a list of values each; null where a value is missing."""


@dataclass(frozen=True)
class Background:
    """Rows of raw input columns.

    Attributes:
        columns: by name, (rows,) each, as :func:`serving.inputs.coerce` gives them.
    """

    columns: Columns

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(next(iter(self.columns.values())))

    @classmethod
    def read(cls, folder: Path, schema: FeatureSchema) -> "Background | None":
        """Read the rows of a bundle that was verified; None where it keeps none.

        Raises:
            BadBundle: the file does not hold the schema's input columns.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            columns = coerce({str(name): list(values) for name, values in dict(read).items()}, schema)
        except (ValueError, TypeError, BadInput) as error:
            raise BadBundle(f"{path} does not hold rows of the bundle's input columns: {error}") from error
        if not columns or not len(next(iter(columns.values()))):
            raise BadBundle(f"{path} holds no rows.")
        return cls(columns)

    def write(self, folder: Path) -> None:
        """Write the rows into a bundle that is being made."""
        plain = {name: [_plain(value) for value in values] for name, values in self.columns.items()}
        (folder / FILE).write_text(json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """A typed value as JSON holds it and :func:`serving.inputs.coerce` reads it."""
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else np.datetime_as_string(value)
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(value)
    return value


def same(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.bool_]:
    """Where typed values are equal, a missing one to a missing one; broadcasts."""
    equal = np.asarray(left == right, dtype=bool)
    if left.dtype.kind == "f":
        equal |= np.isnan(left) & np.isnan(right)
    elif left.dtype.kind == "M":
        equal |= np.isnat(left) & np.isnat(right)
    return equal
