"""The Open Inference Protocol over gRPC: ``inference.GRPCInferenceService``, in the event loop of the HTTP server.

Requests go to the same queues in front of the same models. What HTTP has in headers is metadata here:
``authorization``, ``x-request-id``, ``traceparent`` and ``tracestate``; the last three are given back in the trailing
metadata. Each of HTTP's statuses has a code here, by which calls are counted.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext

from components.errors import SluicewayError
from serving.log import REQUEST_ID
from serving.server import messages, v2
from serving.server.core import Core, Route
from serving.server.failures import BadRequest, Failure, NotFound, Overloaded, Unauthorized
from serving.server.v2 import Wanted
from serving.tracing import trace_id

SERVICE = "inference.GRPCInferenceService"
_INFER = "ModelInfer"
_OPEN = frozenset({"ServerLive", "ServerReady", "ModelReady"})
"""What needs no token: probes have none."""
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_GIVEN_BACK = ("traceparent", "tracestate")
_PUSHBACK = ("grpc-retry-pushback-ms", "1000")
"""Retry-After of gRPC: clients that retry by themselves wait so long (gRFC A6)."""
_DETAILS_CHARS = 1_024  # clients take 8 KiB of metadata, and a character may take twelve bytes there
_PENDING = 8  # calls, with their metadata but no message, for each that may wait for the model
_OK = 200
_CLIENT_GONE = 499
"""Counted for a call that was cancelled, or whose deadline passed: the client tells the server the same of both."""
_JSON = b"application/json"
_HEAD_BYTES = 64 * 1024  # of a message, beside the body that HTTP would have: names, shapes, framing

Handler = Callable[[Any], Awaitable[Any]]


class PortTaken(SluicewayError):
    """The port of gRPC cannot be used."""


class Server:
    """The gRPC server of one process."""

    def __init__(self, core: Core, version: str, extensions: list[str]) -> None:
        """Keep what the methods need.

        Args:
            core: what the process shares.
            version: of the server.
            extensions: of the protocol.

        Raises:
            NoMessages: ``kserve``, which has the message types, is not installed.
        """
        self._core = core
        self._version = version
        self._extensions = extensions
        self._types = messages.messages()
        self._server: grpc.aio.Server | None = None

    async def start(self, host: str, port: int, *, credentials: grpc.ServerCredentials | None = None) -> None:
        """Listen.

        Args:
            host: address to listen on.
            port: port to listen on, with the other workers: gRPC cannot be given a socket, so each has one of its own
                with ``SO_REUSEPORT``. See :func:`serving.server.sockets.reserve`.
            credentials: the certificate and its key; None for plain HTTP/2.

        Raises:
            PortTaken: the address cannot be used.
        """
        limits = self._core.limits
        options = [
            ("grpc.so_reuseport", 1),
            # Calls that Python has not seen yet. Beyond its defaults of 1,000 and 3,000 gRPC says CANCELLED, which
            # tells clients nothing; the queue in front of the model says what there is.
            ("grpc.server.max_pending_requests", _PENDING * limits.waiting),
            ("grpc.server.max_pending_requests_hard_limit", _PENDING * limits.waiting),
            ("grpc.max_receive_message_length", limits.body_bytes + _HEAD_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", limits.header_bytes),
            ("grpc.absolute_max_metadata_size", limits.header_bytes),
            ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((self._handlers(),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if credentials is None:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise PortTaken(f"Port {port} on {host} cannot be used for gRPC: {error}") from error
        await server.start()
        self._server = server

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and finish those in flight, for so many seconds at most."""
        if self._server is not None:
            await self._server.stop(seconds)

    def _handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, Handler] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ServerMetadata": self._metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        service = self._types.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]]
        handlers: dict[str, Any] = {_INFER: grpc.unary_unary_rpc_method_handler(self._infer)}
        for method in service.methods:
            if method.name != _INFER:
                request = getattr(self._types, method.input_type.name)
                answer = self._method(method.name, request, methods[method.name])
                handlers[method.name] = grpc.unary_unary_rpc_method_handler(answer)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _method(self, name: str, kind: Any, handler: Handler) -> Callable[[bytes, ServicerContext], Awaitable[bytes]]:
        """A method that parses its request, and tells failures as HTTP's routes do."""

        async def answer(encoded: bytes, context: ServicerContext) -> bytes:
            call = _Call(self._core, context)
            REQUEST_ID.set(call.id)  # each call is answered in a task, and so a context, of its own
            try:
                if name not in _OPEN:
                    self._let_in(call)
                response: bytes = (await handler(_parsed(kind, encoded))).SerializeToString()
            except Exception as error:  # noqa: BLE001 - ours; logged, and the client told no more than that
                failure, (_, message) = error, call.told(error)
            else:
                context.set_trailing_metadata(call.trailing())
                return response
            return await call.end(failure, message)

        return answer

    async def _live(self, _: Any) -> Any:
        return self._types.ServerLiveResponse(live=True)

    async def _ready(self, _: Any) -> Any:
        return self._types.ServerReadyResponse(ready=self._core.repository.all_ready())

    async def _metadata(self, _: Any) -> Any:
        return self._types.ServerMetadataResponse(name="sluiceway", version=self._version, extensions=self._extensions)

    async def _model_ready(self, request: Any) -> Any:
        self._check_version(request.name, request.version)
        return self._types.ModelReadyResponse(ready=self._core.repository.is_ready(request.name))

    async def _model_metadata(self, request: Any) -> Any:
        self._check_version(request.name, request.version)
        return messages.metadata(v2.metadata(self._core.repository.get(request.name)))

    async def _load(self, request: Any) -> Any:
        await self._core.repository.load(request.model_name)
        return self._types.RepositoryModelLoadResponse(model_name=request.model_name, isLoaded=True)

    async def _unload(self, request: Any) -> Any:
        await self._core.repository.unload(request.model_name)
        return self._types.RepositoryModelUnloadResponse(model_name=request.model_name, isUnloaded=True)

    def _let_in(self, call: "_Call") -> None:
        tokens = self._core.tokens
        if tokens is not None:
            given = call.seen.get("authorization")
            if not tokens.allows(None if given is None else given.encode("latin-1")):
                raise Unauthorized("The call needs the metadata authorization: Bearer, with a token of this server.")

    def _check_version(self, name: str, version: str) -> None:
        if version not in ("", self._core.repository.entry(name).version):
            raise NotFound(f"Model with name {name} has no version {version}.")

    async def _infer(self, encoded: bytes, context: ServicerContext) -> bytes:
        """Answer as HTTP's infer route does, and count, trace and log it alike."""
        call = _Call(self._core, context)
        failure: Exception | None = None
        status, code, message, response = 500, grpc.StatusCode.OK, "", b""
        try:
            self._let_in(call)
            response = await self._predicted(call, encoded)
            status = _OK
        except asyncio.CancelledError:
            status, code = _CLIENT_GONE, grpc.StatusCode.CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 - told as everywhere, but counted here
            failure = error
            status, message = call.told(error)
            code = _code(error)
        finally:
            call.count(status, code)
        if failure is not None:
            return await call.end(failure, message)
        context.set_trailing_metadata(call.trailing())
        return response

    async def _predicted(self, call: "_Call", encoded: bytes) -> bytes:
        core = self._core
        request = _parsed(self._types.ModelInferRequest, encoded)
        name = request.model_name
        self._check_version(name, request.model_version)
        call.begin(core.route(name, is_v2=True), request)
        if core.faults is not None:
            await core.faults.strike()
        batcher = core.repository.batcher(name)
        batcher.check_room()
        served = batcher.served
        manifest = served.model.manifest
        telemetry = core.route(name, is_v2=True).telemetry
        began = time.perf_counter()
        asked, wanted = messages.asked(request, served.reader, manifest, core.limits)
        telemetry.preprocessed(time.perf_counter() - began)
        scores = await batcher.predict(asked)
        call.rows = asked.count
        began = time.perf_counter()
        if call.is_logged:
            in_json = Wanted(wanted.id, wanted.outputs)
            call.logged, _ = v2.reply(scores, manifest, in_json, name, served.version, call.id)
        response = messages.reply(scores, manifest, wanted, name, served.version, call.id)
        telemetry.postprocessed(time.perf_counter() - began)
        return response


def credentials(certificate: Path, key: Path | None) -> grpc.ServerCredentials:
    """The certificate and key that HTTP uses, read again for new connections when the files change.

    Args:
        certificate: PEM file of the certificate and its chain.
        key: PEM file of the private key; None where the first file holds it, too.
    """
    paths = (certificate, key or certificate)
    known = [path.read_bytes() for path in paths]

    def read() -> Any:
        """What gRPC asks before each handshake; None stays with what there is."""
        try:
            found = [path.read_bytes() for path in paths]
        except OSError:
            return None
        if found == known:
            return None
        known[:] = found
        return configuration()

    def configuration() -> Any:
        chain, private = known
        return grpc.ssl_server_certificate_configuration([(private, chain)])

    return grpc.dynamic_ssl_server_credentials(configuration(), read)


class _Call:
    """A call, and what is kept of it to count it and to tell how it failed."""

    __slots__ = (
        "_began",
        "_context",
        "_core",
        "_request",
        "_route",
        "_span",
        "_traceparent",
        "id",
        "is_logged",
        "logged",
        "rows",
        "seen",
    )

    def __init__(self, core: Core, context: ServicerContext) -> None:
        self._core = core
        self._context = context
        self._began = time.perf_counter()
        self._route: Route | None = None
        self._request: Any = None
        self._span: Any = None
        self.seen: dict[str, Any] = dict(context.invocation_metadata() or ())
        self.id: str = self.seen.get("x-request-id") or core.made_id()
        self._traceparent: bytes = self.seen.get("traceparent", "").encode("latin-1")
        self.rows = 0
        self.is_logged = False
        self.logged = b""

    def begin(self, route: Route, request: Any) -> None:
        """A prediction begins."""
        core = self._core
        self._route = route
        self._request = request
        self.is_logged = core.payloads is not None and core.payloads.wants()
        if core.tracing is not None:
            texts = [(key.encode(), value.encode("latin-1")) for key, value in self.seen.items() if type(value) is str]
            self._span = core.tracing.start(texts, route.path, f"{SERVICE}/{_INFER}")

    def count(self, status: int, code: grpc.StatusCode) -> None:
        """Count a prediction, end its span and log it."""
        core, route = self._core, self._route
        if route is None:
            return
        seconds = time.perf_counter() - self._began
        route.telemetry.answered(status, seconds)
        if self._span is not None and core.tracing is not None:
            core.tracing.end(self._span, status, self.rows, code.value[0])
        if self.is_logged and status == _OK:
            seen = {b"content-type": _JSON}
            core.offer(route, self.id, seen, messages.as_rest(self._request), status, self.logged, _JSON, None, seconds)

    def trailing(self) -> tuple[tuple[str, str], ...]:
        """The metadata that ends the call."""
        given_back = _GIVEN_BACK if trace_id(self._traceparent) else ()
        return ("x-request-id", self.id), *[(name, self.seen[name]) for name in given_back if name in self.seen]

    def told(self, failure: Exception) -> tuple[int, str]:
        """HTTP's status and the message of a failure; logs it."""
        status, message, _ = self._core.told(failure, self.id, self._traceparent)
        return status, message

    async def end(self, failure: Exception, message: str) -> NoReturn:
        """End the call with the code of a failure."""
        trailing = self.trailing()
        if isinstance(failure, Failure) and "retry-after" in failure.headers:
            trailing = (*trailing, _PUSHBACK)
        await self._context.abort(_code(failure), message[:_DETAILS_CHARS], trailing)
        raise AssertionError("aborting raises") from failure


def _code(failure: Exception) -> grpc.StatusCode:
    """What a failure is in gRPC's words."""
    if isinstance(failure, Overloaded):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return _CODES[failure.status if isinstance(failure, Failure) else 500]


def _parsed(kind: Any, encoded: bytes) -> Any:
    try:
        return kind.FromString(encoded)
    except DecodeError as error:
        raise BadRequest(f"The message is no {kind.DESCRIPTOR.full_name}.") from error
