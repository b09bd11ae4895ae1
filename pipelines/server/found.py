"""What a KFP server has under a name: pipelines, their versions, experiments."""

from typing import Any

from components.errors import BadInput
from pipelines.packages import Parameter, parameters_of
from pipelines.server.connection import Connection
from pipelines.server.pages import every, where
from pipelines.server.retry import made_once
from pipelines.server.upload import digest_of

NEWEST = "newest"


def pipeline_id(connection: Connection, name: str) -> str:
    """The id of a pipeline; on a multi-user server, of the namespace's own before a shared one.

    Raises:
        BadInput: there is none.
    """
    for namespace in dict.fromkeys((connection.pipelines_namespace, "")):
        listed = connection.client.list_pipelines(filter=where("name", "EQUALS", name), namespace=namespace)
        if listed.pipelines:
            return str(listed.pipelines[0].pipeline_id)
    raise BadInput(f"There is no pipeline {name!r} on the KFP server: upload it with `sluiceway upload {name}`.")


def version(connection: Connection, pipeline: str, of: str, name: str, ours: bool = False) -> Any:
    """A version of a pipeline.

    Args:
        connection: to the server.
        pipeline: its id.
        of: its name.
        name: the version's name, or "newest".
        ours: of the newest, take one that Sluiceway has uploaded.

    Raises:
        BadInput: there is none.
    """
    query: dict[str, Any] = {"pipeline_id": pipeline, "page_size": 20, "sort_by": "created_at desc"}
    if name != NEWEST:
        query["filter"] = where("name", "EQUALS", name)
    for one in every(connection.client.list_pipeline_versions, "pipeline_versions", **query):
        if name != NEWEST or not ours or digest_of(one):
            return one
    which = f"version {name!r}" if name != NEWEST else "version"
    raise BadInput(f"The pipeline {of} has no {which} on the KFP server: upload it with `sluiceway upload {of}`.")


def spec_of(version: Any) -> dict[str, Any]:
    """A version's pipeline spec, without what is for the platform."""
    spec: dict[str, Any] = version.pipeline_spec or {}
    return spec.get("pipeline_spec") or spec


def parameters(version: Any) -> dict[str, Parameter]:
    """What a version takes."""
    return parameters_of(spec_of(version))


def experiment_id(connection: Connection, name: str, make: bool = True) -> str:
    """The id of an experiment, which is made when it is missing; else it is empty."""
    client, namespace = connection.client, connection.namespace

    def look() -> str | None:
        listed = client.list_experiments(namespace=namespace, filter=where("display_name", "EQUALS", name))
        return str(listed.experiments[0].experiment_id) if listed.experiments else None

    def create() -> str:
        body = {"display_name": name} | ({"namespace": namespace} if namespace else {})
        return str(client.experiments.experiment_service_create_experiment(body).experiment_id)

    return made_once(look, create, connection.patience) if make else look() or ""
