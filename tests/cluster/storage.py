"""Objects, their versions, and what happened to them."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.cluster.errors import Refused
from tests.cluster.kinds import Served

Plain = dict[str, Any]
Key = tuple[str, str]  # namespace, name


@dataclass(frozen=True)
class Happened:
    """One change of one object.

    Attributes:
        version: the store's version since then.
        kind: of the object.
        before: the object until then; None when it is new.
        after: the object since; None when it is gone.
        last: the object as it was last, with this version.
    """

    version: int
    kind: Served
    before: Plain | None
    after: Plain | None
    last: Plain


class Storage:
    """All objects of a server. What is stored is never changed in place, so that readers need no copies."""

    def __init__(self, remembers: int = 10_000) -> None:
        """Begin empty; ``remembers`` is how many changes a watch can go back."""
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = 1
        self.oldest = 1  # a watch from before this version is refused
        self._objects: dict[tuple[str, str, str], dict[Key, Plain]] = {}
        self._history: deque[Happened] = deque()
        self._remembers = remembers

    def get(self, kind: Served, namespace: str, name: str) -> Plain | None:
        """An object."""
        return self._objects.get(kind.order, {}).get((namespace, name))

    def all(self, kind: Served, namespace: str = "") -> list[Plain]:
        """The objects of a kind, of one namespace or of all, in order."""
        with self.lock:
            found = sorted(self._objects.get(kind.order, {}).items())
        return [thing for (where, _), thing in found if not namespace or where == namespace]

    def put(self, kind: Served, key: Key, thing: Plain) -> Plain:
        """Store an object under the next version; gives it with that in it."""
        with self.lock:
            self.version += 1
            thing = thing | {"metadata": thing["metadata"] | {"resourceVersion": str(self.version)}}
            objects = self._objects.setdefault(kind.order, {})
            self._note(Happened(self.version, kind, objects.get(key), thing, thing))
            objects[key] = thing
            return thing

    def remove(self, kind: Served, key: Key) -> Plain:
        """Take an object away; gives it as it was last."""
        with self.lock:
            self.version += 1
            thing = self._objects[kind.order].pop(key)
            last = thing | {"metadata": thing["metadata"] | {"resourceVersion": str(self.version)}}
            self._note(Happened(self.version, kind, thing, None, last))
            return last

    def since(self, version: int, kind: Served) -> list[Happened]:
        """What happened to objects of a kind after a version.

        Raises:
            Refused: 410 when that is forgotten.
        """
        with self.lock:
            if version < self.oldest:
                raise Refused(410, f"too old resource version: {version} ({self.oldest})", "Expired")
            recent: list[Happened] = []
            for change in reversed(self._history):
                if change.version <= version:
                    break
                if change.kind is kind:
                    recent.append(change)
            return recent[::-1]

    def forget(self) -> None:
        """Forget what happened until now, as compaction does."""
        with self.changed:
            self._history.clear()
            self.version += 1  # even the newest version that anyone can know of is too old now
            self.oldest = self.version
            self.changed.notify_all()

    def wait(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Wait until something holds, looking again after each change."""
        with self.changed:
            return self.changed.wait_for(ready, seconds)

    def _note(self, change: Happened) -> None:
        self._history.append(change)
        if len(self._history) > self._remembers:
            self.oldest = self._history.popleft().version
        self.changed.notify_all()
