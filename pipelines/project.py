"""What the pyproject.toml of the repository at hand says: its version, its pipelines, what its lint leaves out."""

import sys
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from components.errors import BadInput
from components.parameters import parsed


class Ignore(BaseModel):
    """A finding that the repository has decided to live with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    package: str
    on: str | tuple[str, ...] = "*"
    reason: str = ""


class _Lint(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    released: Path = Path("released")
    ignore: tuple[Ignore, ...] = ()


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    pipelines: dict[str, str] = Field(default_factory=dict)
    lint: _Lint = _Lint()


class Project(BaseModel):
    """A repository.

    Attributes:
        file: its pyproject.toml; where there is none, the one that there could be.
        name: the project's name.
        version: the project's version, such as 0.1.0; empty where pyproject.toml has none.
        pipelines: ``module:function`` of each of its pipelines, by the pipeline's name.
        released: folder of the interfaces that were released last.
        ignores: what the lint leaves out.
    """

    model_config = ConfigDict(frozen=True)

    file: Path
    name: str = ""
    version: str = ""
    pipelines: dict[str, str] = Field(default_factory=dict)
    released: Path = Path("released")
    ignores: tuple[Ignore, ...] = ()

    @property
    def import_root(self) -> Path:
        """The folder that its packages are imported from."""
        source = self.file.parent / "src"
        return source if source.is_dir() else self.file.parent

    def make_importable(self) -> None:
        """Let its packages be imported, installed or not."""
        if str(self.import_root) not in sys.path:
            sys.path.insert(0, str(self.import_root))


def project(start: Path | None = None) -> Project:
    """Read the nearest pyproject.toml, from a folder upwards.

    Raises:
        BadInput: it is not TOML, or its ``[tool.sluiceway]`` says something unknown.
    """
    start = (start or Path.cwd()).absolute()
    file = next((path for folder in (start, *start.parents) if (path := folder / "pyproject.toml").is_file()), None)
    if file is None:
        return Project(file=start / "pyproject.toml", released=start / "released")
    try:
        whole = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}.") from error
    table = parsed(_Table, whole.get("tool", {}).get("sluiceway", {}), f"[tool.sluiceway] in {file}")
    about = whole.get("project", {})
    return Project(
        file=file,
        name=str(about.get("name", "")),
        version=str(about.get("version", "")),
        pipelines=table.pipelines,
        released=file.parent / table.lint.released,
        ignores=table.lint.ignore,
    )
