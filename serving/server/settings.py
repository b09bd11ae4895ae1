"""How a server is started."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from serving.server.limits import Limits

THREADS = "SLUICEWAY_SERVE_THREADS"
"""The variable that says how many threads a prediction may use."""


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Attributes:
        models: the folder of each model's bundle, by the name in the URLs.
        revision: label of the metrics, version in the replies; empty to find it in the pod (see
            :func:`serving.server.telemetry.own_revision`).
        root: folder of several bundles, where a model of a new name is looked for when it is to be loaded.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        grpc_port: port of gRPC; 0 does without.
        workers: serving processes.
        model_control: ``explicit`` where clients may load and unload models (Triton's term).
        tokens: file of the tokens that let a client in; None lets everybody in.
        token_for_metrics: whether ``/metrics`` needs a token, too.
        certificate: PEM file of the TLS certificate and its chain; None serves plain HTTP.
        key: PEM file of its private key.
        announce: whether to print how to try the server, once it is ready.
        drain_seconds: how long connections are still accepted after SIGTERM, while readiness is false already.
        grace_seconds: how long requests in flight may take after that.
        limits: what is refused.
    """

    models: Mapping[str, Path]
    revision: str = ""
    root: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    grpc_port: int = 0
    workers: int = 1
    model_control: Literal["none", "explicit"] = "none"
    tokens: Path | None = None
    token_for_metrics: bool = False
    certificate: Path | None = None
    key: Path | None = None
    announce: bool = False
    drain_seconds: float = 1.0
    grace_seconds: float = 30.0
    limits: Limits = field(default_factory=Limits)

    @property
    def has_secrets(self) -> bool:
        """Whether there are files to read again on SIGHUP, which else is the end, as of the terminal."""
        return self.tokens is not None or self.certificate is not None
