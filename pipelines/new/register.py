"""A new pipeline becomes known by its name: in Sluiceway's catalog, or in the pyproject.toml of a user's repository."""

import ast
import tomllib
from pathlib import Path

from components.errors import BadInput
from components.files import write_text
from pipelines.new.repository import Names, Repository

_TABLE = "[tool.sluiceway.pipelines]"


def register(repository: Repository, name: Names) -> Path:
    """Enter a pipeline.

    Returns:
        The file that knows it now.

    Raises:
        BadInput: a pipeline of that name is there, or the file cannot be added to.
    """
    if repository.ours:
        path = repository.root / "pipelines" / "catalog.py"
        text = _in_catalog(path.read_text(encoding="utf-8"), name)
    else:
        path = repository.project.file
        text = _in_pyproject(path.read_text(encoding="utf-8") if path.exists() else "", repository, name)
    write_text(path, text)
    return path


def _in_catalog(text: str, name: Names) -> str:
    """Add an entry behind the last of the tuple that the catalog is made of."""
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "_SUITE":
            entries = statement.value
            if isinstance(entries, ast.Tuple) and entries.elts:
                lines = text.splitlines(keepends=True)
                lines.insert(
                    entries.elts[-1].end_lineno or 0, f'    Entry("{name.dashed}", "pipelines.{name.module}"),\n'
                )
                return "".join(lines)
    raise BadInput(
        f'pipelines/catalog.py has no _SUITE to add to: enter Entry("{name.dashed}", "pipelines.{name.module}").'
    )


def _in_pyproject(text: str, repository: Repository, name: Names) -> str:
    line = f'{name.dashed} = "{repository.pipelines}.{name.module}:{name.module}"'
    if name.dashed in repository.project.pipelines:
        raise BadInput(f"{repository.project.file} has a pipeline {name.dashed} already: choose another name.")
    lines = text.splitlines()
    at = next((number for number, one in enumerate(lines, 1) if one.strip() == _TABLE), None)
    if at is None:
        lines += [*([""] if lines and lines[-1] else []), _TABLE, line]
    else:
        lines.insert(at, line)
    new = "\n".join(lines) + "\n"
    try:
        known = tomllib.loads(new)["tool"]["sluiceway"]["pipelines"]
    except (tomllib.TOMLDecodeError, KeyError):
        known = {}
    if name.dashed not in known:
        raise BadInput(f"{repository.project.file} cannot be added to: enter {line} under {_TABLE} yourself.")
    return new
