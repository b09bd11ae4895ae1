"""Latencies in a histogram whose buckets grow by 1 %: any number of requests in constant memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_EDGES = np.geomspace(1e3, 1e11, 1852)
"""Bucket edges in ns, 1 µs to 100 s; neighbours differ by 1 %."""


class Latencies:
    """Counts of latencies; percentiles are right within 1 %, the largest is exact."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_EDGES) + 1, dtype=np.int64)
        self.largest = 0.0

    def add(self, nanoseconds: NDArray[Any]) -> None:
        """Count latencies, shape (n,), ns."""
        if len(nanoseconds):
            found = np.searchsorted(_EDGES, nanoseconds)
            self._counts += np.bincount(found, minlength=len(self._counts))
            self.largest = max(self.largest, float(nanoseconds.max()))

    def __len__(self) -> int:
        return int(self._counts.sum())

    def percentile(self, percent: float) -> float:
        """Milliseconds that this share of the requests did not exceed; NaN where there were none."""
        total = self._counts.sum()
        if not total:
            return float("nan")
        index = int(np.searchsorted(self._counts.cumsum(), total * percent / 100))
        return float(min(_EDGES[min(index, len(_EDGES) - 1)], self.largest) / 1e6)

    def summary(self) -> dict[str, float]:
        """Milliseconds at the percentiles that are reported, and the largest."""
        shown = {f"p{percent:g}": self.percentile(percent) for percent in (50, 90, 99, 99.9)}
        return shown | {"max": self.largest / 1e6}
