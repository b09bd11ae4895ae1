"""An empty MLflow in a home of its own, whose tables are made once."""

import shutil

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
