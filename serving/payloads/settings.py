"""How payloads are logged, as the environment says."""

import importlib.util
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit

from components.errors import BadInput
from components.features.schema import FeatureSchema

PREFIX = "SLUICEWAY_PAYLOADS_"
MODES = ("all", "request", "response")
_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How the payloads of one model are logged.

    Attributes:
        url: HTTP sink of CloudEvents; empty for none.
        store: folder or bucket of Parquet files; empty for none.
        sample: share of the requests that are logged, up to 1.
        redact: input columns whose values leave the server in neither way.
        queue_bytes: most bytes that wait, in the server and again before each sink.
        mode: which events the HTTP sink gets: ``all``, ``request`` or ``response``.
        raw: whether the Parquet files hold the bodies, too.
        roll_seconds: longest time that rows wait for their file to be written.
        timeout: of one request to the HTTP sink, in seconds.
        inference_service: KServe's name of the service, the model's where empty; this and what follows become
            attributes of the events.
        namespace: Kubernetes'.
        component: ``predictor``.
        endpoint: KServe's label ``endpoint`` of the pod; empty in Standard mode.
        source: the pod's name.
    """

    url: str = ""
    store: str = ""
    sample: float = 1.0
    redact: tuple[str, ...] = ()
    queue_bytes: int = 32 * 1024 * 1024
    mode: str = "all"
    raw: bool = False
    roll_seconds: float = 30.0
    timeout: float = 5.0
    inference_service: str = ""
    namespace: str = ""
    component: str = "predictor"
    endpoint: str = ""
    source: str = ""

    def check(self, model: str, schema: FeatureSchema) -> None:
        """See that a model has the columns to redact: one misspelt would go out.

        Raises:
            BadInput: names those that it has not.
        """
        known = [column.name for column in schema.inputs]
        if unknown := [name for name in self.redact if name not in known]:
            some = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            raise BadInput(
                f"{PREFIX}REDACT names {', '.join(map(repr, unknown))}, but the inputs of model {model!r} are {some}."
            )


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings | None:
    """Read ``SLUICEWAY_PAYLOADS_*``; None where there is no sink, or nothing is sampled.

    Raises:
        BadInput: names the variable and what it may hold.
    """
    given = _Given(environment)
    settings = Settings(
        url=given.read("URL", "", _url, "an http:// or https:// address"),
        store=given.read("STORE", "", _store, "an absolute folder, or a URL such as gs://bucket/folder"),
        sample=given.read("SAMPLE", 1.0, _between(0, 1), "a share from 0 to 1"),
        redact=given.read("REDACT", (), _names, "input columns with commas between"),
        queue_bytes=int(given.read("QUEUE_MB", 32.0, _between(0.1, 100_000), "megabytes, at least 0.1") * 1024 * 1024),
        mode=given.read("MODE", "all", _one_of(MODES), ", ".join(MODES)),
        raw=given.read("RAW", "0", _one_of(("0", "1")), "0 or 1") == "1",
        roll_seconds=given.read("ROLL_SECONDS", 30.0, _between(0.1, 3600), "seconds from 0.1 to 3600"),
        timeout=given.read("TIMEOUT", 5.0, _between(0.1, 60), "seconds from 0.1 to 60"),
        inference_service=given.read("INFERENCESERVICE", "", _line, "one line"),
        namespace=given.read("NAMESPACE", "", _line, "one line") or _own_namespace(),
        component=given.read("COMPONENT", "predictor", _line, "one line"),
        endpoint=given.read("ENDPOINT", "", _line, "one line"),
        source=given.read("SOURCE", "", _line, "one line") or socket.gethostname(),
    )
    return settings if (settings.url or settings.store) and settings.sample > 0 else None


class _Given:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def read(self, name: str, default: T, parse: Callable[[str], T], what: str) -> T:
        text = self._environment.get(PREFIX + name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            why = f" ({error})" if str(error) else ""
            raise BadInput(f"{PREFIX}{name} is {text!r}; it takes {what}{why}.") from error


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    return text


def _store(text: str) -> str:
    scheme, between, rest = text.partition("://")
    if not between:
        if not PurePosixPath(text).is_absolute():
            raise ValueError
        return f"file://{text}"
    if not rest or not scheme.isidentifier() or (scheme == "file" and not rest.startswith("/")):
        raise ValueError
    for library, schemes in {"gcsfs": ("gs", "gcs"), "s3fs": ("s3", "s3a"), "adlfs": ("abfs", "az")}.items():
        if scheme in schemes and importlib.util.find_spec(library) is None:
            raise ValueError(f"{scheme}:// needs the library {library}, which is not installed")
    return text


def _between(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text)
        if not least <= value <= most:
            raise ValueError
        return value

    return parse


def _one_of(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return parse


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError
    return text


def _own_namespace() -> str:
    """The namespace of the pod that this runs in; empty outside of one."""
    if name := os.environ.get("POD_NAMESPACE", ""):
        return name
    try:
        with open(_NAMESPACE_FILE, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""
