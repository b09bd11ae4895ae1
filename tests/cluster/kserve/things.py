"""Small pure helpers about Kubernetes objects."""

import hashlib
import json
import math
from datetime import UTC, datetime
from typing import Any

Plain = dict[str, Any]
DIGEST = "simulation/digest"
"""What an object was made from, so that fields which the API server fills in are no difference."""


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def owner(item: Plain) -> list[Plain]:
    """The reference by which an object belongs to another."""
    meta = item["metadata"]
    who = {"apiVersion": item["apiVersion"], "kind": item["kind"], "name": meta["name"], "uid": meta["uid"]}
    return [who | {"controller": True, "blockOwnerDeletion": True}]


def owned_by(item: Plain, uid: str) -> bool:
    return any(one.get("uid") == uid for one in item["metadata"].get("ownerReferences", []))


def key(item: Plain) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def covers(existing: Any, desired: Any) -> bool:
    """Whether everything that is wanted is there; what the server filled in besides is no difference."""
    if isinstance(desired, dict):
        return isinstance(existing, dict) and all(covers(existing.get(k), v) for k, v in desired.items())
    if isinstance(desired, list):
        same = isinstance(existing, list) and len(existing) == len(desired)
        return same and all(covers(one, other) for one, other in zip(existing, desired, strict=True))
    return bool(existing == desired)


def condition(conditions: list[Plain], kind: str) -> Plain | None:
    return next((one for one in conditions if one["type"] == kind), None)


def is_true(item: Plain, kind: str) -> bool:
    found = condition(item.get("status", {}).get("conditions", []), kind)
    return found is not None and found["status"] == "True"


def mark(conditions: list[Plain], kind: str, status: str, reason: str = "", message: str = "") -> None:
    """Set a condition; the time of its last transition changes only with its status."""
    before = condition(conditions, kind)
    changed = before is None or before["status"] != status
    fresh: Plain = {"type": kind, "status": status}
    fresh |= {name: value for name, value in (("reason", reason), ("message", message)) if value}
    fresh["lastTransitionTime"] = now() if changed or before is None else before.get("lastTransitionTime", now())
    if before is None:
        conditions.append(fresh)
    else:
        conditions[conditions.index(before)] = fresh


def selects(selector: Plain, item: Plain) -> bool:
    labels = item["metadata"].get("labels", {})
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def percent_of(percent: int, number: int, *, up: bool) -> int:
    return math.ceil(number * percent / 100) if up else number * percent // 100
