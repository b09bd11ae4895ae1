"""One loaded model: warmed up, measured, and ready to answer."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving import bundle
from serving.bundle import Model, Predictions
from serving.server.columns import Asked, Reader, Typed

_WARM_UP = {"number": 0.0, "boolean": 0.0, "string": "", "timestamp": "1970-01-01T00:00:00"}
_WARM_ROWS = 32
_TRIES = 5


class Served:
    """A bundle that has answered a warm-up request.

    Attributes:
        name: in the URLs.
        version: of the model: the revision that the metrics name.
        model: the loaded bundle.
        runtime: what scores: ``onnxruntime`` or the framework.
        reader: types the inputs.
        seconds_per_call: what scoring one row takes, measured at the warm-up.
        seconds_per_row: what each further row adds.
    """

    def __init__(self, name: str, version: str, model: Model) -> None:
        """Warm a loaded bundle up; takes some milliseconds to a second.

        Raises:
            BadBundle: it cannot predict.
        """
        self.name = name
        self.version = version
        self.model = model
        self.runtime = "onnxruntime" if model.runtime == "onnx" else model.manifest.framework
        self.reader = Reader(model.schema)
        # An explanation is scored in a thread of its own, beside predictions.
        self._one_at_a_time = contextlib.nullcontext() if self.is_parallel else threading.Lock()
        self._matrix: Callable[[NDArray[np.float64]], Predictions] | None = model.matrix_scorer()
        self._warm_up()

    @classmethod
    def load(cls, name: str, version: str, folder: Path) -> "Served":
        """Verify, load and warm up a bundle.

        Raises:
            BadBundle: it does not verify, load or predict.
        """
        return cls(name, version, bundle.load(folder))

    @property
    def is_parallel(self) -> bool:
        """Whether two threads may score at the same time: onnxruntime may, not every framework."""
        return self.runtime == "onnxruntime"

    def score(self, typed: Typed) -> Predictions:
        """Predict from typed inputs, in any thread.

        Returns:
            Probabilities (n, k), or values (n,).
        """
        if isinstance(typed, np.ndarray):
            if not len(typed):
                return self.model.no_predictions()
            if self._matrix is not None:
                return self._matrix(typed)
            typed = {name: typed[:, place] for name, place in self.reader.index.items()}
        with self._one_at_a_time:
            return self.model.predict_typed(typed)

    def score_columns(self, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> Predictions:
        """Predict from raw input columns by name, all of one length, in any thread.

        Raises:
            BadInput: a column is missing, or holds a value that does not fit; says column and row.
        """
        return self.score(self.reader.columns(columns))

    def expected_seconds(self, rows: int) -> float:
        """How long a batch of so many rows is likely to take."""
        return self.seconds_per_call + rows * self.seconds_per_row

    def _warm_up(self) -> None:
        row = tuple(_WARM_UP[column.type] for column in self.model.schema.inputs)
        took = []
        for count in (1, _WARM_ROWS):
            asked = Asked(count, rows=[row] * count)
            self.score(self.reader.typed(asked))  # the first run allocates
            best = float("inf")
            for _ in range(_TRIES):
                began = time.perf_counter()
                self.score(self.reader.typed(asked))
                best = min(best, time.perf_counter() - began)
            took.append(best)
        self.seconds_per_call = took[0]
        self.seconds_per_row = max(0.0, (took[1] - took[0]) / (_WARM_ROWS - 1))
