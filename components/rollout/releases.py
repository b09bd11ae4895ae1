"""Releases from what the pipeline knows of a registered version."""

from collections.abc import Mapping

from components.rollout.deployment import Deployment
from components.rollout.document import inference_service
from components.rollout.place import on_this_machine
from components.rollout.release import Release
from components.settings import settings

NO_LINEAGE: Mapping[str, str] = {}


def release(
    service: str,
    version: str,
    uri: str,
    deployment: Deployment,
    env: dict[str, str],
    lineage: Mapping[str, str] = NO_LINEAGE,
) -> Release:
    """A registered version as it will be served.

    Args:
        service: the InferenceService's name.
        version: the registered version.
        uri: where its bundle lies.
        deployment: where and how to serve.
        env: environment of the model server.
        lineage: what the version was made from.
    """
    there = None if on_this_machine(deployment) else deployment
    document = inference_service(service, uri, version, env, settings().port, deployment=there, lineage=lineage)
    return Release(version=version, uri=uri, document=document)
