"""What one watch sends."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.cluster.errors import Refused
from tests.cluster.kinds import Served
from tests.cluster.storage import Happened, Storage

Plain = dict[str, Any]


@dataclass(frozen=True)
class Watch:
    """A watch as it was asked for.

    Attributes:
        kind: of the objects.
        version: what happened after it is told; 0 begins with the objects as they are.
        seconds: how long it lasts.
        bookmarks: seconds between bookmarks; 0 sends none.
        selected: whether it is about an object.
        ended: whether it is cut, or the server stops.
    """

    kind: Served
    version: int
    seconds: float
    bookmarks: float
    selected: Callable[[Plain], bool]
    ended: Callable[[], bool]

    def events(self, storage: Storage) -> Iterator[Plain]:
        """The events, as they come."""
        end = time.monotonic() + self.seconds
        with storage.lock:
            at = self.version or storage.version
            now = [] if self.version else [thing for thing in storage.all(self.kind) if self.selected(thing)]
        yield from ({"type": "ADDED", "object": thing} for thing in now)
        marked = time.monotonic()
        while not self.ended() and (left := end - time.monotonic()) > 0:
            try:
                with storage.lock:
                    changes, at = storage.since(at, self.kind), storage.version
            except Refused as refusal:
                yield {"type": "ERROR", "object": refusal.status}
                return
            yield from filter(None, map(self._event, changes))
            if self.bookmarks and time.monotonic() - marked >= min(self.bookmarks, self.seconds / 2):
                marked = time.monotonic()
                yield self._bookmark(at)
            pause = min(left, self.bookmarks or left, 1.0)
            storage.wait(lambda since=at: storage.version != since or self.ended(), pause)  # type: ignore[misc]

    def _event(self, change: Happened) -> Plain | None:
        """A change as this watch sees it: an object that the selector no longer selects is gone to it."""
        was = change.before is not None and self.selected(change.before)
        now = change.after is not None and self.selected(change.after)
        what = {(False, True): "ADDED", (True, True): "MODIFIED", (True, False): "DELETED"}.get((was, now))
        return {"type": what, "object": change.last} if what else None

    def _bookmark(self, version: int) -> Plain:
        head = {"kind": self.kind.kind, "apiVersion": self.kind.api_version}
        return {"type": "BOOKMARK", "object": head | {"metadata": {"resourceVersion": str(version)}}}
