"""Pipelines by the name that the CLI knows: the suite's own, and those of the repository that one is in."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.errors import BadInput
from pipelines.project import Project, project


@dataclass(frozen=True)
class Entry:
    """A pipeline.

    Attributes:
        name: its name in the CLI and the KFP UI.
        module: where the pipeline function lies.
        steps: its components in the order of the road, for progress; empty shows each as it starts.
        attribute: the function's name, where it is not the pipeline's.
        project: the repository that it is in, for one that is not the suite's.
    """

    name: str
    module: str
    steps: tuple[str, ...] = ()
    attribute: str = ""
    project: Project | None = None

    def function(self) -> Callable[..., Any]:
        """The KFP pipeline; importing it imports kfp.

        Raises:
            BadInput: the pipeline of a user's repository is not where its pyproject.toml says.
        """
        attribute = self.attribute or self.name.replace("-", "_")
        if self.project is None:
            return getattr(importlib.import_module(self.module), attribute)  # type: ignore[no-any-return]
        self.project.make_importable()
        try:
            return getattr(importlib.import_module(self.module), attribute)  # type: ignore[no-any-return]
        except (ImportError, AttributeError) as error:
            raise BadInput(
                f"Pipeline {self.name} of {self.project.file} is to be {self.module}:{attribute}, which cannot be "
                f"imported: {error}."
            ) from error


_SUITE = (
    Entry(
        "train-and-deploy",
        "pipelines.train_and_deploy",
        ("resolve", "ingest", "validate", "features", "train", "evaluate", "register", "stage", "rollout", "settle"),
    ),
)

CATALOG = {entry.name: entry for entry in _SUITE}


def catalog() -> dict[str, Entry]:
    """The suite's pipelines, and those of the repository that one is in, which come last.

    Raises:
        BadInput: the repository's pyproject.toml cannot be read.
    """
    return CATALOG | _of_the_repository()


def names() -> list[str]:
    """The pipelines that are meant where none is named: the repository's own, else the suite's.

    Raises:
        BadInput: the repository's pyproject.toml cannot be read.
    """
    return list(_of_the_repository() or CATALOG)


def _of_the_repository() -> dict[str, Entry]:
    found = project()
    entries = {}
    for name, place in found.pipelines.items():
        module, colon, attribute = place.partition(":")
        if not colon or not attribute:
            raise BadInput(f"Pipeline {name} of {found.file} is {place!r}: write package.module:function.")
        entries[name] = Entry(name, module, (), attribute, found)
    return entries
