"""What the pods of a training do."""

from dataclasses import asdict, dataclass
from typing import Any

from components.train.recipe import digest

WORK, FEATURES, OUT, RESULT = "work.json", "features", "out", "result.json"


@dataclass(frozen=True)
class Work:
    """A training, as :func:`components.train.run.train` takes it."""

    trainer: str
    hyperparameters: dict[str, Any]
    seed: int
    parity_tolerance: float
    device: str
    checkpoint_uri: str
    exports: list[str]
    model_name: str

    def name(self, features_digest: str, image: str, nodes: int) -> str:
        """A DNS label that the same training always has, so that a retry finds what the attempt before made."""
        return f"sluiceway-train-{digest([asdict(self), features_digest, image, nodes])[:16]}"


@dataclass(frozen=True)
class Result:
    """What the first pod says of a training that has ended well."""

    metrics: dict[str, float]
    metadata: dict[str, Any]
    fact: str
    recipe_digest: str
