"""HTTP connections that answer predictions themselves.

uvicorn's protocol turns a request into an ASGI scope, a task and two queues, which costs several times what a
prediction does. For the two hot routes, ``/v1/models/{name}:predict`` and ``/v2/models/{name}/infer``, this one reads
the body and hands it to the model directly; every other request, and every unusual form of these (chunked, pipelined,
``Expect: 100-continue``, HTTP/1.0), goes to the ASGI application of :mod:`serving.server.app`, which answers the same.

It also keeps the limits that uvicorn has none for: length of the head and the body, and time for each to arrive.
"""

import asyncio
import time
from collections import deque
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from serving.bundle import Predictions
from serving.server import v1, v2
from serving.server.columns import Asked
from serving.server.core import Core, Route, error_body
from serving.server.failures import BadRequest, Failure, NotServing, TooLarge, Unauthorized
from serving.tracing import passed_on

Headers = list[tuple[bytes, bytes]]

_JSON = b"application/json"
_BINARY = b"application/octet-stream"
_OFFER = frozenset({b"upgrade", b"http2-settings", b"connection"})
_LINGER_SECONDS = 2.0
_SEEN = frozenset(
    {b"x-request-id", b"traceparent", b"tracestate", b"content-type", b"content-length", b"transfer-encoding"}
    | {b"expect", b"authorization", b"inference-header-content-length"}
)


class _Flow(FlowControl):
    """Reads nothing from a client that does not read its replies, or whose requests wait to be answered already."""

    def __init__(self, transport: asyncio.Transport, pipeline: "deque[Any]") -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Read on, if nothing speaks against it."""
        if not self.write_paused and not self._pipeline:
            super().resume_reading()


class _NoEvent:
    """What uvicorn would set to wake an ASGI application."""

    def set(self) -> None:
        """Nothing waits."""


_NO_EVENT = _NoEvent()


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        core: Core,
    ) -> None:
        """As uvicorn's, with what the hot routes need."""
        super().__init__(config, server_state, app_state, _loop)
        self._core = core
        self._limits = core.limits
        self._since = time.monotonic()
        """When the request that is arriving began, or the connection became idle."""
        self._arriving = False
        self._in_head = True
        self._head_bytes = 0
        self._body_bytes = 0
        self._is_refused = False
        self._answered: Any = None
        """The cycle that is being answered; ``self.cycle`` is the last of those that were pipelined."""

    # What the transport calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        if len(self.connections) > self._limits.connections:
            self.refuse(NotServing(f"There are {self._limits.connections:,} connections already; try again."))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection: what is being answered is no longer written."""
        self._disconnect()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read its replies: no more requests are read from it."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what cannot be a request is answered and the connection closed."""
        if self._is_refused:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
            return
        except httptools.HttpParserError as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
            self.refuse(cause if isinstance(cause, Failure) else BadRequest("This is not an HTTP request."))
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.header_bytes and not self._is_refused:
                self.refuse(_head_too_large(self._limits.header_bytes))

    def _decline(self, rest: bytes) -> None:
        """Read a request again that offers another protocol, such as Java's client does of HTTP/2, without the offer.

        The parser takes what follows such a head for the other protocol, though it is the request's body.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.refuse(BadRequest("This server is no proxy."))
            return
        version = self.parser.get_http_version().encode()
        lines = [name + b": " + value + b"\r\n" for name, value in self.headers if name not in _OFFER]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, self.url, version, b"".join(lines), rest))

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins; uvicorn's scope is only made for those that need it."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._arriving = True
        self._in_head = True
        self._since = time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Choose who answers."""
        self._in_head = False
        self._head_bytes = 0
        self._body_bytes = 0
        if self.parser.should_upgrade():
            return  # it is read again, without that
        headers = self.headers
        if sum([len(name) + len(value) + 4 for name, value in headers]) + len(self.url) > self._limits.header_bytes:
            raise _head_too_large(self._limits.header_bytes)
        seen: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _SEEN:
                seen[name] = value
        length = seen.get(b"content-length")
        if length is not None and int(length) > self._limits.body_bytes:
            raise too_large(self._limits.body_bytes)
        route = self._core.routes.get(self.url)
        if (
            route is None
            or length is None
            or (self.cycle is not None and not self.cycle.response_complete)
            or b"expect" in seen
            or self.parser.get_method() != b"POST"
            or self.parser.get_http_version() != "1.1"
        ):
            if b"expect" in seen and seen[b"expect"].lower() == b"100-continue":
                self.expect_100_continue = True
            url = self.url
            super().on_message_begin()
            self.url = url
            self.headers += headers
            super().on_headers_complete()
            return
        self._answered = self.cycle = _Exchange(self, route, seen)  # type: ignore[assignment]  # it has what uvicorn uses of a cycle

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        cycle: Any = self.cycle
        if type(cycle) is _Exchange:
            if not cycle.body:
                cycle.body = body  # nearly always all of it
            elif isinstance(cycle.body, bytearray):
                cycle.body += body
            else:
                cycle.body = bytearray(cycle.body) + body
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            raise too_large(self._limits.body_bytes)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request is there."""
        if self.parser.should_upgrade():
            return
        self._arriving = False
        cycle: Any = self.cycle
        if type(cycle) is _Exchange:
            cycle.begin()
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """A reply was written; the connection is free for the next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._is_refused:
            self.transport.close()
            return
        elif not self._arriving:
            self._since = time.monotonic()
        self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _disconnect(self) -> None:
        """Have nothing written any more of what is being answered, or waits to be."""
        self.pipeline.clear()
        for cycle in (self._answered, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    # What the process calls.

    def is_idle(self) -> bool:
        """Whether no request is arriving or being answered."""
        return not self._arriving and (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def is_idle_since(self, moment: float) -> bool:
        """Whether there has been no request since a moment, by ``time.monotonic()``."""
        return self._since < moment and self.is_idle()

    def tick(self, now: float) -> None:
        """Close the connection if it has been idle, a request arriving or a reply being read for too long."""
        if self._is_refused or self.transport.is_closing():
            return
        age = now - self._since
        if self._arriving:
            if age > self._limits.seconds:
                self.refuse(_Slow(f"The request did not arrive within {self._limits.seconds:g} s."))
        elif self.is_idle() and age > self._limits.seconds and self.transport.get_write_buffer_size():
            self._disconnect()
            self.transport.abort()  # the client does not read its reply
        elif self.is_idle() and age > self._limits.idle_seconds:
            self.transport.close()

    def refuse(self, failure: Failure) -> None:
        """Answer what is no proper request, and close.

        The client may still be sending: closing at once would reset the connection, and the reply be lost with it. So
        what comes is read and dropped for a moment.
        """
        self._is_refused = True
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            waits = bool(self.pipeline) and self.pipeline[0][0] is cycle
            if waits and cycle.more_body:
                self.pipeline.popleft()
            if waits or not cycle.more_body:
                return  # proper requests came before this one: they are answered, and then the connection closed
            self._disconnect()
            if cycle.response_started:
                self.transport.close()
                return
        body = error_body(str(failure))
        head = [STATUS_LINE[failure.status], b"content-type: application/json\r\nconnection: close\r\n"]
        head += [f"{name}: {value}\r\n".encode() for name, value in failure.headers.items()]
        self.transport.write(b"".join([*head, b"content-length: %d\r\n\r\n" % len(body), body]))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(_LINGER_SECONDS, self.transport.abort)
        else:
            self.transport.close()
        self._core.refused(failure.status)


class _Slow(Failure):
    """A request that arrives too slowly."""

    status = 408


class _HeadTooLarge(Failure):
    """A request with too long a head."""

    status = 431


def _head_too_large(limit: int) -> Failure:
    return _HeadTooLarge(f"The request's head is longer than {limit:,} bytes.")


def too_large(limit: int) -> Failure:
    """The refusal of a body that is too long."""
    return TooLarge(f"The request's body is longer than {limit:,} bytes. Send several requests.")


class _Exchange:
    """A request of a hot route and its reply; what uvicorn's protocol expects of a cycle, and a ``Pending``."""

    __slots__ = (
        "_protocol",
        "_route",
        "_seen",
        "_served",
        "_span",
        "_wanted",
        "asked",
        "body",
        "disconnected",
        "id",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
        "response_started",
        "since",
    )

    def __init__(self, protocol: Protocol, route: Route, seen: dict[bytes, bytes]) -> None:
        self._protocol = protocol
        self._route = route
        self._seen = seen
        self.body: bytes | bytearray = b""
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.message_event = _NO_EVENT
        self.keep_alive: bool = protocol.parser.should_keep_alive()
        self.since = time.perf_counter()
        core = protocol._core
        given = seen.get(b"x-request-id")
        self.id = given.decode("latin-1") if given else core.made_id()
        self._span = core.tracing.start(protocol.headers, route.path) if core.tracing is not None else None

    def begin(self) -> None:
        """Hand the request to the model."""
        self.more_body = False
        core, route = self._protocol._core, self._route
        began = time.perf_counter()
        try:
            if core.tokens is not None and not core.tokens.allows(self._seen.get(b"authorization")):
                raise Unauthorized("The request needs the header Authorization: Bearer, with a token of this server.")
            batcher = core.repository.batcher(route.name)
            batcher.check_room()
            self._served = served = batcher.served
            if route.is_v2:
                self.asked, self._wanted = v2.asked(
                    self.body, core.head_length(self._seen), served.reader, served.model.manifest, core.limits
                )
            else:
                rows = v1.rows_of(self.body, served.reader, core.limits)
                self.asked = Asked(len(rows), rows=rows)
        except Exception as failure:  # noqa: BLE001 - the parser must not take a mistake of ours for the client's
            self.failed(failure)
            return
        route.telemetry.preprocessed(time.perf_counter() - began)
        batcher.submit(self)

    def done(self, scores: Predictions) -> None:
        """Write the reply."""
        route = self._route
        manifest = self._served.model.manifest
        began = time.perf_counter()
        head = None
        if route.is_v2:
            body, head = v2.reply(scores, manifest, self._wanted, route.name, self._served.version, self.id)
        else:
            body = v1.reply(scores, manifest)
        route.telemetry.postprocessed(time.perf_counter() - began)
        self._write(200, body, _JSON if head is None else _BINARY, head)

    def failed(self, failure: Exception) -> None:
        """Write what went wrong."""
        status, message, headers = self._protocol._core.told(failure, self.id, self._seen.get(b"traceparent"))
        self._write(status, error_body(message), _JSON, None, headers)

    def _write(
        self, status: int, body: bytes, kind: bytes, head: int | None, headers: dict[str, str] | None = None
    ) -> None:
        protocol = self._protocol
        core = protocol._core
        seconds = time.perf_counter() - self.since
        self.response_started = self.response_complete = True
        if not self.disconnected:
            keep_alive = self.keep_alive and not core.repository.draining
            more = b"" if head is None else b"inference-header-content-length: %d\r\n" % head
            if headers:
                more += "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode()
            if (trace := self._seen.get(b"traceparent")) is not None:
                more += passed_on(trace, self._seen.get(b"tracestate"))
            if not keep_alive:
                more += b"connection: close\r\n"
            protocol.transport.write(
                b"%b%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b"
                % (STATUS_LINE[status], core.date, kind, len(body), self.id.encode("latin-1"), more, body)
            )
            if not keep_alive:
                protocol.transport.close()
        self._route.telemetry.answered(status, seconds)
        if self._span is not None and core.tracing is not None:
            core.tracing.end(self._span, status, self.asked.count if status == 200 else 0)
        if core.payloads is not None and core.payloads.wants():
            core.offer(self._route, self.id, self._seen, self.body, status, body, kind, head, seconds)
        protocol.on_response_complete()
