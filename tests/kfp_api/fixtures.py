"""Fixtures for tests against a KFP server: the one of :mod:`tests.kfp_api.server`, or a real one.

A test module says ``pytest_plugins = ["tests.kfp_api.fixtures"]``:

- ``kfp_server`` (per test): where the server is. With ``SLUICEWAY_TEST_KFP=http://…`` it
  is a real one, reached as ``SLUICEWAY_KFP_…`` say.
- ``kfp_api`` (per test): the server of ours, for tests that need its faults, or to say what the cluster does; they are
  skipped on a real one. Requests that break the contract fail the test.
- ``kfp_options`` (per test): :class:`Options` for it, with little patience.
- ``unique``: a name that no other test has.
- ``kfp`` (per test): a :class:`Connection` to it; on a real server, the pipeline ``unique`` is deleted afterwards.
"""

import os
import uuid
from collections.abc import Iterator

import pytest

from pipelines.server.options import Options, read_options
from tests.kfp_api.server import KfpApi

TIMEOUT, PATIENCE = 0.4, 3.0


@pytest.fixture(scope="session")
def _shared_kfp_api() -> Iterator[KfpApi]:
    with KfpApi() as api:
        yield api


@pytest.fixture
def kfp_server(request: pytest.FixtureRequest) -> str:
    if real := os.environ.get("SLUICEWAY_TEST_KFP", ""):
        return real
    api: KfpApi = request.getfixturevalue("kfp_api")
    return api.url


@pytest.fixture
def kfp_api(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpApi]:
    if os.environ.get("SLUICEWAY_TEST_KFP"):
        pytest.skip("needs what a real KFP server cannot be told to do")
    for name in [name for name in os.environ if name.startswith(("SLUICEWAY_KFP_", "KF_PIPELINES_"))]:
        monkeypatch.delenv(name)
    api: KfpApi = request.getfixturevalue("_shared_kfp_api")
    api.reset()
    yield api
    broken = list(api.broken)
    api.reset()
    assert not broken, f"requests that break KFP's contract: {broken}"


@pytest.fixture
def kfp_options(kfp_server: str) -> Options:
    if os.environ.get("SLUICEWAY_TEST_KFP"):
        return read_options(host=kfp_server)
    return read_options(host=kfp_server, timeout_seconds=TIMEOUT, patience_seconds=PATIENCE)


@pytest.fixture
def unique() -> str:
    return f"test-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def kfp(kfp_options: Options, unique: str):
    from pipelines.server.connection import connect

    with connect(kfp_options) as connection:
        yield connection
        if os.environ.get("SLUICEWAY_TEST_KFP"):
            _delete_pipeline(connection, unique)


def _delete_pipeline(connection, name: str) -> None:
    client = connection.client
    if (found := client.get_pipeline_id(name)) is not None:
        for version in client.list_pipeline_versions(found, page_size=100).pipeline_versions or []:
            client.delete_pipeline_version(found, version.pipeline_version_id)
        client.delete_pipeline(found)
