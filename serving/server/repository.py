"""The models of this process by name; loading, swapping and unloading them while requests are answered."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import SluicewayError
from serving.server.batching import Batcher
from serving.server.failures import NotFound, NotServing
from serving.server.limits import Limits
from serving.server.served import Served
from serving.server.telemetry import Telemetry

log = logging.getLogger("sluiceway.serving")


@dataclass
class Entry:
    """A model that the server knows.

    Attributes:
        name: in the URLs.
        version: the revision that metrics and replies name.
        folder: of the bundle.
        telemetry: counts its requests.
        batcher: the queue in front of it; None unless it answers.
        failure: why it does not, where loading failed.
    """

    name: str
    version: str
    folder: Path
    telemetry: Telemetry
    batcher: Batcher | None = None
    failure: str = ""
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Repository:
    """The models by name."""

    def __init__(self, limits: Limits) -> None:
        """Make an empty repository."""
        self._limits = limits
        self._entries: dict[str, Entry] = {}
        self.draining = False
        self.changed: Callable[[], None] = lambda: None
        """Called when a model begins or ceases to answer."""
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="load")

    def add(self, name: str, version: str, folder: Path, telemetry: Telemetry) -> None:
        """Name a bundle; :meth:`load` loads it."""
        self._entries[name] = Entry(name, version, folder, telemetry)

    def names(self) -> list[str]:
        """The names of all models, loaded or not."""
        return list(self._entries)

    def entry(self, name: str) -> Entry:
        """What is known of a model.

        Raises:
            NotFound: there is none of that name.
        """
        try:
            return self._entries[name]
        except KeyError:
            raise NotFound(f"Model with name {name} does not exist.") from None

    def is_ready(self, name: str) -> bool:
        """Whether a model answers; false for all once the server drains, so that no new traffic is sent to it.

        Raises:
            NotFound: there is none of that name.
        """
        return self.entry(name).batcher is not None and not self.draining

    def batcher(self, name: str) -> Batcher:
        """The queue in front of a model that answers.

        Raises:
            NotFound: there is none of that name.
            NotServing: it is not loaded.
        """
        batcher = self.entry(name).batcher
        if batcher is None:
            raise NotServing(f"Model with name {name} is not ready.")
        return batcher

    def get(self, name: str) -> Served:
        """A model that answers; raises as :meth:`batcher` does."""
        return self.batcher(name).served

    async def load(self, name: str) -> None:
        """Load a model from its bundle; the one that answers goes on until the new one has warmed up.

        Raises:
            NotFound: there is none of that name.
            BadBundle: the bundle does not verify, load or predict; what answered before still does.
        """
        entry = self.entry(name)
        async with entry.loading:
            loop = asyncio.get_running_loop()
            try:
                served = await loop.run_in_executor(self._pool, Served.load, name, entry.version, entry.folder)
            except SluicewayError as error:
                entry.failure = str(error)
                raise
            entry.failure = ""
            entry.telemetry.expect(served.model.manifest)
            old, entry.batcher = entry.batcher, Batcher(served, self._limits, entry.telemetry)
            self.changed()
            if old is not None:
                old.close()

    async def unload(self, name: str) -> None:
        """Let a model go; requests that wait are still answered.

        Raises:
            NotFound: there is none of that name.
        """
        entry = self.entry(name)
        async with entry.loading:
            old, entry.batcher = entry.batcher, None
            self.changed()
            if old is not None:
                old.close()
