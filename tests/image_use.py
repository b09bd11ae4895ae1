"""What runs in each image, what it can import, and the two uses of an environment that tell whether it suffices."""

import ast
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import yaml

from components import images
from serving.local.processes import free_port
from serving.server.grpc import SERVICE
from serving.server.messages import messages
from tests import image_imports, serving_bundle
from tests.serving_process import ROW

GOLDEN = image_imports.ROOT / "tests/golden"
TRAINING = ("train-sklearn", "train-torch", "train-tensorflow")
SERVE = ("serving", *TRAINING)
"""The images that hold the server."""

_ELSEWHERE = "the trainers of this framework run in its own image"
_NATIVE = "what ONNX cannot express is evaluated and served where its framework is"
_TABLES = "a request's features are computed row by row; tables are what training reads"
_DATABASE = "on a cluster MLflow is a server; its database is opened on a laptop"
_SPARK = "features on Spark are computed in python-spark"
ABSENT: dict[str, dict[str, str]] = {
    "data": dict.fromkeys(("py4j", "pyspark"), _SPARK),
    "spark": {},
    "control": {
        **dict.fromkeys(("torch", "tensorflow", "keras", "h5py", "safetensors"), _NATIVE),
        **dict.fromkeys(("onnx", "optuna", "pynvml", "tensorboard"), "trainings are planned here, and run elsewhere"),
        "prometheus_client": "counts traffic on a laptop; on a cluster Prometheus does",
        "sqlalchemy": _DATABASE,
    },
    "serving": {
        **dict.fromkeys(("torch", "tensorflow", "keras", "h5py", "safetensors", "skops"), _NATIVE),
        **dict.fromkeys(("ibis", "pandas", "pyarrow"), _TABLES),
    },
    "train-sklearn": dict.fromkeys(("torch", "tensorflow", "keras", "h5py"), _ELSEWHERE),
    "train-torch": dict.fromkeys(("tensorflow", "keras", "h5py"), _ELSEWHERE),
    "train-tensorflow": dict.fromkeys(("torch",), _ELSEWHERE),
}
"""What steps of an image import on some path, and the image does not have; the reason is why that path is not taken."""


def steps() -> dict[str, dict[str, str]]:
    """The source of every step in the reviewed packages, by the group of the image that it runs in."""
    found: dict[str, dict[str, str]] = {name: {} for name in ABSENT}
    for package in sorted(GOLDEN.glob("*.yaml")):
        spec = next(yaml.safe_load_all(package.read_text("utf-8")))
        for executor in spec["deploymentSpec"]["executors"].values():
            container = executor["container"]
            source = next(text for text in container["command"] if "def " in text)
            name = next(node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
            for group in _groups(container["image"], name):
                found[group][name] = source
    return found


def _groups(image: str, step: str) -> tuple[str, ...]:
    if "{{" not in image:
        return (images.name_of(image).removeprefix("python-"),)
    return ("data", "spark") if step == "features" else TRAINING


def entries(group: str) -> set[str]:
    """The modules that what runs in an image begins with."""
    begun = {module for source in STEPS[group].values() for module in image_imports.of_source(source).ours}
    if group == "spark":
        begun |= {"components.features.spark.job", "components.features.spark.entrypoint"}
    if group in SERVE:
        begun |= {"serving.server.__main__"}
    if group in TRAINING:
        begun |= {"components.train.trainjob.worker"}
    return begun


STEPS = steps()

_IMPORT = """
import importlib, json, sys
said = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ImportError as error:
        said[name] = [(error.name or "").split(".")[0], str(error)]
print("\\n" + json.dumps(said))
"""


def imported(python: Path, names: list[str]) -> dict[str, Any]:
    """What could not be imported there: the library that was missing, and what was said."""
    command = [str(python), "-c", _IMPORT, json.dumps(names)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": "", "HOME": "/nonexistent"})
    said: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return said


def missing(group: str, python: Path) -> dict[str, Any]:
    """What the steps of an image import and its environment lacks; empty where all is well.

    What :data:`ABSENT` says is not there must not be there: it has an entry, too, where that is no longer so.
    """
    ours, libraries = image_imports.reachable(entries(group))
    names = {*ours, *libraries}
    if group in TRAINING[1:]:  # it has what the first of them has, and a framework
        of_frameworks = {one: users for one, users in libraries.items() if one.split(".")[0] in ABSENT[TRAINING[0]]}
        names = {*of_frameworks, *(user for users in of_frameworks.values() for user in users)}
    said = imported(python, sorted(names))
    there = set(ABSENT[group]) - {library for library, _ in said.values()}
    return {name: why for name, (library, why) in said.items() if library not in ABSENT[group]} | dict.fromkeys(
        there, "is there, or no step imports it: take it out of ABSENT"
    )


def served(python: Path) -> float:
    """Serve a real bundle with an environment's server; the seconds from the process's start until it is ready.

    It answers over HTTP and over gRPC.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        serving_bundle.write_bundle(folder / "bundle")
        port, grpc_port = free_port(), free_port()
        command = [python, "-P", "-m", "serving.server", "--name=ours", f"--bundle={folder}/bundle"]
        command += [f"--port={port}", f"--grpc-port={grpc_port}"]
        began = time.monotonic()
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={"PATH": os.environ["PATH"]})
            try:
                url = f"http://127.0.0.1:{port}/v2/models/ours/ready"
                while not _answers(url):
                    assert server.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() - began < 120, (folder / "log").read_text()
                    time.sleep(0.05)
                seconds = time.monotonic() - began
                answer = httpx.post(f"http://127.0.0.1:{port}/v1/models/ours:predict", json={"instances": [ROW]})
                assert answer.status_code == 200, answer.text
                assert _ready(grpc_port)
            finally:
                server.kill()
                server.wait()
    return seconds


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


_REPORT = """
import sys
from pathlib import Path
from components.ingest.run import run as ingest
from components.validate.run import run as validate
folder = Path(sys.argv[1])
rows = [f"{n % 50},{'Yes' if n % 3 else 'No'},{n * 0.5},2026-01-{n % 28 + 1:02}" for n in range(400)]
(folder / "data.csv").write_text("\\n".join(["age,churn,total,since", *rows]))
ingest(str(folder / "data.csv"), "", {}, folder / "snapshot")
validate(folder / "snapshot", "customers", "churn", 0.05, "", folder / "q", folder / "c", folder / "report.html")
"""


def reported(python: Path) -> int:
    """Check a snapshot and write its report, figures and all, with an environment's libraries; the report's bytes."""
    with tempfile.TemporaryDirectory() as temporary:
        env = {"PATH": "", "HOME": "/nonexistent", "SLUICEWAY_HOME": f"{temporary}/home"}
        subprocess.run([python, "-c", _REPORT, temporary], check=True, env=env, cwd=temporary)
        report = Path(temporary, "report.html").read_text("utf-8")
    assert "plotly" in report.lower()
    return len(report)


def _ready(port: int) -> bool:
    """Whether the model is ready, by gRPC."""
    types: Any = messages()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/ModelReady",
            request_serializer=types.ModelReadyRequest.SerializeToString,
            response_deserializer=types.ModelReadyResponse.FromString,
        )
        return bool(ask(types.ModelReadyRequest(name="ours"), timeout=10).ready)


def use(group: str, python: Path) -> str:
    """Import what the image's steps import, and serve where it is a server's; returns what was done.

    Raises:
        AssertionError: something is missing.
    """
    lacks = missing(group.removesuffix("-cuda"), python)
    assert not lacks, f"python-{group}: {lacks}"
    if group == "data":
        return f"all that its steps import is there, and a report of {reported(python) / 1e6:.1f} MB is written"
    if group != "serving":
        return "all that its steps import is there"
    return f"all that it imports is there, and a bundle is served after {served(python):.1f} s"


if __name__ == "__main__":
    print(use(sys.argv[1], Path(sys.argv[2])))
