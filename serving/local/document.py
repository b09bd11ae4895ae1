"""The fields of an InferenceService that are read on one machine.

Unknown fields are kept and ignored, as KServe does; a wrong value in a field that is read is refused.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from components.errors import BadInput

PORT_ANNOTATION = "sluiceway.dev/port"
_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")  # leaves room for -predictor-00001 in 63 characters


class _Open(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, protected_namespaces=())


class EnvVar(_Open):
    """A variable of the server's environment."""

    name: str = Field(min_length=1)
    value: str = ""


class ModelFormat(_Open):
    """What kind of model it is; any name is accepted, the bundle says what it is."""

    name: str


class ModelSpec(_Open):
    """The model to serve."""

    model_format: ModelFormat
    storage_uri: str
    env: tuple[EnvVar, ...] = ()

    @field_validator("storage_uri")
    @classmethod
    def _local(cls, value: str) -> str:
        bundle_folder(value)
        return value


class Predictor(_Open):
    """The predictor: its template, and the share of traffic of its latest revision."""

    model: ModelSpec
    canary_traffic_percent: StrictInt | None = Field(default=None, ge=0, le=100)
    min_replicas: StrictInt | None = Field(default=None, ge=0)


class Spec(_Open):
    """What is wanted."""

    predictor: Predictor


class Metadata(_Open):
    """Name, annotations and generation."""

    name: str
    annotations: dict[str, str] = {}
    generation: int = 0

    @field_validator("name")
    @classmethod
    def _label(cls, value: str) -> str:
        if not _LABEL.fullmatch(value):
            raise ValueError("use at most 40 lower-case letters, digits and hyphens, starting with a letter")
        return value

    @field_validator("annotations")
    @classmethod
    def _port(cls, value: dict[str, str]) -> dict[str, str]:
        port = value.get(PORT_ANNOTATION)
        if port is not None and not (port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError(f"{PORT_ANNOTATION} must be a port number as text, not {port!r}")
        return value


class InferenceService(_Open):
    """An InferenceService."""

    api_version: Literal["serving.kserve.io/v1beta1"]
    kind: Literal["InferenceService"]
    metadata: Metadata
    spec: Spec

    @property
    def port(self) -> int | None:
        """The ingress port that is asked for; None for any."""
        port = self.metadata.annotations.get(PORT_ANNOTATION)
        return int(port) if port else None


def validated(document: Any) -> InferenceService:
    """Read a document.

    Raises:
        BadInput: a field that is read is missing or wrong; names it.
    """
    try:
        return InferenceService.model_validate(document)
    except ValidationError as error:
        said = []
        for problem in error.errors():
            message = problem["msg"].removeprefix("Value error, ")
            said.append(f"{'.'.join(map(str, problem['loc'])) or 'document'}: {message}")
        raise BadInput(f"The InferenceService is not valid: {'; '.join(said)}.") from error


def template_of(document: dict[str, Any]) -> str:
    """What a revision is made from, as canonical text: the predictor without its share of traffic."""
    predictor = {key: value for key, value in document["spec"]["predictor"].items() if key != "canaryTrafficPercent"}
    return json.dumps(predictor, sort_keys=True)


def bundle_folder(storage_uri: str) -> Path:
    """The folder that a storage URI names.

    Raises:
        ValueError: it is neither an absolute path nor ``file:///`` with one.
    """
    parsed = urlparse(storage_uri)
    path = unquote(parsed.path) if parsed.scheme == "file" and parsed.netloc in ("", "localhost") else storage_uri
    if not path.startswith("/"):
        raise ValueError(f"give an absolute path or file:///path on this machine, not {storage_uri!r}")
    return Path(path)
