"""Whether a reply says what the first reply to the same request said; numbers may differ in their last digits."""

import json
import math
from typing import Any

TOLERANCE = 1e-6
"""A batch of another size may be added up in another order."""
_BINARY = b"nference-header-content-length:"


class Sameness:
    """Compares replies with the first of their kind."""

    def __init__(self, kinds: int) -> None:
        self._first: list[bytes | None] = [None] * kinds

    def wrong(self, kind: int, reply: bytes) -> str:
        """What differs, or an empty text."""
        head = reply.find(b"\r\n\r\n")
        body = reply[9:12] + reply[head + 4 :]
        first = self._first[kind]
        if body == first:
            return ""
        if first is None:
            self._first[kind] = body
            return ""
        binary = _BINARY in reply[:head]
        if not binary and alike(_document(body[3:]), _document(first[3:])) and body[:3] == first[:3]:
            return ""
        if binary and len(body) == len(first):
            return ""
        return f"request {kind}: {body[:200]!r} after {first[:200]!r}"


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


def alike(one: Any, other: Any) -> bool:
    """Whether two JSON documents are the same within the tolerance."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(one == other)
