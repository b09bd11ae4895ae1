"""Where a skeleton is written to: this repository, or one of a user's own that has Sluiceway installed."""

import keyword
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from components.errors import BadInput
from pipelines.project import Project, project

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_LONGEST = 40
_TAKEN = {"components", "pipelines", "serving", "tests"}


@dataclass(frozen=True)
class Names:
    """A name in the forms that its uses ask for."""

    given: str

    @property
    def module(self) -> str:
        """As a Python module or function: ``word_count``."""
        return self.given.replace("-", "_")

    @property
    def dashed(self) -> str:
        """As KFP and Kubernetes write names: ``word-count``."""
        return self.given.replace("_", "-")

    @property
    def title(self) -> str:
        """As a heading: ``Word count``."""
        return self.dashed.replace("-", " ").capitalize()


def names(given: str) -> Names:
    """Check a name.

    Raises:
        BadInput: it can name no Python module or no KFP pipeline.
    """
    if not _NAME.fullmatch(given) or len(given) > _LONGEST:
        raise BadInput(
            f"{given!r} can name no component or pipeline: take up to {_LONGEST} lower-case letters, digits and single "
            "dashes or underscores between them, starting with a letter."
        )
    found = Names(given)
    if keyword.iskeyword(found.module) or found.module in sys.stdlib_module_names:
        raise BadInput(f"{given!r} is a word of Python's own: choose another name.")
    return found


@dataclass(frozen=True)
class Repository:
    """A repository that skeletons are written to.

    Attributes:
        project: what its pyproject.toml says.
        package: the importable package of its pipelines and components; empty in Sluiceway's own repository.
    """

    project: Project
    package: str

    @property
    def root(self) -> Path:
        """Its folder."""
        return self.project.file.parent

    @property
    def ours(self) -> bool:
        """Whether it is Sluiceway's own."""
        return not self.package

    @property
    def components(self) -> str:
        """The package that components are in."""
        return f"{self.package}.components" if self.package else "components"

    @property
    def pipelines(self) -> str:
        """The package that pipelines are in."""
        return f"{self.package}.pipelines" if self.package else "pipelines"

    @property
    def tests(self) -> Path:
        """The folder of its tests."""
        return self.root / "tests" / "unit" if self.ours else self.root / "tests"

    def folder(self, package: str) -> Path:
        """Where a package of it lies."""
        return self.project.import_root.joinpath(*package.split("."))

    def shown(self, path: Path) -> str:
        """A path as messages name it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def repository(into: Path | None, package: str) -> Repository:
    """Find the repository to write to.

    Args:
        into: its folder; None for the one that the command is called in.
        package: its importable package; empty for the project's name.

    Raises:
        BadInput: the folder does not exist, or the package would hide one of Sluiceway's.
    """
    if into is not None and not into.is_dir():
        raise BadInput(f"There is no folder {into}: create the repository first.")
    found = project(into)
    if into is not None and found.file.parent != into.absolute():
        found = Project(file=into.absolute() / "pyproject.toml")  # a folder inside another project is its own
    if found.name == "sluiceway" and (found.file.parent / "pipelines" / "catalog.py").is_file():
        if package:
            raise BadInput(
                "In Sluiceway's own repository components/ and pipelines/ are the packages: leave out --package."
            )
        return Repository(found, "")
    chosen = package or re.sub(r"[^a-z0-9]+", "_", (found.name or found.file.parent.name).lower()).strip("_")
    if not re.fullmatch(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*", chosen) or chosen.split(".")[0] in _TAKEN:
        raise BadInput(
            f"{chosen!r} cannot be the package of your components and pipelines: name another with --package."
        )
    return Repository(found, chosen)
