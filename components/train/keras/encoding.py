"""Turns the model frame into what the network reads: a code per category, a standardised number per number.

Everything here is decided from the train split and travels inside the saved model.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.features.schema import FeatureSchema
from components.train.feature_set import Split

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MOST_CATEGORIES = 10_000
"""Of a column with more, the most frequent are kept; the others share the code of an unseen one."""
BINS = 16
_NARROWEST = 1e-6  # of a bin, in standardised units: narrower ones float32 cannot tell apart
_LARGEST_SCALE = 1e300


@dataclass(frozen=True)
class Table:
    """Encoded rows.

    Attributes:
        codes: int32 ``(n, categorical features)``; 0 is an unseen category, counted on over the columns.
        numbers: float32 ``(n, numeric features)``, NaN for missing.
        target: int32 class indices ``(n,)``, or float32 standardised values.
    """

    codes: "np.ndarray[Any, Any]"
    numbers: "np.ndarray[Any, Any]"
    target: "np.ndarray[Any, Any]"

    def __len__(self) -> int:
        """How many rows."""
        return len(self.target)

    def arrays(self) -> "tuple[np.ndarray[Any, Any], ...]":
        """Codes, numbers and target."""
        return self.codes, self.numbers, self.target

    def part(self, rows: "slice | np.ndarray[Any, Any]") -> "Table":
        """Some of the rows."""
        return Table(self.codes[rows], self.numbers[rows], self.target[rows])


@dataclass(frozen=True)
class Numbers:
    """The numeric columns: ``(value - centre) / scale``, and where the network bends.

    Attributes:
        names: of the columns.
        centre: float64 ``(columns,)``, the median.
        scale: float64 ``(columns,)``, the distance between the quartiles or, where that is none, a wider one.
        column: int64 ``(bins,)``, which column a bin belongs to.
        low: float32 ``(bins,)``, where the bin begins, in standardised units.
        width: float32 ``(bins,)``, above 0.
        gaps: int64, the columns that have missing values in the train split.
    """

    names: tuple[str, ...]
    centre: "np.ndarray[Any, Any]"
    scale: "np.ndarray[Any, Any]"
    column: "np.ndarray[Any, Any]"
    low: "np.ndarray[Any, Any]"
    width: "np.ndarray[Any, Any]"
    gaps: "np.ndarray[Any, Any]"

    @property
    def inputs(self) -> int:
        """How many numbers the network gets of them."""
        return len(self.column) + len(self.gaps)


@dataclass(frozen=True)
class Vocabulary:
    """The categories of a column.

    Attributes:
        words: in the order of their codes, from 1; the most frequent first.
        counts: of each in the train split.
        others: rows of the train split with a category that is not among them.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]
    others: int = 0

    @classmethod
    def fit(cls, column: "pd.Series[str]") -> "Vocabulary":
        """The most frequent categories of a column; those of one frequency by name."""
        found = column.value_counts().items()
        ranked = sorted(((str(word), int(count)) for word, count in found), key=lambda pair: (-pair[1], pair[0]))
        kept = ranked[:MOST_CATEGORIES]
        counts = tuple(count for _, count in kept)
        return cls(tuple(word for word, _ in kept), counts, len(column) - sum(counts))


@dataclass(frozen=True)
class Encoding:
    """How the columns are encoded.

    Attributes:
        numbers: the numeric columns.
        vocabularies: by categorical column.
        centre: of the target, 0 for classification.
        scale: of the target, 1 for classification.
    """

    numbers: Numbers
    vocabularies: dict[str, Vocabulary]
    centre: float = 0.0
    scale: float = 1.0

    @classmethod
    def fit(cls, split: Split, schema: FeatureSchema) -> "Encoding":
        """Decide everything from the train split.

        Raises:
            BadInput: no feature has two values.
        """
        frame = split.inputs
        numeric = [feature.name for feature in schema.features if feature.kind == "numeric"]
        texts = [feature.name for feature in schema.features if feature.kind == "categorical"]
        made = cls(_fit_numbers(frame[numeric]), {name: Vocabulary.fit(frame[name]) for name in texts})
        if not made.numbers.inputs and not texts:
            raise BadInput("No feature has two values in the train split: there is nothing to learn from.")
        if schema.task != "regression":
            return made
        spread = float(split.target.std())
        return cls(made.numbers, made.vocabularies, float(split.target.mean()), spread if spread > 0 else 1.0)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """By categorical column, the first of its codes in the one embedding table of all of them."""
        firsts, total = [], 0
        for vocabulary in self.vocabularies.values():
            firsts.append(total)
            total += len(vocabulary.words) + 1
        return tuple(firsts)

    @property
    def size(self) -> int:
        """Rows of the embedding table."""
        return sum(len(vocabulary.words) + 1 for vocabulary in self.vocabularies.values())

    def encode(self, split: Split, codes: "np.ndarray[Any, Any] | None" = None) -> Table:
        """Encode rows of the model frame with their target; the codes may be known already."""
        import numpy as np

        if split.target.dtype.kind == "i":
            target = split.target.astype("int32")
        else:
            target = np.asarray((split.target - self.centre) / self.scale, "float32")
        return Table(self.codes(split.inputs) if codes is None else codes, self._standardised(split.inputs), target)

    def codes(self, frame: "pd.DataFrame") -> "np.ndarray[Any, Any]":
        """The codes of the categorical columns, int32 ``(n, columns)``."""
        import numpy as np
        import pandas as pd

        codes = np.empty((len(frame), len(self.vocabularies)), "int32")
        for index, (name, vocabulary) in enumerate(self.vocabularies.items()):
            found = pd.Index(vocabulary.words, dtype=object).get_indexer(pd.Index(frame[name]))
            codes[:, index] = found + 1 + self.offsets[index]
        return codes

    def _standardised(self, frame: "pd.DataFrame") -> "np.ndarray[Any, Any]":
        import numpy as np

        numbers = self.numbers
        values = frame[list(numbers.names)].to_numpy("float64")
        with np.errstate(over="ignore"):
            return np.asarray((values - numbers.centre) / numbers.scale, "float32")


def _fit_numbers(frame: "pd.DataFrame") -> Numbers:
    import numpy as np

    centres, scales, columns, lows, widths, gaps = [], [], [], [], [], []
    for index, name in enumerate(frame):
        values = frame[name].to_numpy("float64")
        known = values[~np.isnan(values)]
        if len(known) < len(values):
            gaps.append(index)
        centre, scale = _centre_and_scale(known)
        with np.errstate(over="ignore"):
            knots = _knots(((known - centre) / scale).astype("float32"))
        centres.append(centre)
        scales.append(scale)
        columns += [index] * (len(knots) - 1)
        lows += knots[:-1].tolist()
        widths += np.diff(knots).tolist()
    # A column that is always missing says nothing by being so.
    gaps = [index for index in gaps if frame.iloc[:, index].notna().any()]
    return Numbers(
        names=tuple(map(str, frame)),
        centre=np.array(centres, "float64"),
        scale=np.array(scales, "float64"),
        column=np.array(columns, "int64"),
        low=np.array(lows, "float32"),
        width=np.array(widths, "float32"),
        gaps=np.array(gaps, "int64"),
    )


def _centre_and_scale(known: "np.ndarray[Any, Any]") -> tuple[float, float]:
    """Median, and the first of three distances between quantiles that is not 0."""
    import numpy as np

    if not len(known):
        return 0.0, 1.0
    cuts = np.quantile(known / 4, [0.5, 0.25, 0.75, 0.05, 0.95, 0.0, 1.0]) * 4  # a quarter, so that nothing overflows
    for low, high in ((1, 2), (3, 4), (5, 6)):
        scale = float(cuts[high] / 4 - cuts[low] / 4) * 4
        if scale > 0:
            return float(cuts[0]), min(scale, _LARGEST_SCALE)
    return float(cuts[0]), 1.0


def _knots(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Quantiles that lie apart, from the smallest value to the largest; fewer than two where there is one value."""
    import numpy as np

    values = values[np.isfinite(values)]
    if not len(values):
        return values
    quantiles = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1), method="nearest"))
    kept = [quantiles[0]]
    for knot in quantiles[1:]:
        if knot - kept[-1] > _NARROWEST * max(1.0, abs(float(knot))):
            kept.append(knot)
    return np.array(kept, "float32")
