"""How manifests reach the cluster: applied by us, as our field manager. The other way is in gitops.py."""

import re
import time
from collections.abc import Callable
from typing import Any, Protocol

from components.cluster.api import Cluster, Conflict, Kind
from components.errors import Changed, Unreachable
from components.rollout.targets.kserve_fields import applied, at, by

Plain = dict[str, Any]

Guard = Callable[[], None]
"""Returns while this rollout still owns the service, else raises ``Lost``; asked before every write."""

_PAUSES = (0.1, 0.3, 1.0, 3.0)
_OWNED = re.compile(r'conflicts? with "([^"]+)"')
_FIELD = re.compile(r"\.(spec|metadata)[^\s,]*")


class Applier(Protocol):
    """What brings manifests into the cluster.

    Attributes:
        seconds: how long what was written may take until the API server has it.
        direct: whether it has it at once.
    """

    seconds: float
    direct: bool

    def current(self, kind: Kind, name: str) -> Plain | None:
        """The manifest that was written last; None when there is none of ours."""
        ...

    def apply(self, manifest: Plain) -> None:
        """Bring a manifest in; fields that were in the last one and are not in this one go away.

        Raises:
            Changed: another manager has taken over one of its fields.
        """
        ...

    def delete(self, kind: Kind, name: str) -> None:
        """Take an object away; one that is gone already is gone."""
        ...


class Direct:
    """Server-side apply without force: what a person has changed is not overwritten but said."""

    seconds = 0.0
    direct = True

    def __init__(self, cluster: Cluster, guard: Guard) -> None:
        """Wrap the cluster."""
        self._cluster, self._guard = cluster, guard

    def current(self, kind: Kind, name: str) -> Plain | None:
        """What we applied last, from the object's own record of owners."""
        live = self._cluster.get(kind, name)
        return applied(live) if live is not None else None

    def apply(self, manifest: Plain) -> None:
        """Apply; a conflict with our own earlier write is tried again, one with another manager is not.

        Raises:
            Changed: another manager owns a field, or keeps one in place that we leave out; names both.
        """
        kind = Kind(manifest["apiVersion"], manifest["kind"])
        for pause in (*_PAUSES, None):
            self._guard()
            try:
                made = self._cluster.apply(manifest)
            except Conflict as conflict:
                self._refuse_if_taken(kind, manifest, str(conflict))
                if pause is None:
                    name = f"The {kind.kind} {manifest['metadata']['name']}"
                    raise Unreachable(f"{name} is written by somebody else all the time: {conflict}.") from conflict
                time.sleep(pause)
            else:
                _refuse_leftovers(manifest, made)
                return

    def delete(self, kind: Kind, name: str) -> None:
        """Delete, unless the right to is gone."""
        self._guard()
        self._cluster.delete(kind, name)

    def _refuse_if_taken(self, kind: Kind, manifest: Plain, said: str) -> None:
        owner = _OWNED.search(said)
        if owner is None:
            return
        name = manifest["metadata"]["name"]
        live = self._cluster.get(kind, name) or {}
        found = _FIELD.search(said)
        path = found[0].removeprefix(".").rstrip(".:") if found else ""
        told = f"{path} is {at(live, path)} instead of {at(manifest, path)}{by(live, path)}" if path else said
        raise Changed(
            f"The {kind.kind} {name} was changed by {owner[1]}: {told}; this is left as it is, so decide by hand."
        )


def _refuse_leftovers(manifest: Plain, made: Plain) -> None:
    """A field that we leave out stays where another manager has set it too."""
    for path in ("spec.canary", "spec.predictor.canaryTrafficPercent"):
        if at(manifest, path) is None and at(made, path) not in (None, []):
            raise Changed(
                f"The {manifest['kind']} {manifest['metadata']['name']} keeps {path} at {at(made, path)}"
                f"{by(made, path)}; this is left as it is, so decide by hand."
            )
