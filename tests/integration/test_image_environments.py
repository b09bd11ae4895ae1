"""Each image's libraries are what its steps can import: nothing is missing, and nothing is there that none of them uses.

The environments are made of links to what is installed here, by the libraries' own metadata; `make image-envs` installs
them for real.
"""

import ast
import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import images
from tests import image_imports, linked_environment

GOLDEN = linked_environment.ROOT / "tests/golden"
TRAINING = ("train-sklearn", "train-torch", "train-tensorflow")

_ELSEWHERE = "the trainers of this framework run in its own image"
_NATIVE = "what ONNX cannot express is evaluated and served where its framework is"
_DATABASE = "on a cluster MLflow is a server; its database is opened on a laptop"
ABSENT: dict[str, dict[str, str]] = {
    "data": {},
    "control": {
        **dict.fromkeys(("torch", "tensorflow", "keras", "h5py", "safetensors"), _NATIVE),
        **dict.fromkeys(("onnx", "optuna", "pynvml", "tensorboard"), "trainings are planned here, and run elsewhere"),
        "prometheus_client": "counts traffic on a laptop; on a cluster Prometheus does",
        "sqlalchemy": _DATABASE,
    },
    "serving": {
        **dict.fromkeys(("torch", "tensorflow", "keras", "h5py", "safetensors", "skops"), _NATIVE),
    },
    "train-sklearn": dict.fromkeys(("torch", "tensorflow", "keras", "h5py"), _ELSEWHERE),
    "train-torch": dict.fromkeys(("tensorflow", "keras", "h5py"), _ELSEWHERE),
    "train-tensorflow": dict.fromkeys(("torch",), _ELSEWHERE),
}
"""What steps of an image import on some path, and the image does not have; the reason is why that path is not taken."""

INDIRECT = {
    "gcsfs": "fsspec opens gs:// with it",
    "kfp": "its executor runs the step",
    "pyopenssl": "model-signing imports it and does not ask for it",
    "sqlglot": "ibis does not work with the newest",
    "google-cloud-storage": "MLflow's artifacts lie on gs://",
}
"""What groups ask for though no step imports it by that name."""


def steps() -> dict[str, dict[str, str]]:
    """The source of every step in the reviewed packages, by the group of the image that it runs in."""
    found: dict[str, dict[str, str]] = {name: {} for name in ABSENT}
    for package in sorted(GOLDEN.glob("*.yaml")):
        spec = next(yaml.safe_load_all(package.read_text("utf-8")))
        for executor in spec["deploymentSpec"]["executors"].values():
            container = executor["container"]
            source = next(text for text in container["command"] if "def " in text)
            name = next(node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
            for group in _groups(container["image"]):
                found[group][name] = source
    return found


def _groups(image: str) -> tuple[str, ...]:
    return TRAINING if "{{" in image else (images.name_of(image).removeprefix("python-"),)


def entries(group: str) -> set[str]:
    """The modules that what runs in an image begins with."""
    begun = {module for source in STEPS[group].values() for module in image_imports.of_source(source).ours}
    if group == "serving" or group in TRAINING:
        begun |= {"serving.server"}
    if group in TRAINING:
        begun |= {"components.train.trainjob.worker"}
    return begun


STEPS = steps()


@pytest.fixture(scope="module")
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    group: str = request.param
    requirements = linked_environment.group(group)
    return linked_environment.make(tmp_path_factory.mktemp(group), linked_environment.closure(requirements))


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


@pytest.mark.parametrize(("environment", "group"), [(name, name) for name in ABSENT], indirect=["environment"])
def test_an_image_has_all_that_its_steps_import(environment: Path, group: str) -> None:
    ours, libraries = image_imports.reachable(entries(group))
    names = {*ours, *libraries}
    if group in TRAINING[1:]:  # it has what the first of them has, and a framework
        of_frameworks = {one: users for one, users in libraries.items() if one.split(".")[0] in ABSENT[TRAINING[0]]}
        names = {*of_frameworks, *(user for users in of_frameworks.values() for user in users)}
    said = imported(environment, sorted(names))
    missing = {name: why for name, (library, why) in said.items() if library not in ABSENT[group]}
    assert not missing, f"python-{group} lacks what its steps import: add it to the group in pyproject.toml"
    unused = set(ABSENT[group]) - {library for library, _ in said.values()}
    assert not unused, f"python-{group} has these, or no step imports them: take them out of ABSENT"


@pytest.mark.parametrize("group", list(ABSENT))
def test_an_image_has_nothing_that_none_of_its_steps_imports(group: str) -> None:
    _, libraries = image_imports.reachable(entries(group))
    tops = {library.split(".")[0] for library in libraries} | {".".join(one.split(".")[:2]) for one in libraries}
    by_name = importlib.metadata.packages_distributions()
    used = {linked_environment.normal(name) for top in tops for name in by_name.get(top.split(".")[0], [])}
    asked = {linked_environment.normal(requirement.name) for requirement in linked_environment.group(group)}
    assert asked - used <= set(INDIRECT), f"python-{group}"


def test_the_libraries_with_cuda_are_those_without_and_cuda() -> None:
    for framework in ("torch", "tensorflow"):
        plain = {str(one) for one in linked_environment.group(f"train-{framework}")}
        cuda = {str(one).replace("[and-cuda]", "") for one in linked_environment.group(f"train-{framework}-cuda")}
        assert plain == cuda
