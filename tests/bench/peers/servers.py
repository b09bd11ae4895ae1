"""Every server of the comparison: how it is started, what it is asked, and how it is told to be ready."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psutil

from serving.local.processes import free_port
from tests.bench.load.client import ROOT, SERVER_CORE, post
from tests.bench.peers.environments import HERE, python
from tests.bench.peers.models import Served

Rows = list[list[Any]]


@dataclass(frozen=True)
class Peer:
    """A server that is measured.

    Attributes:
        name: as the tables show it.
        command: model and port to the command.
        request: model and rows to a whole request.
        ready: path that answers 200 once it serves.
        environment: further variables.
        only: the model that it serves, where it is one.
    """

    name: str
    command: Callable[[Served, int], list[str]]
    request: Callable[[Served, Rows], bytes]
    ready: str = "/"
    environment: Callable[[Served], dict[str, str]] = lambda _: {}
    only: str = ""

    def named(self, name: str) -> "Peer":
        """The same, of our own servers, for a model of another name."""
        return replace(self, command=partial(_ours, name=name), ready=f"/v2/models/{name}/ready")


@dataclass(frozen=True)
class Running:
    """A server that runs: its port, the process, and the seconds it took from its start to its first 200."""

    port: int
    process: psutil.Process
    seconds_to_ready: float

    def processor_seconds(self) -> float:
        """What its processes have used of processors."""
        times = [one.cpu_times() for one in [self.process, *self.process.children(recursive=True)]]
        return sum(one.user + one.system for one in times)

    def memory(self) -> tuple[float, float]:
        """RSS and PSS of the processes that serve, MB; where there are several, all together."""
        infos = [one.memory_full_info() for one in [self.process, *self.process.children(recursive=True)]]
        return sum(info.rss for info in infos) / 1e6, sum(info.pss for info in infos) / 1e6

    def each(self) -> list[float]:
        """RSS of each of its processes, MB."""
        return [one.memory_info().rss / 1e6 for one in [self.process, *self.process.children(recursive=True)]]


@contextlib.contextmanager
def running(peer: Peer, model: Served, *, core: int | None = SERVER_CORE) -> Iterator[Running]:
    """Start a server on a core and wait until it is ready.

    Raises:
        RuntimeError: it ended or did not get ready; the message ends with its log.
    """
    port = free_port()
    pin = [sys.executable, str(HERE / "pinned.py"), str(core)] if core is not None else []
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as log:
        env = {**os.environ, "HOME": home, "BENTOML_HOME": home, **peer.environment(model)}
        command = [*pin, *peer.command(model, port)]  # some write what they serve
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=env, start_new_session=True)
        try:
            _wait(peer, port, process, log)
            yield Running(port, psutil.Process(process.pid), time.monotonic() - began)
        finally:
            _end(process)


def _wait(peer: Peer, port: int, process: "subprocess.Popen[bytes]", log: Any) -> None:
    for _ in range(12_000):
        if process.poll() is not None:
            break
        url = f"http://127.0.0.1:{port}{peer.ready}"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as reply:
            if reply.status == 200:
                return
        time.sleep(0.005)
    log.seek(0)
    raise RuntimeError(f"{peer.name} did not get ready:\n{log.read().decode(errors='replace')[-3000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def dumps(document: Any) -> bytes:
    """JSON without blanks."""
    return json.dumps(document, separators=(",", ":")).encode()


def v1(model: Served, rows: Rows) -> bytes:
    """V1: arrays where all is numbers, else objects keyed by column."""
    instances = rows if model.name == "numeric" else model.objects(rows)
    return post("/v1/models/model:predict", dumps({"instances": instances}))


def v2_columns(model: Served, rows: Rows) -> bytes:
    """V2 with a tensor per column."""
    inputs = []
    for name, values in zip(model.columns, zip(*rows, strict=True), strict=True):
        kind = "BYTES" if isinstance(values[0], str) else "FP64"
        inputs.append({"name": name, "shape": [len(rows)], "datatype": kind, "data": list(values)})
    return post("/v2/models/model/infer", dumps({"id": "1", "inputs": inputs}))


def _ours(model: Served, port: int, name: str = "model", workers: int = 1) -> list[str]:
    options = ["--bundle", str(model.bundle), "--name", name, "--port", str(port), "--workers", str(workers)]
    return [sys.executable, "-m", "serving.server", *options]


def _kserve(model: Served, port: int) -> list[str]:
    return [str(python("kserve")), str(HERE / "kserve_sklearn.py"), str(model.folder), str(port)]


def _kserve_request(model: Served, rows: Rows) -> bytes:
    """KServe makes a frame of each instance, so that the rows of a frame are one instance of lists."""
    if model.name == "numeric":
        return v1(model, rows)
    frame = {name: list(values) for name, values in zip(model.columns, zip(*rows, strict=True), strict=True)}
    return post("/v1/models/model:predict", dumps({"instances": [frame]}))


def _mlserver(model: Served, port: int) -> list[str]:
    """Without the further process that it starts by default: on one core that is faster."""
    folder = model.folder / "mlserver"
    folder.mkdir(exist_ok=True)
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    model_settings = {
        "name": "model",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(model.folder / "model.joblib"), "extra": {"predict_fn": "predict_proba"}},
    }
    (folder / "settings.json").write_text(json.dumps({**ports, "parallel_workers": 0}))
    (folder / "model-settings.json").write_text(json.dumps(model_settings))
    return [str(python("mlserver").with_name("mlserver")), "start", str(folder)]


def _mlserver_request(model: Served, rows: Rows) -> bytes:
    if model.name == "numeric":
        flat = [value for row in rows for value in row]
        tensor = {"name": "rows", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": flat}
        return post("/v2/models/model/infer", dumps({"inputs": [tensor]}))
    inputs = []
    for name, values in zip(model.columns, zip(*rows, strict=True), strict=True):
        text = isinstance(values[0], str)
        inputs.append(
            {"name": name, "shape": [len(rows), 1], "datatype": "BYTES" if text else "FP64", "data": list(values)}
            | ({"parameters": {"content_type": "str"}} if text else {})
        )
    return post("/v2/models/model/infer", dumps({"parameters": {"content_type": "pd"}, "inputs": inputs}))


def _bentoml(_model: Served, port: int) -> list[str]:
    serve = [str(python("bentoml").with_name("bentoml")), "serve", "bentoml_service:Model", "--port", str(port)]
    return [*serve, "--working-dir", str(HERE)]


def _bentoml_request(model: Served, rows: Rows) -> bytes:
    if model.name == "numeric":
        return post("/predict", dumps({"instances": rows}))
    return post("/predict_frame", dumps({"instances": model.objects(rows)}))


def _mlflow(model: Served, port: int) -> list[str]:
    if not (model.folder / "mlflow").exists():
        subprocess.run([python("mlflow"), HERE / "mlflow_model.py", model.folder], check=True, capture_output=True)
    command = [str(python("mlflow").with_name("mlflow")), "models", "serve", "--model-uri"]
    return [*command, str(model.folder / "mlflow"), "--port", str(port), "--env-manager", "local", "--workers", "1"]


def _mlflow_request(model: Served, rows: Rows) -> bytes:
    if model.name == "numeric":
        return post("/invocations", dumps({"inputs": rows}))
    return post("/invocations", dumps({"dataframe_split": {"columns": model.columns, "data": rows}}))


def _bare(kind: str, matrix: bool = False) -> Callable[[Served, int], list[str]]:
    def command(model: Served, port: int) -> list[str]:
        folder = model.matrix if matrix else model.folder
        return [str(python("bare")), str(HERE / "bare.py"), kind, str(folder), str(port)]

    return command


def _in(name: str, **more: str) -> Callable[[Served], dict[str, str]]:
    """Its own environment's commands first; and where the model is."""

    def environment(model: Served) -> dict[str, str]:
        path = f"{python(name).parent}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "MODEL_FOLDER": str(model.folder), "PYTHONPATH": "", **more}

    return environment


OURS = Peer("Sluiceway", _ours, v1, "/v2/models/model/ready")
OURS_V2 = Peer("Sluiceway, V2 JSON", _ours, v2_columns, "/v2/models/model/ready")
OURS_TWICE = Peer("Sluiceway, 2 workers", partial(_ours, workers=2), v1, OURS.ready)
KSERVE = Peer("KServe scikit-learn", _kserve, _kserve_request, "/v2/models/model/ready", _in("kserve"))
MLSERVER = Peer("MLServer", _mlserver, _mlserver_request, "/v2/models/model/ready", _in("mlserver"))
BENTOML = Peer("BentoML", _bentoml, _bentoml_request, "/readyz", _in("bentoml", BENTOML_DO_NOT_TRACK="True"))
MLFLOW = Peer("mlflow models serve", _mlflow, _mlflow_request, "/ping", _in("mlflow"))
BARE_SKLEARN = Peer("bare ASGI, scikit-learn", _bare("sklearn"), v1, environment=_in("bare"))
FLOOR = Peer("bare ASGI, onnxruntime", _bare("onnx"), v1, environment=_in("bare"))
MATRIX = Peer("the same, one matrix input", _bare("onnx", matrix=True), v1, environment=_in("bare"), only="numeric")
ECHO = Peer("bare ASGI, echo", _bare("echo"), v1, environment=_in("bare"))

PEERS = (OURS, OURS_V2, KSERVE, MLSERVER, BENTOML, MLFLOW, BARE_SKLEARN, FLOOR, MATRIX, ECHO)
