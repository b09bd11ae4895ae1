"""How much counters grew, exactly: from raw samples, over restarts and new series.

PromQL's ``increase()`` extrapolates to the edges of its window and so gives fractions of requests; and it misses all
that a counter showed when it was first seen. Tests that count requests need neither.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Key = frozenset[tuple[str, str]]

_SCRAPE = frozenset({"job", "endpoint", "service", "prometheus", "prometheus_replica", "replica"})
"""Labels that tell scrapes of one target apart: two monitors that pick the same pod must not count it twice."""


@dataclass(frozen=True)
class Series:
    """One series: its labels, and its samples as (Unix seconds, value), oldest first."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]


class Increases:
    """Growth of every series since a moment, summed up sample by sample.

    Attributes:
        totals: growth by series, the labels of scraping left out.
        newest: time of the newest sample; minus infinity before the first.
    """

    def __init__(self, since: float, one_process: bool, from_zero: bool = True) -> None:
        """Begin to count.

        Args:
            since: Unix seconds by Prometheus' clock; older samples are only what is counted from.
            one_process: whether a target's counters fall together; else each histogram and counter is on its own.
            from_zero: whether a series that is first seen after ``since`` is new and has counted from 0.
        """
        self.totals: dict[Key, float] = defaultdict(float)
        self.newest = -math.inf
        self._since = since
        self._one_process = one_process
        self._from_zero = from_zero
        self._last: dict[Key, float] = {}
        self._last_time: dict[Key, float] = {}
        self._scraped_as: dict[Key, Key] = {}
        self._members: dict[Key, set[Key]] = defaultdict(set)

    def feed(self, found: Iterable[Series]) -> None:
        """Take in samples; those that were seen before are passed over."""
        scrapes: dict[Key, dict[float, dict[Key, float]]] = defaultdict(lambda: defaultdict(dict))
        for series in found:
            whole = frozenset(series.labels.items())
            key = frozenset(item for item in whole if item[0] not in _SCRAPE)
            if self._scraped_as.setdefault(key, whole) != whole:
                continue
            group = self._group(series.labels)
            self._members[group].add(key)
            for time, value in series.samples:
                self.newest = max(self.newest, time)
                if time > self._last_time.get(key, -math.inf) and math.isfinite(value):
                    scrapes[group][time][key] = value
        for group, times in scrapes.items():
            for time in sorted(times):
                self._scraped(group, time, times[time])

    def _scraped(self, group: Key, time: float, values: Mapping[Key, float]) -> None:
        if any(value < self._last.get(key, -math.inf) for key, value in values.items()):
            # Started again: whatever of it did not fall has overtaken itself, or has not been seen again yet.
            self._last.update(dict.fromkeys(self._members[group], 0.0))
        for key, value in values.items():
            before = self._last.get(key, 0.0 if self._from_zero else value)
            if time > self._since:
                self.totals[key] += value - before
            self._last[key], self._last_time[key] = value, time

    def _group(self, labels: Mapping[str, str]) -> Key:
        kept = ("instance", "pod", "namespace") if self._one_process else labels.keys() - _SCRAPE - {"le"}
        return frozenset((name, labels[name]) for name in kept if name in labels)
