"""How a server is started."""

from dataclasses import dataclass, field
from pathlib import Path

from serving.server.limits import Limits


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Attributes:
        bundle: the folder of the bundle.
        name: of the model, in the URLs.
        revision: label of the metrics, version in the replies.
        host: address to listen on.
        port: port to listen on.
        drain_seconds: how long connections are still accepted after SIGTERM, while readiness is false already.
        grace_seconds: how long requests in flight may take after that.
        limits: what is refused.
    """

    bundle: Path
    name: str
    revision: str
    host: str
    port: int
    drain_seconds: float = 1.0
    grace_seconds: float = 30.0
    limits: Limits = field(default_factory=Limits)
