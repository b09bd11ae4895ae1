"""A registered model version as it is served."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Release(BaseModel):
    """A registered model version and the InferenceService that serves it.

    Attributes:
        version: the registered version.
        uri: where its bundle lies.
        document: the InferenceService as it stands once this release has all traffic; without any field of a canary.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    uri: str
    document: dict[str, Any]
