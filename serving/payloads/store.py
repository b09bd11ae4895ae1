"""The store of Parquet files: a part per revision, hour and while, whole or not there."""

import datetime
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import duckdb

from components.errors import StorageFull
from components.files import whole_file
from serving.payloads.exchange import Exchange
from serving.payloads.redaction import Unreadable
from serving.payloads.rows import Column, Layout, Table
from serving.payloads.settings import Settings
from serving.payloads.waiting import Waiting

MOST_ROWS = 65_536
MOST_BYTES = 32 * 1024 * 1024
"""Of the bodies whose rows wait for their files, in all; a file is a small share of that."""
TRIES = 6
_BACKOFF_SECONDS = 0.25  # then twice that, and so on, up to 8 s in all

Key = tuple[str, str, int]
"""Model, revision, and hours since the epoch."""


class Store:
    """Writes the rows of exchanges to Parquet files."""

    def __init__(
        self,
        settings: Settings,
        layout: Callable[[Exchange], Layout],
        count: Callable[[str, int], None],
        warn: Callable[[str], None],
    ) -> None:
        """Begin to write.

        Args:
            settings: where to, and how.
            layout: of the model that an exchange is with; raises Unreadable where that is unknown.
            count: told what became of exchanges.
            warn: told why a part could not be written.
        """
        self._root = settings.store.rstrip("/")
        self._roll_seconds = settings.roll_seconds
        self._layout = layout
        self._count = count
        self._warn = warn
        self._waiting = Waiting(settings.queue_bytes)
        self._leave = threading.Event()
        self._tables: dict[Key, tuple[Table, Layout, float]] = {}
        self._bytes = 0
        self._duckdb = duckdb.connect(config={"threads": 1, "memory_limit": "256MB"})
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def offer(self, exchange: Exchange) -> None:
        """Write an exchange later, or count that it cannot be kept."""
        if not self._waiting.put(exchange):
            self._count("queue", 1)

    def close(self, deadline: float) -> None:
        """Write what waits; what is not written at the deadline is left."""
        self._waiting.close()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._leave.set()

    def _run(self) -> None:
        while not self._leave.is_set() and not self._waiting.ended:
            exchange = self._waiting.get(self._until_due())
            if exchange is not None:
                self._add(exchange)
            self._write_due()
        for key in list(self._tables):
            self._write(key)

    def _add(self, exchange: Exchange) -> None:
        key = (exchange.model, exchange.revision, int(exchange.at // 3600))
        try:
            layout = self._layout(exchange)
        except Unreadable:
            self._count("unreadable", 1)
            return
        if key in self._tables and self._tables[key][1] is not layout:
            self._write(key)  # another bundle under the same revision
        if key not in self._tables:
            self._tables[key] = (Table(layout), layout, time.monotonic() + self._roll_seconds)
        table = self._tables[key][0]
        table.add(exchange)
        self._bytes += exchange.bytes
        if table.rows >= MOST_ROWS:
            self._write(key)
        elif self._bytes >= MOST_BYTES:
            for one in list(self._tables):
                self._write(one)

    def _until_due(self) -> float:
        due = min((due for _, _, due in self._tables.values()), default=time.monotonic() + 60.0)
        return max(0.0, due - time.monotonic())

    def _write_due(self) -> None:
        now = time.monotonic()
        for key in [key for key, (_, _, due) in self._tables.items() if due <= now]:
            self._write(key)

    def _write(self, key: Key) -> None:
        table, layout, _ = self._tables.pop(key)
        self._bytes -= table.bytes
        if not table.rows:
            self._count("written", table.exchanges)
            return
        path = f"{self._root}/{_folder(key)}/part-{time.time_ns() // 1_000_000}-{uuid.uuid4().hex[:12]}.parquet"
        content = self._parquet(table.columns(), layout.types)
        for attempt in range(TRIES):
            if attempt and self._leave.wait(_BACKOFF_SECONDS * 2 ** (attempt - 1)):
                break
            try:
                put(path, content)
            except (OSError, StorageFull, ValueError, ImportError) as error:
                self._warn(f"A part of payloads cannot be written to {path}: {error}")
                continue
            self._count("written", table.exchanges)
            return
        self._count("failed", table.exchanges)

    def _parquet(self, columns: dict[str, Column], types: dict[str, str]) -> bytes:
        """A Parquet file; made in memory, since the server's file system may be read-only."""
        chosen = ", ".join(f"CAST({_quoted(name)} AS {kind}) AS {_quoted(name)}" for name, kind in types.items())
        with os.fdopen(os.memfd_create("part"), "rb") as file:
            self._duckdb.execute(
                f"COPY (SELECT {chosen} FROM columns) TO '/proc/self/fd/{file.fileno()}' "
                "(FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false)"
            )
            return file.read()


def put(path: str, content: bytes) -> None:
    """Write a file or object that appears whole or not at all.

    Raises:
        OSError: the store refuses, or is not there.
        StorageFull: the disk is full.
    """
    if path.startswith("file://"):
        with whole_file(Path(path.removeprefix("file://"))) as aside:
            aside.write_bytes(content)
        return
    import fsspec

    filesystem, inside = fsspec.core.url_to_fs(path)
    filesystem.pipe_file(inside, content)


def _folder(key: Key) -> str:
    model, revision, hours = key
    hour = datetime.datetime.fromtimestamp(hours * 3600, datetime.UTC)
    return f"model={quote(model, '')}/revision={quote(revision, '')}/date={hour:%Y-%m-%d}/hour={hour:%H}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
