"""``managedFields``: which manager owns what, kept through applies and updates."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.cluster.errors import Refused
from tests.cluster.fields import (
    Duplicate,
    Paths,
    Schema,
    decoded,
    difference,
    encoded,
    merge,
    owned,
    shown,
    with_parents,
    without,
)

Plain = dict[str, Any]

_SERVERS = ("name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields")
_UNOWNED: Paths = {("f:apiVersion",), ("f:kind",), ("f:metadata",), ("f:metadata", "f:resourceVersion")} | {
    ("f:metadata", f"f:{name}") for name in _SERVERS
}


@dataclass(frozen=True)
class Manager:
    """Who writes, how, and through which door."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""


@dataclass
class Share:
    """What a manager owns, and since when."""

    paths: Paths
    time: str


Shares = dict[Manager, Share]


def read(metadata: Plain) -> Shares:
    """The owners that an object's metadata names."""
    return {
        Manager(e["manager"], e["operation"], e["apiVersion"], e.get("subresource", "")): Share(
            decoded(e.get("fieldsV1", {})), e.get("time", "")
        )
        for e in metadata.get("managedFields", [])
    }


def written(shares: Shares) -> list[Plain]:
    """The owners as ``managedFields``."""
    entries = []
    for who, share in shares.items():
        entry = {"manager": who.name, "operation": who.operation, "apiVersion": who.api_version, "time": share.time}
        entry |= {"fieldsType": "FieldsV1", "fieldsV1": encoded(share.paths)}
        entries.append(entry | ({"subresource": who.subresource} if who.subresource else {}))
    return sorted(entries, key=lambda e: (e["operation"], e["time"], e["manager"], e.get("subresource", "")))


def now() -> str:
    """The time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ours(paths: Paths, who: Manager, has_status: bool) -> Paths:
    """Of some paths, those that a write through this door can touch."""
    if who.subresource == "status":
        paths = {path for path in paths if path[0] == "f:status"}
    elif has_status:
        paths = {path for path in paths if path[0] != "f:status"}
    return paths - _UNOWNED


def update(schema: Schema, live: Plain, new: Plain, who: Manager, has_status: bool) -> list[Plain]:
    """The owners after a write that was no apply: whoever changes a field owns it alone."""
    shares = read(live.get("metadata", {}))
    if not shares and "uid" in live["metadata"]:
        return []  # somebody has reset them; they begin anew with the next apply
    found = difference(schema, bare(live), bare(new))
    changed = _ours(found.added | found.modified, who, has_status)
    for other, share in shares.items():
        share.paths -= found.removed
        if other != who:
            share.paths -= changed
    mine = shares.get(who, Share(set(), ""))
    paths = (mine.paths | changed) - found.removed
    if paths != mine.paths or not mine.time:
        mine = Share(paths, now())
    return written({other: share for other, share in (shares | {who: mine}).items() if share.paths})


def apply(schema: Schema, live: Plain, applied: Plain, who: Manager, has_status: bool, force: bool) -> Plain:
    """The object after a server-side apply, ``managedFields`` included.

    Raises:
        Refused: 409 where other managers own fields that would change, without ``force``.
    """
    shares = read(live.get("metadata", {}))
    if not shares and "uid" in live["metadata"]:
        first = Manager("before-first-apply", "Update", who.api_version)
        empty = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": {}}
        shares[first] = Share(_ours(difference(schema, empty, bare(live)).added, first, has_status), now())
    before = shares.get(who, Share(set(), "")).paths
    old = bare(live)
    try:
        new = merge(schema, old, applied)
        wanted = owned(schema, applied)
    except Duplicate as error:
        raise Refused(500, f"failed to create typed patch object: {error}") from error
    kept = set().union(wanted, *(share.paths for other, share in shares.items() if other != who))
    rest = without(schema, new, with_parents(before) - with_parents(kept))
    # A list that this leaves empty is nothing that anybody owns.
    gone = with_parents(owned(schema, new)) - with_parents(owned(schema, rest))
    new = without(schema, new, gone & with_parents(before))
    found = difference(schema, old, new)
    changed = _ours(found.added | found.modified, who, has_status)
    conflicts = {other: share.paths & changed for other, share in shares.items() if other != who}
    if not force and any(conflicts.values()):
        raise _conflict({other: paths for other, paths in conflicts.items() if paths})
    for other, share in shares.items():
        if other != who:
            share.paths -= changed | found.removed
    shares[who] = Share(_ours(wanted, who, has_status), now())
    entries = written({other: share for other, share in shares.items() if share.paths})
    return new | {"metadata": new.get("metadata", {}) | {"managedFields": entries}}


def _conflict(conflicts: dict[Manager, Paths]) -> Refused:
    lines, causes = [], []
    for other, paths in sorted(conflicts.items(), key=lambda entry: entry[0].name):
        by = f'"{other.name}"' + (f' with subresource "{other.subresource}"' if other.subresource else "")
        by += f" using {other.api_version}" if other.operation == "Update" else ""
        lines += [f"conflicts with {by}:", *(f"- {shown(path)}" for path in sorted(paths))]
        for path in sorted(paths):
            causes.append({"reason": "FieldManagerConflict", "message": f"conflict with {by}", "field": shown(path)})
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    return Refused(409, message, "Conflict", causes=causes)


def bare(thing: Plain) -> Plain:
    """An object without ``managedFields``."""
    metadata = {key: value for key, value in thing.get("metadata", {}).items() if key != "managedFields"}
    return thing | {"metadata": metadata}
