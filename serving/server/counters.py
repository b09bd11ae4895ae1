"""Counts in memory that all workers share: each writes its own row, any of them reads the sum.

A row begins with the process id and the length of its directory, which grows as counters are named. An entry is a key
and its values, so that rows need not hold the same counters at the same places. Nobody locks: a row has one writer,
and a reader sees an entry once the length covers it.

A row outlives its worker. The one that takes its place goes on where it stopped, so totals never fall; gauges, whose
keys begin with ``GAUGE``, begin at zero.
"""

import mmap
import os
import struct
from collections.abc import Iterator

GAUGE = "gauge:"
ROW_BYTES = 8 * 1024 * 1024
"""Of address space; only pages that are written to take memory."""

_WORD = 8
_HEAD = 3 * _WORD  # process id, length of the directory, whether it has been ready
_ENTRY = struct.Struct("<II")  # bytes of the key, padded; number of values


class Board:
    """The rows of all workers; made before they are forked."""

    def __init__(self, rows: int = 1) -> None:
        """Make empty rows."""
        self.rows = rows
        self._memory = mmap.mmap(-1, rows * ROW_BYTES)  # anonymous and shared with children

    def row(self, place: int) -> "Row":
        """Take a row to write to; its gauges begin at zero."""
        row = Row(self._view(place))
        row.take()
        return row

    def release(self, place: int) -> None:
        """Note that the process of a row is gone."""
        view = self._view(place)
        row = Row(view)
        row.take()
        view.cast("q")[0] = 0

    def mark_ready(self, place: int) -> None:
        """Note that the worker of a row has begun to answer; its successors count as ready, too."""
        self._view(place).cast("q")[2] = 1

    def are_ready(self, count: int) -> bool:
        """Whether the first rows' workers have all begun to answer."""
        return all(self._view(place).cast("q")[2] for place in range(count))

    def pids(self) -> list[int]:
        """The processes that write now."""
        return [pid for place in range(self.rows) if (pid := self._view(place).cast("q")[0])]

    def sums(self) -> dict[str, list[float]]:
        """The values of every key, added up over all rows."""
        sums: dict[str, list[float]] = {}
        for place in range(self.rows):
            view = self._view(place)
            values = view.cast("d")
            for key, start, count in _entries(view):
                found = [float(value) for value in values[start : start + count]]
                known = sums.get(key)
                sums[key] = found if known is None else [a + b for a, b in zip(known, found, strict=True)]
        return sums

    def _view(self, place: int) -> memoryview:
        return memoryview(self._memory)[place * ROW_BYTES : (place + 1) * ROW_BYTES]


class Row:
    """The counts of one worker."""

    def __init__(self, view: memoryview) -> None:
        """Find the counters that the row holds already."""
        self._view = view
        self._words = view.cast("q")
        self.values = view.cast("d")
        """Add to these, at the places that :meth:`place` gives."""
        self._places = {key: start for key, start, _ in _entries(view)}

    def take(self) -> None:
        """Be written to by this process, and set the gauges to zero."""
        self._words[0] = os.getpid()
        for key, start, count in _entries(self._view):
            if key.startswith(GAUGE):
                for place in range(start, start + count):
                    self.values[place] = 0.0

    def place(self, key: str, count: int = 1) -> int:
        """Where the values of a key begin; a new one begins at zero.

        Args:
            key: at most some hundred characters.
            count: how many values it has; the same in every row.

        Raises:
            MemoryError: the row is full.
        """
        known = self._places.get(key)
        if known is not None:
            return known
        text = key.encode()
        text += b"\0" * (-len(text) % _WORD)
        used = self._words[1]
        start = _HEAD + used + _ENTRY.size + len(text)
        if start + count * _WORD > len(self._view):
            raise MemoryError(f"There is no room for another counter: {key!r}")
        self._view[start - len(text) - _ENTRY.size : start] = _ENTRY.pack(len(text), count) + text
        self._words[1] = used + _ENTRY.size + len(text) + count * _WORD  # last: now others see it
        self._places[key] = start // _WORD
        return start // _WORD


def _entries(view: memoryview) -> Iterator[tuple[str, int, int]]:
    """Key, place of the first value and number of values of each entry."""
    at, end = _HEAD, _HEAD + view.cast("q")[1]
    while at < end:
        length, count = _ENTRY.unpack_from(view, at)
        start = at + _ENTRY.size + length
        yield bytes(view[at + _ENTRY.size : start]).rstrip(b"\0").decode(), start // _WORD, count
        at = start + count * _WORD
