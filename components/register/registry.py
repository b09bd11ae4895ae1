"""The model registry in the project's terms: who is champion, who is challenger, and how that changes.

The alias ``champion`` is the version that serves, ``challenger`` the one that may become it. Every call here can be
repeated: a second one finds the work done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import BadInput
from components.register.mlflow_client import client, database_exists, reaching
from components.settings import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"

RECIPE = "sluiceway.recipe_digest"
STORAGE_URI = "sluiceway.storage_uri"
DATA_VERSION = "sluiceway.data_version"
DATASET = "sluiceway.dataset"
DATA_SOURCE = "sluiceway.data_source"
DATA_REMOTE = "sluiceway.data_remote"
DATA_OBJECT = "sluiceway.data_object"
BUNDLE = "sluiceway.bundle_digest"
RUN = "sluiceway.run_id"
COMMIT = "mlflow.source.git.commit"
NATIVE = "sluiceway.native"
STATE = "sluiceway.state"
REASON = "sluiceway.reason"
PREVIOUS = "sluiceway.previous_champion"


@dataclass(frozen=True)
class Champion:
    """The registered version that has the alias ``champion``.

    Attributes:
        version: in the registry.
        uri: where its bundle lies, fit for an InferenceService's ``storageUri``.
        data_version: the snapshot that it was trained on.
        recipe_digest: what the model is.
    """

    version: str
    uri: str
    data_version: str
    recipe_digest: str


def champion(model_name: str) -> Champion | None:
    """The champion of a model; None before the first.

    Raises:
        Unreachable: MLflow cannot be used.
    """
    if not database_exists(settings()):
        return None
    with reaching():
        found = by_alias(client(), model_name, CHAMPION)
    if found is None:
        return None
    tags = found.tags
    return Champion(
        version=str(found.version),
        uri=tags.get(STORAGE_URI, found.source or ""),
        data_version=tags.get(DATA_VERSION, ""),
        recipe_digest=tags.get(RECIPE, ""),
    )


def lineage(tags: Mapping[str, str]) -> dict[str, str]:
    """What a version was made from, by the names under which a service carries it."""
    names = {
        "bundle-digest": BUNDLE,
        "recipe-digest": RECIPE,
        "data-version": DATA_VERSION,
        "git-commit": COMMIT,
        "run-id": RUN,
        "native": NATIVE,  # the framework that serves it; absent where ONNX does
    }
    return {name: tags[tag] for name, tag in names.items() if tags.get(tag)}


def promote(model_name: str, version: str) -> None:
    """Make a version the champion; the version that was is remembered in a tag of the new one.

    Raises:
        BadInput: there is no such version.
        Unreachable: MLflow cannot be used.
    """
    with reaching():
        mlflow = client()
        previous = _existing(mlflow, model_name, version).tags.get(PREVIOUS, "")
        before = by_alias(mlflow, model_name, CHAMPION)
        if before is None or str(before.version) != version:
            previous = "" if before is None else str(before.version)
            if previous:
                mlflow.set_model_version_tag(model_name, version, PREVIOUS, previous)
            mlflow.set_registered_model_alias(model_name, CHAMPION, version)
        if previous:
            _retire(mlflow, model_name, previous)
        mlflow.set_model_version_tag(model_name, version, STATE, CHAMPION)
        drop_challenger(mlflow, model_name, version)


def reject(model_name: str, version: str, reason: str) -> None:
    """Note that a challenger failed, and why; it loses its alias.

    Raises:
        BadInput: there is no such version, or it is the champion.
        Unreachable: MLflow cannot be used.
    """
    with reaching():
        mlflow = client()
        _existing(mlflow, model_name, version)
        serving = by_alias(mlflow, model_name, CHAMPION)
        if serving is not None and str(serving.version) == version:
            raise BadInput(f"Version {version} of {model_name} is the champion: promote another version to replace it.")
        mlflow.set_model_version_tag(model_name, version, STATE, "rejected")
        mlflow.set_model_version_tag(model_name, version, REASON, reason[:5000])
        drop_challenger(mlflow, model_name, version)


def download(uri: str, into: Path) -> Path:
    """Fetch a bundle from wherever MLflow can read: ``models:/``, ``mlflow-artifacts:/``, ``gs://`` and so on.

    Raises:
        Unreachable: it cannot be fetched.
    """
    with reaching():
        client()
        from mlflow.artifacts import download_artifacts

        at = settings().tracking_uri
        fetched = download_artifacts(artifact_uri=uri, dst_path=str(into), tracking_uri=at, registry_uri=at)
    if uri.startswith("models:"):
        (Path(fetched) / "registered_model_meta").unlink(missing_ok=True)  # MLflow's note, no file of the bundle
    return Path(fetched)


def by_alias(mlflow: "MlflowClient", model_name: str, alias: str) -> "ModelVersion | None":
    """The version with an alias; None where the model or the alias does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.get_model_version_by_alias(model_name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def drop_challenger(mlflow: "MlflowClient", model_name: str, version: str) -> None:
    """Take the alias ``challenger`` from a version; another version keeps it."""
    found = by_alias(mlflow, model_name, CHALLENGER)
    if found is not None and str(found.version) == version:
        mlflow.delete_registered_model_alias(model_name, CHALLENGER)


def _retire(mlflow: "MlflowClient", model_name: str, version: str) -> None:
    """Note that a version is champion no more; one that was deleted, or registered again meanwhile, stays as it is."""
    from mlflow.exceptions import MlflowException

    try:
        found = mlflow.get_model_version(model_name, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    if found.tags.get(STATE) == CHAMPION:
        mlflow.set_model_version_tag(model_name, version, STATE, "retired")


def _existing(mlflow: "MlflowClient", model_name: str, version: str) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.get_model_version(model_name, version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise BadInput(f"The registry has no version {version} of {model_name}.") from error
        raise
