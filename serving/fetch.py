"""Bundles from elsewhere as folders of this machine: archives, and versions in MLflow's registry.

They are kept, by what they are, under ``SLUICEWAY_HOME``: a second start takes what is there, if it still verifies.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import BadBundle, BadInput
from components.files import whole_folder
from serving import archives
from serving.schema import FILE

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

SCHEME = "models:/"
_MODEL = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class Fetched:
    """A bundle, or a folder of bundles, on this machine.

    Attributes:
        folder: where it is.
        name: what to call the model; empty where the folder holds several.
        revision: what to call the version; empty where nothing says.
    """

    folder: Path
    name: str
    revision: str = ""


def fetch(what: str, home: Path) -> Fetched:
    """Bring a bundle here.

    Args:
        what: a folder, an archive, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        home: where what is fetched is kept.

    Raises:
        BadBundle: it is none, or an archive that is not safe to open.
        BadInput: the registry has no such version.
        Unreachable: the registry cannot be used.
    """
    if what.startswith(SCHEME):
        return _from_registry(what, home)
    path = Path(what)
    if path.is_dir():
        return Fetched(path, path.resolve().name if (path / FILE).is_file() else "")
    if not path.exists():
        raise BadBundle(f"There is no bundle {path}: give a folder, an archive, or models:/NAME@ALIAS.")
    if not archives.is_archive(path):
        raise BadBundle(f"{path} is no folder, and no archive ({', '.join(archives.ENDINGS)}).")
    return _from_archive(path, home)


def _from_archive(path: Path, home: Path) -> Fetched:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = home / "served" / f"archive-{digest[:32]}"
    if not folder.is_dir():
        with whole_folder(folder) as aside:
            archives.unpack(path, aside)
    inner = _bundle_in(folder)
    stem = re.sub(r"(\.zip|\.tar|\.tar\.gz|\.tgz)$", "", path.name, flags=re.IGNORECASE)
    name = stem if inner == folder else inner.name
    return Fetched(inner, name if (inner / FILE).is_file() else "")


def _bundle_in(folder: Path) -> Path:
    """The folder, or the only one in it: most archives have one at their top."""
    children = list(folder.iterdir())
    is_wrapped = len(children) == 1 and children[0].is_dir() and (children[0] / FILE).is_file()
    return children[0] if is_wrapped else folder


def _from_registry(uri: str, home: Path) -> Fetched:
    from components.register.registry import download

    match = _MODEL.fullmatch(uri)
    if match is None:
        raise BadInput(f"{uri!r} names no model: write models:/NAME@ALIAS or models:/NAME/VERSION.")
    name = match["name"]
    found, location = _version(name, match["alias"], match["version"])
    version = str(found.version)
    # A registry may be made anew, and number its versions from 1 again: the run is another then.
    mark = hashlib.sha256(f"{name}\0{version}\0{found.run_id}\0{found.source}".encode()).hexdigest()[:16]
    folder = home / "served" / f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}-{version}-{mark}"
    if not _verifies(folder):
        with whole_folder(folder) as aside:
            fetched = download(location, aside / "fetched")
            for child in list(fetched.iterdir()):
                child.rename(aside / child.name)
            _remove_empty(aside / "fetched")
    return Fetched(folder, name, f"{name}-{version}")


def _version(name: str, alias: str | None, version: str | None) -> "tuple[ModelVersion, str]":
    """A version, and where its bundle is: MLflow looks for ``models:/`` in the registry of its own settings only."""
    from mlflow.exceptions import MlflowException

    from components.register import registry
    from components.register.mlflow_client import client, reaching

    with reaching():
        mlflow = client()
        found: ModelVersion | None
        if alias is not None:
            found = registry.by_alias(mlflow, name, alias)
        else:
            try:
                found = mlflow.get_model_version(name, str(version))
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                found = None
        if found is not None:
            return found, mlflow.get_model_version_download_uri(name, str(found.version))
    wanted = f"with the alias {alias}" if alias else f"{version}"
    raise BadInput(f"The registry has no version {wanted} of {name}: the model's page in MLflow lists them.")


def _verifies(folder: Path) -> bool:
    from serving.bundle import verify

    if not folder.is_dir():
        return False
    try:
        verify(folder)
    except BadBundle:
        return False
    return True


def _remove_empty(folder: Path) -> None:
    for parent in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        parent.rmdir()
    if folder.is_dir():
        folder.rmdir()
