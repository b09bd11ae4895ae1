"""Decides, from the train split, what the network is and how raw columns are prepared for it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.errors import BadInput
from components.features.schema import FeatureSchema
from components.train.torch.settings import Settings
from serving.torch_model import Architecture, Categorical, Encoder, Numeric, squashed

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prepared:
    """How the columns are prepared.

    Attributes:
        encoder: raw columns to what the network takes; holds the architecture.
        start: of each bin of the prepared numbers, float32 ``(numbers, bins)``.
        inverse: 1 / the bin's width; 0 where a feature has fewer bins.
        edges: by feature, the quantiles of its raw values.
    """

    encoder: Encoder
    start: NDArray[np.float32]
    inverse: NDArray[np.float32]
    edges: dict[str, Floats]


def prepare(inputs: "pd.DataFrame", schema: FeatureSchema, settings: Settings) -> Prepared:
    """Learn vocabularies, scales and bins.

    Args:
        inputs: model frame of the train split, or a sample of it.
        schema: the kinds of the columns, the task and the classes.
        settings: the sizes.

    Raises:
        BadInput: there is nothing to learn from.
    """
    numbers = {f.name: inputs[f.name].to_numpy("float64") for f in schema.features if f.kind == "numeric"}
    texts = {f.name: inputs[f.name].to_numpy() for f in schema.features if f.kind == "categorical"}
    vocabularies = {name: _vocabulary(values, settings) for name, values in texts.items()}
    if not any(map(len, vocabularies.values())) and not any(np.isfinite(v).any() for v in numbers.values()):
        raise BadInput("No feature has a value in the train split: there is nothing to learn from.")
    largest = max(map(len, vocabularies.values()), default=1)
    architecture = Architecture(
        task=schema.task,
        outputs=len(schema.classes) if schema.task == "multiclass" else 1,
        numeric=tuple(Numeric(name=n, indicator=bool(np.isnan(v).any())) for n, v in numbers.items()),
        categorical=tuple(Categorical(name=n, vocabulary=v) for n, v in vocabularies.items()),
        numeric_embedding=settings.numeric_embedding,
        numeric_detail=settings.numeric_detail,
        numeric_size=settings.numeric_size,
        categorical_size=settings.categorical_size or min(32, max(4, round(1.6 * largest**0.56))),
        width=settings.width,
        blocks=settings.blocks,
        members=settings.members,
        dropout=settings.dropout,
    )
    scales = [_scale(values) for values in numbers.values()]
    centre, factor = (np.array([scale[index] for scale in scales], "float64") for index in (0, 1))
    start, inverse = _bins(list(numbers.values()), centre, factor, settings.numeric_detail)
    edges = {name: _quantiles(values, settings.numeric_detail) for name, values in numbers.items()}
    edges = {name: values for name, values in edges.items() if len(values)}
    return Prepared(Encoder(architecture, centre, factor), start, inverse, edges)


def _vocabulary(values: NDArray[Any], settings: Settings) -> tuple[str, ...]:
    """The categories of enough rows, the most frequent ones where there are too many; sorted."""
    import pandas as pd

    counts = pd.Series(values, dtype="object").value_counts()
    counts = counts[counts >= settings.least_rows]
    ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return tuple(sorted(str(name) for name, _ in ranked[: settings.most_categories]))


def _scale(values: Floats) -> tuple[float, float]:
    """The median, and 1 / the distance between the quartiles, or half the range where that is 0; 0 for a constant."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 0.0
    low, first, middle, third, high = (float(value) for value in np.quantile(known, (0, 0.25, 0.5, 0.75, 1)))
    distance = third - first if third > first else high / 2 - low / 2
    usable = np.finfo("float64").tiny < distance < np.inf
    return middle, 1 / distance if usable else 0.0


def _quantiles(values: Floats, detail: int) -> Floats:
    known = values[np.isfinite(values)]
    edges: Floats = np.unique(np.quantile(known, np.linspace(0, 1, detail + 1))) if len(known) else known
    return edges


def _bins(
    numbers: list[Floats], centre: Floats, factor: Floats, detail: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    start, inverse = (np.zeros((len(numbers), detail), "float32") for _ in range(2))
    for row, values in enumerate(numbers):
        edges = np.unique(squashed(_quantiles(values, detail), centre[row], factor[row]))
        widths = np.diff(edges)
        wide = widths > 1e-6  # the neighbour takes what lies in a narrower bin
        count = int(wide.sum())
        start[row, :count], inverse[row, :count] = edges[:-1][wide], 1 / widths[wide]
    return start, inverse
