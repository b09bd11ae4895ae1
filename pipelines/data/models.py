"""Which registered models were trained on a version, if MLflow knows of any."""

import re

from components.errors import BadInput
from components.register import registry
from components.register.mlflow_client import client, database_exists, reaching
from components.settings import settings


def trained_on(version: str) -> list[dict[str, object]]:
    """Models by name and version, with their aliases.

    Args:
        version: the snapshot's.

    Raises:
        Unreachable: MLflow cannot be used.
    """
    if not database_exists(settings()):
        return []
    with reaching():
        mlflow = client()
        found = mlflow.search_model_versions(f"tag.`{registry.DATA_VERSION}` = '{version}'")
        names = {one.name for one in found}
        aliases = {name: mlflow.get_registered_model(name).aliases for name in names}
    return [
        {
            "model": one.name,
            "version": str(one.version),
            "aliases": sorted(alias for alias, of in aliases[one.name].items() if str(of) == str(one.version)),
        }
        for one in sorted(found, key=lambda one: (one.name, int(one.version)))
    ]


def data_version(uri: str) -> tuple[str, str]:
    """The data set and version that a registered model was trained on.

    Args:
        uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

    Returns:
        Name of the data set, which is the model's, and version of the snapshot.

    Raises:
        BadInput: there is no such model, or it does not say what it was trained on.
        Unreachable: MLflow cannot be used.
    """
    name, alias, version = _parts(uri)
    missing = f"The registry has no model {uri}; `sluiceway data list` shows the versions of data."
    if not database_exists(settings()):
        raise BadInput(missing)
    with reaching():
        mlflow = client()
        if alias:
            found = registry.by_alias(mlflow, name, alias)
        else:
            same = mlflow.search_model_versions(f"name = '{name}'")
            found = next((one for one in same if str(one.version) == version), None)
    if found is None:
        raise BadInput(missing)
    if not found.tags.get(registry.DATA_VERSION):
        raise BadInput(f"{uri} does not say what it was trained on (it has no tag {registry.DATA_VERSION}).")
    return found.tags.get(registry.DATASET, name), found.tags[registry.DATA_VERSION]


def _parts(uri: str) -> tuple[str, str, str]:
    """Name, alias and version of a model's URI."""
    matched = re.fullmatch(r"models:/([^/@']+)(?:@([^/@']+)|/([0-9]+))", uri)
    if matched is None:
        raise BadInput(f"{uri}: a registered model is models:/NAME@ALIAS or models:/NAME/VERSION.")
    name, alias, version = matched.groups()
    return name, alias or "", version or ""
