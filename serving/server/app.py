"""Everything but the two hot routes, as an ASGI application; and those too, for requests of an unusual form."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as Path

from components.errors import SluicewayError
from serving.log import REQUEST_ID, TRACE_ID
from serving.server import openapi, v1, v2
from serving.server.columns import Asked
from serving.server.core import Core, error_body
from serving.server.explaining import Explainer
from serving.server.failures import BadRequest, NotFound, NotServing, TooLarge, Unauthorized
from serving.server.served import Served
from serving.tracing import trace_id

log = logging.getLogger("sluiceway.serving")

Handler = Callable[[Request], Awaitable[Response]]
EXTENSIONS = ["binary_tensor_data", "model_repository"]
_OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no token: probes have none."""
_METRICS = "/metrics"


class Application:
    """The routes of one process."""

    def __init__(self, core: Core, version: str, metrics: Callable[[], bytes]) -> None:
        """Keep what the routes need.

        Args:
            core: what the process shares.
            version: of the server.
            metrics: gives the page for Prometheus.
        """
        self._core = core
        self._version = version
        self._metrics = metrics
        self._explainer = Explainer(core.limits)
        self._routes = self._make_routes()
        self._document: tuple[list[Served], bytes] = ([], b"")

    def starlette(self) -> Starlette:
        """The ASGI application."""
        errors: dict[Any, Any] = {HTTPException: self._http_error, Exception: self._error}
        return Starlette(routes=self._routes, exception_handlers=errors)

    def paths(self) -> list[tuple[str, str]]:
        """Method and path of every route; ``{name}`` and ``{version}`` stand for a model's."""
        return [(method, route.path) for route in self._routes for method in (route.methods or set()) - {"HEAD"}]

    def _make_routes(self) -> list[Path]:
        model = "/v2/models/{name}"
        versioned = model + "/versions/{version}"
        return [
            self._path("/", self._alive),
            self._path("/v1/models", self._v1_models),
            self._path("/v1/models/{name}:predict", self._v1_predict, "POST"),
            self._path("/v1/models/{name}:explain", self._v1_explain, "POST"),
            self._path("/v1/models/{name}", self._v1_model),
            *(self._path(path, self._server) for path in ("/v2", "/v2/")),  # KServe's and the specification's
            self._path("/v2/health/live", self._live),
            self._path("/v2/health/ready", self._ready),
            self._path("/v2/models", self._models),
            *(self._path(base + "/infer", self._infer, "POST") for base in (model, versioned)),
            *(self._path(base + "/ready", self._model_ready) for base in (model, versioned)),
            *(self._path(base, self._model) for base in (versioned, model)),
            self._path("/v2/repository/index", self._index, "POST"),
            self._path("/v2/repository/models/{name}/load", self._load, "POST"),
            self._path("/v2/repository/models/{name}/unload", self._unload, "POST"),
            self._path(_METRICS, self._prometheus),
            self._path("/openapi.json", self._openapi),
        ]

    def _path(self, path: str, handler: Handler, method: str = "GET") -> Path:
        async def answer(request: Request) -> Response:
            request_id = request.headers.get("x-request-id") or self._core.made_id()
            REQUEST_ID.set(request_id)  # each request is answered in a task, and so a context, of its own
            TRACE_ID.set(trace_id(request.headers.get("traceparent", "").encode("latin-1")))
            request.state.id = request_id
            try:
                self._let_in(request)
                if "version" in request.path_params:
                    self._check_version(request)
                response = await handler(request)
            except (SluicewayError, HTTPException) as error:
                response = self._failure(error, request_id)
            except ClientDisconnect:
                response = Response(status_code=400)  # nobody reads it
            except Exception as error:  # noqa: BLE001 - ours; logged, and the client told no more than that
                response = self._failure(error, request_id)
            response.headers["x-request-id"] = request_id
            if TRACE_ID.get():
                for name in ("traceparent", "tracestate"):
                    if name in request.headers:
                        response.headers[name] = request.headers[name]
            if self._core.repository.draining:
                response.headers["connection"] = "close"
            return response

        return Path(path, answer, methods=[method])

    def _let_in(self, request: Request) -> None:
        tokens = self._core.tokens
        path = request.url.path
        if tokens is None or path in _OPEN or path.endswith("/ready"):
            return
        if path == _METRICS and not self._core.token_for_metrics:
            return
        given = request.headers.get("authorization")
        if not tokens.allows(None if given is None else given.encode("latin-1")):
            raise Unauthorized("The request needs the header Authorization: Bearer, with a token of this server.")

    def _check_version(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params["version"]
        if version != self._core.repository.entry(name).version:
            raise NotFound(f"Model with name {name} has no version {version}.")

    async def _alive(self, _: Request) -> Response:
        return _json({"status": "alive"})

    async def _live(self, _: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, _: Request) -> Response:
        ready = self._core.repository.all_ready()
        return _json({"ready": ready}, 200 if ready else 503)

    async def _server(self, _: Request) -> Response:
        return _json({"name": "sluiceway", "version": self._version, "extensions": EXTENSIONS})

    async def _v1_models(self, _: Request) -> Response:
        return _json({"models": self._core.repository.names()})

    async def _models(self, _: Request) -> Response:
        return _json({"models": self._core.repository.names()})

    async def _v1_model(self, request: Request) -> Response:
        if request.path_params["name"].endswith((":predict", ":explain")):
            raise HTTPException(405, "This path does not take that method.", {"allow": "POST"})
        return self._readiness(request)

    async def _model_ready(self, request: Request) -> Response:
        return self._readiness(request)

    def _readiness(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not self._core.repository.is_ready(name):
            entry = self._core.repository.entry(name)
            raise NotServing(f"Model with name {name} is not ready." + (f" {entry.failure}" if entry.failure else ""))
        return _json({"name": name, "ready": True})

    async def _model(self, request: Request) -> Response:
        return _json(v2.metadata(self._core.repository.get(request.path_params["name"])))

    async def _index(self, request: Request) -> Response:
        """All models, or those that answer; states and shape are Triton's."""
        given = await self._object(request)
        ready_only = given.get("ready", False)
        if type(ready_only) is not bool:
            raise BadRequest("ready: true or false is needed.")
        repository = self._core.repository
        models = []
        for name in repository.names():
            entry, ready = repository.entry(name), repository.is_ready(name)
            if ready or not ready_only:
                state = "READY" if ready else "UNAVAILABLE"
                models.append({"name": name, "version": entry.version, "state": state, "reason": entry.failure})
        return _json(models)

    async def _load(self, request: Request) -> Response:
        await self._no_parameters(request)
        name = request.path_params["name"]
        await self._core.repository.load(name)
        return _json({"name": name, "load": True})

    async def _unload(self, request: Request) -> Response:
        await self._no_parameters(request)
        name = request.path_params["name"]
        await self._core.repository.unload(name)
        return _json({"name": name, "unload": True})

    async def _object(self, request: Request) -> dict[str, Any]:
        """The JSON object of a body that may be empty."""
        body = await self.body(request)
        given = v1.parsed(body) if body.strip() else {}
        if type(given) is not dict:
            raise BadRequest("The request body is no JSON object.")
        return given

    async def _no_parameters(self, request: Request) -> None:
        if (await self._object(request)).get("parameters"):
            raise BadRequest("parameters: a model's files and settings are its bundle's; none can be sent along.")

    async def _v1_explain(self, request: Request) -> Response:
        core = self._core
        name = request.path_params["name"]
        served = core.repository.get(name)
        began = time.perf_counter()
        content = await self._explainer.explain(await self.body(request), served)
        core.route(name, is_v2=False).telemetry.explained(time.perf_counter() - began)
        return _json(content)

    async def _openapi(self, _: Request) -> Response:
        core = self._core
        models = [core.repository.get(name) for name in core.repository.names() if core.repository.is_ready(name)]
        if not self._document[1] or models != self._document[0]:
            made = openapi.document(
                self.paths(), models, self._version, core.limits, has_tokens=core.tokens is not None
            )
            self._document = (models, orjson.dumps(made))
        return Response(self._document[1], media_type="application/json")

    async def _prometheus(self, _: Request) -> Response:
        return Response(self._metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _v1_predict(self, request: Request) -> Response:
        return await self._predict(request, is_v2=False)

    async def _infer(self, request: Request) -> Response:
        return await self._predict(request, is_v2=True)

    async def _predict(self, request: Request, *, is_v2: bool) -> Response:
        """Answer as a hot connection does, and count, trace and log it alike."""
        core = self._core
        name = request.path_params["name"]
        core.repository.entry(name)
        path = f"/v2/models/{name}/infer" if is_v2 else f"/v1/models/{name}:predict"
        route = core.route(name, is_v2=is_v2)
        began = time.perf_counter()
        seen = dict(request.headers.raw)
        span = core.tracing.start(request.headers.raw, path) if core.tracing is not None else None
        body, status, rows, head, kind = b"", 500, 0, None, b"application/json"
        reply = b""
        try:
            body = await self.body(request)
            if core.faults is not None:
                await core.faults.strike()
            batcher = core.repository.batcher(name)
            batcher.check_room()
            read = time.perf_counter()
            served = batcher.served
            manifest = served.model.manifest
            if is_v2:
                asked, wanted = v2.asked(body, core.head_length(seen), served.reader, manifest, core.limits)
            else:
                given = v1.rows_of(body, served.reader, core.limits)
                asked = Asked(len(given), rows=given)
            route.telemetry.preprocessed(time.perf_counter() - read)
            scores = await batcher.predict(asked)
            scored = time.perf_counter()
            if is_v2:
                reply, head = v2.reply(scores, manifest, wanted, name, served.version, request.state.id)
            else:
                reply = v1.reply(scores, manifest)
            route.telemetry.postprocessed(time.perf_counter() - scored)
            status, rows = 200, asked.count
            response = Response(reply, media_type="application/json")
            if head is not None:
                kind = b"application/octet-stream"
                response = Response(reply, media_type="application/octet-stream")
                response.headers["inference-header-content-length"] = str(head)
        except Exception as error:  # noqa: BLE001 - told as everywhere, but counted here
            response = self._failure(error, request.state.id)
            status, reply = response.status_code, bytes(response.body)
        seconds = time.perf_counter() - began
        route.telemetry.answered(status, seconds)
        if span is not None and core.tracing is not None:
            core.tracing.end(span, status, rows)
        if core.payloads is not None and core.payloads.wants():
            core.offer(route, request.state.id, seen, body, status, reply, kind, head, seconds)
        return response

    async def body(self, request: Request) -> bytes:
        """The body of a request.

        Raises:
            TooLarge: it is longer than the limit.
        """
        limit = self._core.limits.body_bytes
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise TooLarge(f"The request's body is longer than {limit:,} bytes. Send several requests.")
            parts.append(part)
        return b"".join(parts)

    def _failure(self, error: Exception, request_id: str) -> Response:
        if isinstance(error, HTTPException):
            body = error_body(str(error.detail))
            return Response(body, error.status_code, error.headers, media_type="application/json")
        if isinstance(error, ClientDisconnect):
            error = BadRequest("The request ended before its body did.")
        status, message, headers = self._core.told(error, request_id)
        return Response(error_body(message), status, headers, media_type="application/json")

    async def _http_error(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = {404: "There is no such path.", 405: "This path does not take that method."}
        message = said.get(error.status_code, str(error.detail))
        return Response(error_body(message), error.status_code, error.headers, media_type="application/json")

    async def _error(self, _: Request, error: Exception) -> Response:
        return self._failure(error, self._core.made_id())


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
