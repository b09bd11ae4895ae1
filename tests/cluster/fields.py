"""Who owns which field: sets of paths, and what is done with them in server-side apply.

A path is a tuple of the elements that ``managedFields`` has for it: ``f:name`` for a field, ``k:{"name":"a"}`` for an
item of a list that is merged by key, ``v:"a"`` for an item of a set. The rules are those of structured-merge-diff, the
library of the real API server.
"""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Schema = dict[str, Any]
Path = tuple[str, ...]
Paths = set[Path]

_ABSENT: Any = object()


class Duplicate(ValueError):
    """Two items of a merged list have the same key."""


@dataclass
class Difference:
    """What differs between two objects."""

    added: Paths = field(default_factory=set)
    removed: Paths = field(default_factory=set)
    modified: Paths = field(default_factory=set)


def merged_by_parts(schema: Schema, value: Any) -> bool:
    """Whether a value is no leaf: owned and merged by its parts."""
    if isinstance(value, dict):
        return schema.get("x-kubernetes-map-type") != "atomic"
    return isinstance(value, list) and schema.get("x-kubernetes-list-type", "atomic") != "atomic"


def child(schema: Schema, name: str) -> Schema:
    """The schema of a field; empty where it has none."""
    if name in schema.get("properties", {}):
        return dict(schema["properties"][name])
    more = schema.get("additionalProperties")
    return more if isinstance(more, dict) else {}


def parts(schema: Schema, value: Any) -> Iterator[tuple[str, Schema, Any]]:
    """The parts of a value by their path elements."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield f"f:{name}", child(schema, name), part
    else:
        items = schema.get("items", {})
        for item in value:
            yield element(schema, item), items, item


def element(schema: Schema, item: Any) -> str:
    """The path element of an item of a merged list."""
    if schema["x-kubernetes-list-type"] == "set":
        return f"v:{_text(item)}"
    properties = schema.get("items", {}).get("properties", {})
    values = {
        key: item.get(key, properties.get(key, {}).get("default")) for key in schema["x-kubernetes-list-map-keys"]
    }
    return f"k:{_text({key: value for key, value in values.items() if value is not None})}"


def owned(schema: Schema, value: Any, path: Path = ()) -> Paths:
    """The paths that applying a value makes one the owner of."""
    if not merged_by_parts(schema, value):
        return {path}
    paths: Paths = set()
    for name, below, part in parts(schema, value):
        here = (*path, name)
        paths |= owned(below, part, here)
        declared = isinstance(value, dict) and name[2:] in schema.get("properties", {})
        if not declared or part is None or part == {}:
            paths.add(here)
    return paths - {()}


def difference(schema: Schema, old: Any, new: Any) -> Difference:
    """What turns one object into the other."""
    found = Difference()
    _compare(schema, old, new, (), found)
    return found


def _compare(schema: Schema, old: Any, new: Any, path: Path, found: Difference) -> None:
    whole = [merged_by_parts(schema, side) for side in (old, new) if side is not _ABSENT]
    if not all(whole):
        if old is _ABSENT or new is _ABSENT:
            (found.added if old is _ABSENT else found.removed).add(path)
        elif old != new:
            found.modified.add(path)
        return
    before = {} if old is _ABSENT else {name: (below, part) for name, below, part in parts(schema, old)}
    after = {} if new is _ABSENT else {name: (below, part) for name, below, part in parts(schema, new)}
    for name in before | after:
        below = (after.get(name) or before[name])[0]
        _compare(below, before.get(name, (0, _ABSENT))[1], after.get(name, (0, _ABSENT))[1], (*path, name), found)
    if old is _ABSENT:
        found.added.add(path)
    elif new is _ABSENT:
        found.removed.add(path)


def merge(schema: Schema, live: Any, applied: Any) -> Any:
    """The live value with what is applied laid over it."""
    if not (merged_by_parts(schema, live) and merged_by_parts(schema, applied)) or type(live) is not type(applied):
        return applied
    if isinstance(live, dict):
        return live | {
            name: merge(child(schema, name), live[name], part) if name in live else part
            for name, part in applied.items()
        }
    return _merge_lists(schema, live, applied)


def _merge_lists(schema: Schema, live: list[Any], applied: list[Any]) -> list[Any]:
    """Items of both: those of the live list alone as early as they can stand, the others in the order of the applied.

    Both lists are walked together. At an item that both have, but not the next one that is due, the live list is walked
    on without it.
    """
    new = {element(schema, item): item for item in applied}
    if len(new) != len(applied):
        raise Duplicate("duplicate entries for key")
    old = {element(schema, item): item for item in live}
    left, right = deque(old), deque(new)
    due = deque(name for name in new if name in old)
    merged: dict[str, Any] = {}
    while left or right:
        if left and left[0] not in new:
            name = left.popleft()
            merged[name] = old[name]
            continue
        same = bool(left and right and left[0] == right[0])
        if left and right and not same and due and due[0] != left[0]:
            left.popleft()
            continue
        if left and (same or left[0] in merged):
            left.popleft()
        if right:
            name = right.popleft()
            merged[name] = merge(schema.get("items", {}), old[name], new[name]) if name in old else new[name]
            if due and due[0] == name:
                due.popleft()
    return list(merged.values())


def without(schema: Schema, value: Any, paths: Paths) -> Any:
    """A value without the parts at some paths; what held them stays, if empty."""
    if not paths or not merged_by_parts(schema, value):
        return value
    kept = []
    for name, below, part in parts(schema, value):
        if (name,) not in paths:
            deeper = {path[1:] for path in paths if path[0] == name}
            kept.append((name[2:], without(below, part, deeper)))
    return dict(kept) if isinstance(value, dict) else [part for _, part in kept]


def with_parents(paths: Paths) -> Paths:
    """With the declared fields that lead to each path."""
    return paths | {path[:end] for path in paths for end in range(1, len(path)) if path[end - 1].startswith("f:")}


def encoded(paths: Paths) -> dict[str, Any]:
    """Paths as ``fieldsV1``."""
    tree: dict[str, Any] = {}
    parents = {path[:end] for path in paths for end in range(1, len(path))}
    for path in sorted(paths):
        here = tree
        for name in path:
            here = here.setdefault(name, {})
        if path in parents:
            here["."] = {}
    return tree


def decoded(tree: dict[str, Any], path: Path = ()) -> Paths:
    """The paths of ``fieldsV1``."""
    paths: Paths = set()
    for name, below in tree.items():
        here = path if name == "." else (*path, name)
        paths |= decoded(below, here) if below else {here}
    return paths


def shown(path: Path) -> str:
    """A path as messages have it: ``.spec.containers[name="a"].image``."""
    text = ""
    for name in path:
        kind, _, rest = name.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            text += "[" + ",".join(f"{key}={_text(value)}" for key, value in sorted(json.loads(rest).items())) + "]"
        else:
            text += f"[={rest}]"
    return text


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
