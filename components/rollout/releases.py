"""Releases from what the pipeline knows of a registered version."""

from components.rollout.deployment import Deployment
from components.rollout.document import inference_service
from components.rollout.release import Release
from components.settings import settings


def release(
    service: str,
    version: str,
    uri: str,
    deployment: Deployment,
    env: dict[str, str],
    bundle_digest: str = "",
    run_id: str = "",
) -> Release:
    """A registered version as it will be served.

    Args:
        service: the InferenceService's name.
        version: the registered version.
        uri: where its bundle lies.
        deployment: where and how to serve.
        env: environment of the model server.
        bundle_digest: what the bundle is; lineage.
        run_id: the run that registered it; lineage.
    """
    document = inference_service(service, uri, version, env, settings().port)
    return Release(version=version, uri=uri, document=document)
