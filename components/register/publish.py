"""Puts a bundle where MLflow users and a model server find it, and checks that it arrived whole."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from components.errors import BadBundle
from components.files import whole_folder
from components.settings import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FOLDER = "bundle"


def publish(mlflow: "MlflowClient", run: "Run", bundle: Path, model_name: str) -> str:
    """Upload a bundle as the run's artifact; returns the location for an InferenceService's ``storageUri``.

    An upload that was cut short is made again from the start. A tracking server that hands out artifacts itself
    (``mlflow-artifacts:``) has no location that a model server can read, so a copy goes to the settings' store.

    Raises:
        BadBundle: the files that arrived are not those that were sent.
        StorageFull: there is no space left.
    """
    from serving.bundle import verify

    run_id = run.info.run_id
    location = f"{run.info.artifact_uri}/{FOLDER}"
    folder = local_path(location)
    if folder is not None:
        with whole_folder(folder) as aside:
            shutil.copytree(bundle, aside, dirs_exist_ok=True)
        verify(folder)
        return folder.as_uri()
    mlflow.log_artifacts(run_id, str(bundle), FOLDER)
    with tempfile.TemporaryDirectory() as scratch:
        verify(Path(mlflow.download_artifacts(run_id, FOLDER, scratch)))
    if urlparse(location).scheme != "mlflow-artifacts":
        return location
    return _to_store(bundle, f"bundles/{model_name}/{run_id}")


def arrived(storage_uri: str) -> bool:
    """Whether a published bundle is still whole; a remote one is taken at its word."""
    from serving.bundle import verify

    folder = local_path(storage_uri)
    if folder is None:
        return True
    try:
        verify(folder)
    except BadBundle:
        return False
    return True


def _to_store(bundle: Path, name: str) -> str:
    store = settings().store
    folder = local_path(store)
    if folder is not None:
        with whole_folder(folder.absolute() / name) as aside:
            shutil.copytree(bundle, aside, dirs_exist_ok=True)
        return (folder.absolute() / name).as_uri()
    from components.store import file_system

    files, root = file_system(f"{store.rstrip('/')}/{name}")
    files.put(f"{bundle}/", f"{root}/", recursive=True)
    return f"{store.rstrip('/')}/{name}"


def local_path(uri: str) -> Path | None:
    """The path of a local location; None for a remote one."""
    parsed = urlparse(uri)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None
