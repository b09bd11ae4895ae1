import pytest

from pipelines.packages import compile_package


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The compiled train-and-deploy package."""
    path = tmp_path_factory.mktemp("package") / "train-and-deploy.yaml"
    compile_package("train-and-deploy", path)
    return path
