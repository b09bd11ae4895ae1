"""A bundle behind KServe's model interface and REST application.

Importing this module imports kserve, which takes over a second and reads ``sys.argv``: only :mod:`serving.server` does.
"""

import asyncio
import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kserve
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve.errors import InvalidInput, ModelNotReady
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer

from components.errors import BadInput
from serving import bundle, protocol
from serving.bundle import Model, Predictions
from serving.telemetry import Telemetry

log = logging.getLogger("sluiceway.serving")

APP = "kserve.model_server:app"
_WARM_UP = {"number": 0.0, "boolean": 0.0, "string": "", "timestamp": "1970-01-01T00:00:00"}


class BundleModel(kserve.Model):
    """One bundle; not ready until it has made a prediction."""

    def __init__(self, name: str, revision: str, folder: Path, telemetry: Telemetry) -> None:
        """Name the bundle; :meth:`start_up` loads it."""
        super().__init__(name)
        self._revision = revision
        self._folder = folder
        self._telemetry = telemetry
        self._model: Model | None = None
        # One thread: the work holds the GIL most of the time, and DuckDB's connection is not shared between threads.
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    @property
    def model(self) -> Model:
        """The loaded bundle."""
        assert self._model is not None, "requests are refused until the model is loaded"
        return self._model

    async def start_up(self) -> None:
        """Load the bundle and predict once, off the event loop; the model is ready after that.

        Raises:
            BadBundle: the bundle does not verify or load.
        """
        await asyncio.get_running_loop().run_in_executor(self._pool, self._load_and_warm)
        self.ready = True

    def _load_and_warm(self) -> None:
        model = bundle.load(self._folder)
        model.predict_columns({column.name: [_WARM_UP[column.type]] for column in model.schema.inputs})
        self._telemetry.expect(model.manifest)
        self._model = model

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Answer a V1 body or a V2 ``InferRequest``; the model works off the event loop."""
        v2 = isinstance(payload, kserve.InferRequest)
        score = self._score_v2 if v2 else self._score_v1
        try:
            scores = await asyncio.get_running_loop().run_in_executor(self._pool, score, payload)
        except BadInput as error:
            raise InvalidInput(str(error)) from error
        return self._v2_reply(payload, scores) if v2 else protocol.v1_reply(scores, self.model.manifest)

    def _score_v1(self, payload: Any) -> Predictions:
        return self._score(protocol.v1_columns(payload, self.model.schema))

    def _score_v2(self, payload: Any) -> Predictions:
        return self._score(protocol.v2_columns(payload.inputs, self.model.schema))

    def _score(self, columns: dict[str, list[Any]]) -> Predictions:
        scores = self.model.predict_columns(columns)
        self._telemetry.predicted(scores, self.model.manifest)
        return scores

    def _v2_reply(self, request: Any, scores: Predictions) -> Any:
        outputs = [
            kserve.InferOutput(name=name, shape=shape, datatype=datatype, data=data)
            for name, shape, datatype, data in protocol.v2_outputs(scores, self.model.manifest)
        ]
        return kserve.InferResponse(
            response_id=request.id or str(uuid.uuid4()),
            model_name=self.name,
            infer_outputs=outputs,
            model_version=self._revision,
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )

    def get_input_types(self) -> list[dict[str, Any]]:
        """Input tensors for the V2 metadata endpoint; empty until the model is loaded."""
        return protocol.v2_metadata(self.model.schema, self.model.manifest)[0] if self.ready else []

    def get_output_types(self) -> list[dict[str, Any]]:
        """Output tensors for the V2 metadata endpoint; empty until the model is loaded."""
        return protocol.v2_metadata(self.model.schema, self.model.manifest)[1] if self.ready else []


class _DataPlane(DataPlane):
    """KServe's, with a malformed binary body answered as the client's mistake instead of as ours."""

    def decode_inference_request(self, body: Any, headers: Any, model_name: str) -> Any:
        try:
            return super().decode_inference_request(body, headers, model_name)
        except KeyError as error:
            raise InvalidInput(f"The V2 request lacks the field {error}.") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidInput(f"The V2 request cannot be read: {error}") from error


def rest_application(model: BundleModel, host: str, port: int, grace_s: int) -> tuple[uvicorn.Config, FastAPI]:
    """KServe's REST application with the model registered, and a uvicorn configuration bound to one host."""
    repository = kserve.ModelRepository()
    repository.update(model)
    rest = RESTServer(APP, _DataPlane(repository), ModelRepositoryExtension(repository), port, grace_period=grace_s)
    rest.create_application()
    rest.config.host = host  # kserve listens on every interface
    app: FastAPI = uvicorn.importer.import_from_string(APP)
    # kserve's own handlers log a traceback for each of these.
    app.add_exception_handler(ModelNotReady, _not_ready)
    app.add_exception_handler(InvalidInput, _bad_request)
    app.add_exception_handler(RequestValidationError, _unreadable_request)
    return rest.config, app


async def _not_ready(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(status_code=503, content={"error": str(error)})


async def _bad_request(_request: Request, error: Exception) -> JSONResponse:
    log.warning("400: %s", error)
    return JSONResponse(status_code=400, content={"error": str(error)})


async def _unreadable_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    said = []
    for problem in error.errors():
        where = [str(part) for part in problem["loc"] if part not in ("body", "InferenceRequest")]
        if "bytes" not in where:  # the other form that kserve accepts here
            said.append(f"{'.'.join(where) or 'body'}: {problem['msg']}")
    return await _bad_request(request, InvalidInput("The V2 request cannot be read: " + "; ".join(said or ["no body"])))
