"""Reading objects of the API: parts, conditions, who wrote a field, and what in them is ours."""

import json
import re
from typing import Any

from components.cluster.api import FIELD_MANAGER
from components.rollout.document import VERSION
from components.rollout.release import Release

Plain = dict[str, Any]

_SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
_ANY_SCHEME = "<scheme-placeholder>://"  # what KServe puts before storage.path
_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def at(thing: Any, path: str) -> Any:
    """What lies at a path such as ``spec.canary[0].trafficPercent``; None where there is nothing."""
    for name, index in _PART.findall(path):
        if name:
            thing = thing.get(name) if isinstance(thing, dict) else None
        else:
            thing = thing[int(index)] if isinstance(thing, list) and int(index) < len(thing) else None
    return thing


def is_true(thing: Plain | None, condition: str) -> bool:
    """Whether a condition in the object's status is True."""
    return any(one["type"] == condition and one["status"] == "True" for one in at(thing, "status.conditions") or [])


def serves(predictor: Plain, release: Release) -> bool:
    """Whether a predictor is a release's: the same model, by where it lies and by version as far as either says."""
    wanted = release.document["spec"]["predictor"]
    return _same(_source_of(predictor), at(predictor, "annotations"), wanted, release.version)


def revision_serves(revision: Plain | None, release: Release) -> bool:
    """Whether a Knative Revision was made from a release."""
    if revision is None:
        return False
    annotations = at(revision, "metadata.annotations") or {}
    return _same(annotations.get(_SOURCE), annotations, release.document["spec"]["predictor"], release.version)


def _same(source: str | None, annotations: Plain | None, wanted: Plain, wanted_version: str) -> bool:
    version = (annotations or {}).get(VERSION)
    theirs = _source_of(wanted)
    if source is None or theirs is None or source.removeprefix(_ANY_SCHEME) != theirs.lstrip("/" * ("://" in source)):
        return False
    return version == wanted_version if version and at(wanted, "annotations") else True


def _source_of(predictor: Plain) -> str | None:
    source: str | None = at(predictor, "model.storageUri") or at(predictor, "model.storage.path")
    return source


def difference(live: Plain, path: str, wanted: Any) -> str:
    """One sentence part when a field is not as wanted: from what to what, by whom and when; else empty.

    A field that is left out counts as None, and None as left out.
    """
    found = at(live, path)
    if found == wanted or (not found and not wanted and found is not False and type(found) is not int):
        return ""
    return f"{path} is {_shown(found)} instead of {_shown(wanted)}{by(live, path)}"


def _shown(value: Any) -> str:
    return "gone" if value is None else str(value)


def by(live: Plain, path: str) -> str:
    """`` (set by MANAGER at TIME)``: who, beside us, wrote a field last as far as the object tells; else empty."""
    entries = [entry for entry in at(live, "metadata.managedFields") or [] if entry.get("manager") != FIELD_MANAGER]
    entries = [entry for entry in entries if not entry.get("subresource") and _owns(entry.get("fieldsV1", {}), path)]
    newest = max(entries, key=lambda entry: str(entry.get("time", "")), default=None)
    return f" (set by {newest['manager']} at {newest.get('time', 'a time unknown')})" if newest else ""


def _owns(fields: Plain, path: str) -> bool:
    for name, _ in _PART.findall(path):
        if f"f:{name}" not in fields:
            return fields == {}  # what is owned whole has no parts
        fields = fields[f"f:{name}"]
        if not fields:
            return True
    return True


def applied(live: Plain) -> Plain | None:
    """What we applied last, taken from the object by its record of owners; None when we never did.

    To change a part by server-side apply everything else that is ours must be sent again, or it is removed.
    """
    ours = [
        entry
        for entry in at(live, "metadata.managedFields") or []
        if entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource")
    ]
    if not ours:
        return None
    kept: Plain = _owned(live, ours[0]["fieldsV1"])
    name = {"name": live["metadata"]["name"]}
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        **kept,
        "metadata": kept.get("metadata", {}) | name,
    }


def _owned(value: Any, fields: Plain) -> Any:
    """The part of a value that a ``fieldsV1`` names."""
    inside = {key: below for key, below in fields.items() if key != "."}
    if not inside:
        return value
    if isinstance(value, dict):
        names = {key[2:]: below for key, below in inside.items() if key.startswith("f:")}
        return {name: _owned(value[name], below) for name, below in names.items() if name in value}
    if isinstance(value, list):
        return [_owned(item, below) for item in value for key, below in inside.items() if _is_item(key, item)]
    return value


def _is_item(key: str, item: Any) -> bool:
    kind, _, told = key.partition(":")
    if kind == "v":
        return bool(json.loads(told) == item)
    return kind == "k" and isinstance(item, dict) and all(item.get(k) == v for k, v in json.loads(told).items())
