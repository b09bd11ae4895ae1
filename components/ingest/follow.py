"""What goes on beside DuckDB's copying: the md5 of a file while it is written, and how far the reading has come."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

import duckdb

_BLOCK = 1 << 20
_WAIT = 0.05

EVERY = 5.0
"""Seconds between two lines of progress."""

Report = Callable[[str], None]
"""Takes a line about how far a step has come."""


def silent(_line: str) -> None:
    """Report to nobody."""


class Md5:
    """The md5 of a file that is being written from start to end, known soon after it is whole."""

    def __init__(self, path: Path, pool: Executor) -> None:
        """Start to follow; the file need not be there yet."""
        self._path = path
        self._whole = threading.Event()
        self._given_up = threading.Event()
        self._digest = pool.submit(self._follow)

    def end(self) -> str:
        """The file is whole now: read the rest of it."""
        self._whole.set()
        return self._digest.result()

    def give_up(self) -> None:
        """The file will not become whole."""
        self._given_up.set()
        self._whole.set()

    def _follow(self) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        while not self._path.exists() and not self._whole.wait(_WAIT):
            pass
        if self._given_up.is_set():
            return ""
        with self._path.open("rb") as stream:
            while not self._given_up.is_set():
                whole = self._whole.is_set()
                block = stream.read(_BLOCK)
                digest.update(block)
                if not block and whole:
                    break
                if not block:
                    self._whole.wait(_WAIT)
        return digest.hexdigest()


class Progress:
    """Reports every few seconds how much of a source has been read."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, total: int, report: Report) -> None:
        """Take what is to be asked.

        Args:
            connection: that reads.
            total: bytes of the source that will be read.
            report: takes the lines.
        """
        self._connection = connection
        self._total = total
        self._report = report
        self._before = 0
        self._now = 0

    def begin(self, size: int) -> None:
        """So many bytes are read next."""
        self._now = size

    def done(self) -> None:
        """They have been read."""
        self._before, self._now = self._before + self._now, 0

    def again(self) -> None:
        """All over."""
        self._before = self._now = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Report while the block runs."""
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(EVERY):
            share = min(max(self._connection.query_progress(), 0.0) / 100, 1.0)
            read = self._before + share * self._now
            self._report(f"{read / 1e6:,.0f} of {self._total / 1e6:,.0f} MB read")
