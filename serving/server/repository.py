"""The models of this process by name; loading, swapping and unloading them while requests are answered.

With several workers each has its own repository, and a load is two steps in all of them: every one prepares the model,
then every one swaps it in. If one cannot, none does. :mod:`serving.server.workers` sees to it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import SluicewayError
from serving.server.batching import Batcher
from serving.server.failures import NotAllowed, NotFound, NotLoaded, NotServing
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
        prepared: warmed up, to be swapped in.
        is_new: whether it was discovered, and has not answered yet.
        is_wanted: whether it counts for the server's readiness: false once a client has unloaded it.
    """

    name: str
    version: str
    folder: Path
    telemetry: Telemetry
    batcher: Batcher | None = None
    failure: str = ""
    prepared: Served | None = None
    is_new: bool = False
    is_wanted: bool = True
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Repository:
    """The models by name."""

    def __init__(self, limits: Limits) -> None:
        """Make an empty repository."""
        self._limits = limits
        self._entries: dict[str, Entry] = {}
        self.draining = False
        self.is_controlled = False
        """Whether clients may load and unload models."""
        self.others_ready: Callable[[], bool] = lambda: True
        """Whether the other workers have begun to answer, too: only then is this one ready."""
        self.ask_all: Callable[[str, str], Awaitable[None]] | None = None
        """Has all workers ``load`` or ``unload`` a model; None where there is only this one."""
        self.discover: Callable[[str], bool] = lambda _: False
        """Called with the name of a model that is not known; true once it was added."""
        self.forget: Callable[[str], None] = lambda _: None
        """Called with the name of a model that was discovered and does not load."""
        self.check: Callable[[Served], None] = lambda _: None
        """Called with a model before it answers; what it raises keeps the model from answering."""
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
        return self.entry(name).batcher is not None and not self.draining and self.others_ready()

    def all_ready(self) -> bool:
        """Whether every model answers, but for those that a client has unloaded."""
        if self.draining or not self.others_ready():
            return False
        return all(entry.batcher is not None for entry in self._entries.values() if entry.is_wanted)

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
        """Load a model, in all workers, because a client asks; the one that answers goes on until the new one can.

        Raises:
            NotAllowed: the server was not started for that.
            NotFound: there is none of that name.
            NotLoaded: the bundle does not verify, load or predict; what answered before still does.
        """
        self._check_control()
        if self.ask_all is not None:
            await self.ask_all("load", name)
            return
        await self.prepare(name)
        self.commit(name)

    async def unload(self, name: str) -> None:
        """Let a model go, in all workers, because a client asks; requests that wait are still answered.

        Raises:
            NotAllowed: the server was not started for that.
            NotFound: there is none of that name.
        """
        self._check_control()
        self.entry(name)
        if self.ask_all is not None:
            await self.ask_all("unload", name)
        else:
            self.unload_here(name)

    async def load_here(self, name: str) -> None:
        """Load a model in this process alone.

        Raises:
            NotFound: there is none of that name.
            SluicewayError: the bundle does not verify, load or predict.
        """
        entry = self.entry(name)
        async with entry.loading:
            try:
                entry.prepared = await self._warmed_up(entry)
            except SluicewayError as error:
                entry.failure = str(error)
                raise
        self.commit(name)

    async def prepare(self, name: str) -> None:
        """Load a model aside, in this process; :meth:`commit` swaps it in.

        Raises:
            NotFound: there is none of that name.
            NotLoaded: the bundle does not verify, load or predict.
        """
        if name not in self._entries and self.discover(name):
            self.entry(name).is_new = True
        entry = self.entry(name)
        async with entry.loading:
            try:
                entry.prepared = await self._warmed_up(entry)
            except SluicewayError as error:
                if entry.batcher is None:
                    entry.failure = str(error)
                self.abandon(name)
                raise NotLoaded(str(error)) from error

    def commit(self, name: str) -> None:
        """Swap in what was prepared; the old one still answers what waits for it."""
        entry = self.entry(name)
        served, entry.prepared = entry.prepared, None
        if served is None:
            return
        entry.failure = ""
        entry.is_new = False
        entry.is_wanted = True
        entry.telemetry.expect(served.model.manifest)
        old, entry.batcher = entry.batcher, Batcher(served, self._limits, entry.telemetry)
        self.changed()
        if old is not None:
            old.close()

    def abandon(self, name: str) -> None:
        """Drop what was prepared."""
        entry = self._entries.get(name)
        if entry is None:
            return
        entry.prepared = None
        if entry.is_new:
            del self._entries[name]
            self.forget(name)

    def unload_here(self, name: str) -> None:
        """Let a model go in this process.

        Raises:
            NotFound: there is none of that name.
        """
        entry = self.entry(name)
        entry.is_wanted = False
        old, entry.batcher = entry.batcher, None
        self.changed()
        if old is not None:
            old.close()

    async def _warmed_up(self, entry: Entry) -> Served:
        loop = asyncio.get_running_loop()
        served = await loop.run_in_executor(self._pool, Served.load, entry.name, entry.version, entry.folder)
        self.check(served)
        return served

    def _check_control(self) -> None:
        if not self.is_controlled:
            raise NotAllowed(
                "Models are loaded and unloaded by clients only where it runs with --model-control explicit."
            )
