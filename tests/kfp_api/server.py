"""A KFP API server over HTTP, for kfp's client to talk to; what stands in front of it, and faults.

It keeps pipelines, versions, experiments, runs and recurring runs as KFP's API server does (read in its source), and
checks every request and every response against KFP's Swagger document. A request that breaks it is answered with 400
and kept in ``broken``, a response that breaks it raises. What the cluster does to runs, the test says.

    with KfpApi() as api:
        api.faults.add("answer", code=503, method="GET", path="/pipelines$", times=2)
        api.faults.add("lose", path="upload_version")     # carried out, but the answer never arrives
        api.faults.add("after", code=502, path="/runs$")  # carried out, but the answer says that it failed
        api.faults.add("hang", path="healthz", seconds=0.5)
        api.gate.tokens = {"fresh": "anna@example.com"}   # any other token gets 401
        api.runs.become(run_id, "FAILED", "step train failed")
"""

import contextlib
import email
import json
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.cluster.faults import Fault, Faults
from tests.kfp_api.contract import Operation, contract
from tests.kfp_api.experiments import Experiments
from tests.kfp_api.gate import Gate
from tests.kfp_api.pipelines import Pipelines
from tests.kfp_api.recurring import Recurring
from tests.kfp_api.refusals import EXISTS, INTERNAL, INVALID, NOT_FOUND, Refusal, upload_body
from tests.kfp_api.runs import Runs
from tests.kfp_api.store import Store

Plain = dict[str, Any]

_LOG = re.compile(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log")
_ARTIFACT = re.compile(r"/apis/v2beta1/runs/([^/]+)/nodes/([^/]+)/artifacts/([^/]+):read")


class KfpApi:
    """The server, on a free port of this machine.

    Attributes:
        store: what it holds, and which version of KFP it is.
        pipelines: handlers of pipelines; likewise ``experiments``, ``runs`` and ``recurring``.
        gate: who is let in.
        faults: what goes wrong; paths are without the query.
        requests: every request so far, as method and path.
        broken: what was wrong with requests that broke the contract: tests expect none.
        through_ui: answer as the UI's server does, which passes the API on.
        before: called with method and path before a request is carried out, such as to let two meet.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Serve, once started; with TLS where there is a context for it."""
        self.store = Store()
        self.pipelines = Pipelines(self.store)
        self.experiments = Experiments(self.store)
        self.runs = Runs(self.store, self.pipelines, self.experiments)
        self.recurring = Recurring(self.store, self.runs, self.experiments)
        self.gate = Gate()
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []
        self.broken: list[str] = []
        self.through_ui = False
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": self}))
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._http.handle_error = _show_error  # type: ignore[method-assign]
        self._scheme = "https" if tls else "http"
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)

    def __enter__(self) -> Self:
        """Start."""
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop."""
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}"

    def reset(self) -> None:
        """Hold nothing, let everyone in, have nothing go wrong."""
        self.store.clear()
        self.gate.open()
        self.faults.clear()
        self.requests.clear()
        self.broken.clear()
        self.through_ui = False
        self.before = lambda _method, _path: None

    def count(self, method: str, path: str) -> int:
        """How many requests there were whose path ends like this."""
        return sum(one == method and where.endswith(path) for one, where in self.requests)

    def health(self) -> Plain:
        """What healthz says: more than the Swagger document tells, and otherwise through the UI."""
        version, many = self.store.version, self.store.multi_user
        if self.through_ui:
            return {"apiServerTagName": version, "apiServerMultiUser": many, "multi_user": many, "apiServerReady": True}
        return {"commit_sha": "0" * 40, "tag_name": version, "multi_user": many, "pipeline_store": "database"}

    def handlers(self) -> dict[str, Callable[..., Plain]]:
        """By operation."""
        pipelines, experiments, runs, recurring = self.pipelines, self.experiments, self.runs, self.recurring
        return {
            "HealthzService_GetHealthz": self.health,
            "PipelineService_CreatePipeline": pipelines.create_pipeline,
            "PipelineService_GetPipeline": pipelines.get_pipeline,
            "PipelineService_GetPipelineByName": pipelines.get_by_name,
            "PipelineService_ListPipelines": pipelines.list_pipelines,
            "PipelineService_DeletePipeline": pipelines.delete_pipeline,
            "PipelineService_GetPipelineVersion": pipelines.get_version,
            "PipelineService_ListPipelineVersions": pipelines.list_versions,
            "PipelineService_DeletePipelineVersion": pipelines.delete_version,
            "UploadPipeline": pipelines.upload,
            "UploadPipelineVersion": pipelines.upload_version,
            "ExperimentService_CreateExperiment": experiments.create,
            "ExperimentService_GetExperiment": experiments.get,
            "ExperimentService_ListExperiments": experiments.list_all,
            "ExperimentService_DeleteExperiment": experiments.delete,
            "ExperimentService_ArchiveExperiment": experiments.archive,
            "ExperimentService_UnarchiveExperiment": experiments.unarchive,
            "RunService_CreateRun": runs.create,
            "RunService_GetRun": runs.get,
            "RunService_ListRuns": runs.list_all,
            "RunService_RetryRun": runs.retry,
            "RunService_TerminateRun": runs.terminate,
            "RunService_ArchiveRun": runs.archive,
            "RunService_UnarchiveRun": runs.unarchive,
            "RunService_DeleteRun": runs.delete,
            "RecurringRunService_CreateRecurringRun": recurring.create,
            "RecurringRunService_GetRecurringRun": recurring.get,
            "RecurringRunService_ListRecurringRuns": recurring.list_all,
            "RecurringRunService_EnableRecurringRun": recurring.enable,
            "RecurringRunService_DisableRecurringRun": recurring.disable,
            "RecurringRunService_DeleteRecurringRun": recurring.delete,
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: KfpApi

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if address.path.startswith("/dex/"):
            return self._send(*self.api.gate.dex(self.command, self.path, body))
        if address.path == "/google/token":
            return self._send(200, {"Content-Type": "application/json"}, self.api.gate.google(body))
        self.api.requests.append((self.command, address.path))
        self.api.before(self.command, address.path)
        fault = self.api.faults.next(self.command, address.path)
        if fault is not None and fault.how in ("answer", "drop", "hang"):
            return self._fail(fault)
        user = self.api.gate.user(self.headers.get("Authorization", ""), self.headers.get("Cookie", ""))
        if user is None:
            return self._send(*self.api.gate.refusal(address.path))
        query = {name: values[-1] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        with self.api.store.lock:
            self.api.store.local.user = user
            status, answer = self._answer(address.path, query, body)
        if fault is not None:
            if fault.how == "slow":
                time.sleep(fault.seconds)
            elif fault.how in ("lose", "after"):
                return self._fail(fault)
        self._send(status, {"Content-Type": "application/json"}, answer)
        return None

    do_GET = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815 - http.server's names

    def _fail(self, fault: Fault) -> None:
        if fault.how in ("answer", "after"):
            headers = {"Content-Type": "application/json"}
            headers |= {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
            return self._send(fault.code, headers, fault.body())
        if fault.how == "hang":
            time.sleep(fault.seconds)
        raise ConnectionError

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if match := _LOG.fullmatch(path):
            return 200, self.api.runs.log(*match.groups())
        found = contract().find(self.command, path)
        try:
            if match := _ARTIFACT.fullmatch(path):
                return 200, self.api.runs.artifact(*match.groups())
            handler = self.api.handlers().get(found[0].name) if found else None
            if found is None or handler is None:
                raise Refusal(NOT_FOUND, "Not Found")
            return 200, self._call(handler, *found, query, body)
        except Refusal as refusal:
            if found and found[0].name.startswith("Upload"):
                return _refused_upload(refusal, self.api.store.old)
            return refusal.status, refusal.body()

    def _call(
        self,
        handler: Callable[..., Plain],
        operation: Operation,
        parts: tuple[str, ...],
        query: dict[str, str],
        body: bytes,
    ) -> bytes:
        given: Plain = dict(zip(operation.given("path"), parts, strict=True)) | query
        if operation.given("formData"):
            given["package"], given["filename"] = self._file(body)
        if operation.given("body"):
            given["body"] = _json(body)
        wrong = contract().faults_of_request(operation, query, given.get("body"))
        if wrong:
            self.api.broken += [f"{operation.name}: {one}" for one in wrong]
            raise Refusal(INVALID, wrong[0])
        answer = handler(**given)
        broken = contract().faults_of_response(operation, answer)
        assert not broken, f"{operation.name} answers against the contract: {broken}"
        return json.dumps(answer).encode()

    def _file(self, body: bytes) -> tuple[bytes, str]:
        """The file that is uploaded, and its name."""
        form = email.message_from_bytes(f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + body)
        for part in form.walk():
            if part.get_param("name", header="content-disposition") == "uploadfile":
                return part.get_payload(decode=True), part.get_filename() or ""  # type: ignore[return-value]
        raise Refusal(INVALID, "Failed to read pipeline from file")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError as error:
        raise Refusal(INVALID, f"invalid character: {error}") from error


def _refused_upload(refusal: Refusal, old: bool) -> tuple[int, bytes]:
    """An upload's refusal says little: that it failed, and the reason only for what the user can mend."""
    what = "Failed to create a pipeline version"
    if refusal.code == EXISTS:  # before 2.10 the server took it for its own failure
        return (500 if old else 409), upload_body(what)
    if refusal.code == INTERNAL:
        return 500, upload_body(what)
    return 400, upload_body(refusal.message if refusal.code == INVALID else what)


def _show_error(*_: object) -> None:
    """A client that hangs up is no error of ours; anything else is shown."""
    if not isinstance(sys.exception(), ConnectionError):
        import traceback

        with contextlib.suppress(OSError):
            traceback.print_exc()
