"""What every connection of a process shares."""

import itertools
import logging
import secrets
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Protocol

import orjson

from serving.faults import Injected, Injector
from serving.log import REQUEST_ID, TRACE_ID
from serving.server.failures import BadRequest, Failure
from serving.server.limits import Limits
from serving.server.repository import Repository
from serving.server.telemetry import Metrics, Telemetry
from serving.tracing import trace_id

if TYPE_CHECKING:
    from serving.payloads import PayloadLog
    from serving.tracing import Tracing

log = logging.getLogger("sluiceway.serving")


class Tokens(Protocol):
    """The tokens that let a client in."""

    def allows(self, authorization: bytes | None) -> bool:
        """Whether the value of an ``Authorization`` header carries one of them."""


@dataclass(frozen=True)
class Route:
    """A prediction's path.

    Attributes:
        name: of the model.
        path: such as ``/v1/models/NAME:predict``.
        is_v2: which protocol it speaks.
        telemetry: counts its requests.
    """

    name: str
    path: str
    is_v2: bool
    telemetry: Telemetry


@dataclass
class Core:
    """What every connection of a process shares.

    Attributes:
        limits: what is refused.
        repository: the models.
        metrics: counts, of the models and of the server itself.
        tokens: who is let in; None for everybody.
        token_for_metrics: whether ``/metrics`` needs a token, too.
        payloads: logs requests and replies; None where nobody asked.
        tracing: makes spans; None where nobody asked.
        routes: the predictions' paths by the bytes of the URL, answered by the connections themselves.
        date: the header of that name, a second old at most.
        faults: what goes wrong on purpose; then no route is hot.
    """

    limits: Limits
    repository: Repository
    metrics: Metrics = field(default_factory=Metrics)
    tokens: Tokens | None = None
    token_for_metrics: bool = False
    payloads: "PayloadLog | None" = None
    tracing: "Tracing | None" = None
    routes: dict[bytes, Route] = field(default_factory=dict)
    date: bytes = b""
    faults: Injector | None = None
    _by_name: dict[tuple[str, bool], Route] = field(default_factory=dict)
    _prefix: str = field(default_factory=lambda: secrets.token_hex(8))
    _count: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        """Set the clock."""
        self.tick()

    def tick(self) -> None:
        """Call every second: sets the date."""
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode()

    def add(self, name: str, telemetry: Telemetry) -> None:
        """Make the routes of a model."""
        for is_v2, path in ((False, f"/v1/models/{name}:predict"), (True, f"/v2/models/{name}/infer")):
            route = Route(name, path, is_v2, telemetry)
            self._by_name[name, is_v2] = route
            if self.faults is None:
                self.routes[path.encode()] = route

    def remove(self, name: str) -> None:
        """Take the routes of a model away."""
        for is_v2 in (False, True):
            route = self._by_name.pop((name, is_v2))
            self.routes.pop(route.path.encode(), None)

    def route(self, name: str, *, is_v2: bool) -> Route:
        """A model's route."""
        return self._by_name[name, is_v2]

    def made_id(self) -> str:
        """An id for a request that brought none; unique among all processes."""
        return f"{self._prefix}{next(self._count):08x}"

    def told(
        self, failure: Exception, request: str, traceparent: bytes | None = None
    ) -> tuple[int, str, dict[str, str]]:
        """Status, message and headers for a client; logs what is worth knowing here.

        What is no :class:`Failure` is ours, not the client's: it is logged, and the client told nothing of it.
        """
        known = REQUEST_ID.set(request)
        trace = TRACE_ID.set(trace_id(traceparent)) if traceparent is not None else None
        try:
            if isinstance(failure, Failure):
                if failure.status == BadRequest.status:
                    log.warning("400: %s", failure)
                return failure.status, str(failure), failure.headers
            if isinstance(failure, Injected):
                return 500, str(failure), {}
            log.error("500", exc_info=failure)
            return 500, f"The server failed on this request; its log has more under the request id {request}.", {}
        finally:
            REQUEST_ID.reset(known)
            if trace is not None:
                TRACE_ID.reset(trace)

    @staticmethod
    def head_length(seen: dict[bytes, bytes]) -> int | None:
        """The value of ``Inference-Header-Content-Length``; None where there is none.

        Raises:
            BadRequest: it is no number.
        """
        value = seen.get(b"inference-header-content-length")
        if value is None:
            return None
        if not value.isdigit() or len(value) > 12:
            raise BadRequest("Inference-Header-Content-Length is no number of bytes.")
        return int(value)

    def refused(self, status: int) -> None:
        """Note that a connection was refused before it was known what it asked for."""
        self.metrics.refused(status)
        log.debug("A connection was refused with status %d", status)  # a flood of them is counted, not written

    def offer(
        self,
        route: Route,
        request_id: str,
        seen: dict[bytes, bytes],
        request: bytes | bytearray,
        status: int,
        reply: bytes,
        reply_type: bytes,
        reply_head: int | None,
        seconds: float,
    ) -> None:
        """Hand a request and its reply to the payload log."""
        from serving.payloads import Exchange

        assert self.payloads is not None
        head = seen.get(b"inference-header-content-length")
        self.payloads.offer(
            Exchange(
                id=request_id,
                model=route.name,
                revision=self.repository.entry(route.name).version,
                protocol="v2" if route.is_v2 else "v1",
                request=bytes(request),
                request_type=seen.get(b"content-type", b"application/json").decode("latin-1"),
                request_header_length=int(head) if head and head.isdigit() and len(head) < 13 else None,
                status=status,
                reply=reply,
                reply_type=reply_type.decode(),
                reply_header_length=reply_head,
                at=time.time() - seconds,
                seconds=seconds,
            )
        )


def error_body(message: str) -> bytes:
    """The body of every reply that is no success."""
    return orjson.dumps({"error": message})
