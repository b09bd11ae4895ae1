"""Each image's libraries are what its steps can import: nothing is missing, and nothing is there that no step uses.

The environments are made of links to what is installed here, by the libraries' own metadata; `make image-envs` installs
them for real.
"""

import importlib.metadata
from pathlib import Path

import pytest

from tests import image_imports, image_use, linked_environment

INDIRECT = {
    "gcsfs": "fsspec opens gs:// with it",
    "s3fs": "fsspec opens s3:// with it",
    "kfp": "its executor runs the step",
    "pyopenssl": "model-signing imports it and does not ask for it",
    "sqlglot": "ibis does not work with the newest",
    "google-cloud-storage": "MLflow's artifacts lie on gs://",
}
"""What groups ask for though no step imports it by that name."""


@pytest.fixture(scope="module")
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    group: str = request.param
    libraries = linked_environment.closure(linked_environment.group(group))
    if group in image_use.SERVE:
        libraries |= {requirement.name for requirement in linked_environment.group("messages")}
    return linked_environment.make(tmp_path_factory.mktemp(group), libraries)


@pytest.mark.parametrize(
    ("environment", "group"), [(name, name) for name in image_use.ABSENT], indirect=["environment"]
)
def test_an_image_has_all_that_its_steps_import(environment: Path, group: str) -> None:
    assert not image_use.missing(group, environment), f"add it to the group {group} in pyproject.toml"


@pytest.mark.parametrize(("environment", "group"), [("serving", "serving")], indirect=["environment"])
def test_a_bundle_is_served_with_the_libraries_of_the_servers_image_alone(environment: Path, group: str) -> None:
    assert image_use.served(environment) > 0


@pytest.mark.parametrize("group", list(image_use.ABSENT))
def test_an_image_has_nothing_that_none_of_its_steps_imports(group: str) -> None:
    _, libraries = image_imports.reachable(image_use.entries(group))
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
