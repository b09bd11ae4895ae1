"""The pipelines of the suite, by the name that the CLI knows."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A pipeline.

    Attributes:
        name: its name in the CLI and the KFP UI.
        module: where the pipeline function of the same name lies.
        steps: its components in the order of the road, for progress.
    """

    name: str
    module: str
    steps: tuple[str, ...]

    def function(self) -> Callable[..., Any]:
        """The KFP pipeline; importing it imports kfp."""
        return getattr(importlib.import_module(self.module), self.name.replace("-", "_"))  # type: ignore[no-any-return]


CATALOG = {
    entry.name: entry
    for entry in (
        Entry(
            "train-and-deploy",
            "pipelines.train_and_deploy",
            (
                "resolve",
                "ingest",
                "validate",
                "features",
                "train",
                "evaluate",
                "register",
                "stage",
                "rollout",
                "settle",
            ),
        ),
    )
}
