"""An empty MLflow in a home of its own, whose tables are made once; and a bucket."""

import shutil
from collections.abc import Iterator

import pytest

_GIVEN_BY_KFP = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """An empty MLflow database: each test takes a copy."""
    from components.register.mlflow_client import client

    home = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICEWAY_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client().search_registered_models()
    return home / "mlflow.db"


@pytest.fixture
def sqlite(tmp_path, migrated, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(migrated, home / "mlflow.db")
    monkeypatch.setenv("SLUICEWAY_HOME", str(home))
    for name in _GIVEN_BY_KFP:
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def gcs_bucket(monkeypatch) -> Iterator[str]:
    """An empty bucket in an emulator of its own, for what goes through fsspec."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    import gcsfs

    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="data")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server._api._httpd.server_address[1]}")
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield "gs://data"
    server.stop()
    gcsfs.GCSFileSystem.clear_instance_cache()
