"""A request and its reply, as they went over the wire, and how they travel to the writer."""

import marshal
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any


@dataclass(slots=True)
class Exchange:
    """A request and its reply.

    Attributes:
        id: the request's ``x-request-id``, or one that the server made.
        model: name in the URL.
        revision: the label of the version that answered.
        protocol: ``v1`` or ``v2``.
        request: the body.
        request_type: its content type; empty where the client named none.
        request_header_length: of a binary V2 body, the length of its JSON in bytes.
        status: HTTP's.
        reply: the body.
        reply_type: its content type.
        reply_header_length: of a binary V2 body, the length of its JSON in bytes.
        at: when the request's head came, seconds since the epoch.
        seconds: from then to the reply.
    """

    id: str
    model: str
    revision: str
    protocol: str
    request: bytes
    request_type: str
    request_header_length: int | None
    status: int
    reply: bytes
    reply_type: str
    reply_header_length: int | None
    at: float
    seconds: float

    @property
    def bytes(self) -> int:
        """How much memory it takes in a queue, about."""
        return len(self.request) + len(self.reply) + OVERHEAD


OVERHEAD = 512
"""What an exchange takes beside its bodies, in bytes."""

as_tuple = attrgetter(*Exchange.__slots__)

_LENGTH = struct.Struct("<I")
_FORMAT = 2  # of marshal: later ones look for equal objects, which costs more than it saves


def frame(kind: str, content: Any) -> bytes:
    """A message to the writer: ``settings`` or ``model`` (JSON), ``exchanges`` (tuples), or ``close`` (seconds)."""
    body = marshal.dumps((kind, content), _FORMAT)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Puts messages together again from the pieces that a socket gives."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._held = bytearray()

    def feed(self, piece: bytes) -> Iterator[tuple[str, Any]]:
        """The messages that are whole with this piece, each with its kind."""
        self._held += piece
        while len(self._held) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._held)[0]
            if len(self._held) < end:
                return
            with memoryview(self._held) as view:
                # Nobody but the two processes holds an end of the socket that this comes from.
                kind, content = marshal.loads(view[_LENGTH.size : end])  # noqa: S302
            del self._held[:end]
            yield kind, content
