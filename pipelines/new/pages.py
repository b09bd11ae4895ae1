"""A component's page, from its own spec."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from components.errors import BadInput
from pipelines.project import Project


def found(folder: Path) -> list[str]:
    """The components in a folder: what has a KFP face."""
    return sorted(path.parent.name for path in folder.glob("*/component.py"))


def page(package: str, name: str, project: Project) -> str:
    """The page of a component.

    Args:
        package: the package it is in.
        name: its folder.
        project: the repository, whose code is imported.

    Raises:
        BadInput: it cannot be imported, or has no component.
    """
    faces = components(package, name, project)
    source = f"{package.replace('.', '/')}/{name}/component.py"
    how = "`make docs`" if package == "components" else f"`sluiceway new page {name}`"
    head = [f"# {name}", "", f"Written from `{source}` by {how}; edit the docstrings there."]
    return "\n".join([*head, *(line for face in faces for line in _component(face))]) + "\n"


def components(package: str, name: str, project: Project) -> list[Any]:
    """The KFP components of a component's folder.

    Raises:
        BadInput: it cannot be imported, or has none.
    """
    from kfp.dsl.base_component import BaseComponent

    project.make_importable()
    try:
        module = importlib.import_module(f"{package}.{name}.component")
    except ImportError as error:
        raise BadInput(f"{package}.{name}.component cannot be imported: {error}.") from error
    faces = [value for value in vars(module).values() if isinstance(value, BaseComponent)]
    if not faces:
        raise BadInput(f"{sys.modules[module.__name__].__file__} has no function with @dsl.component.")
    return faces


def _component(component: Any) -> list[str]:
    spec, said = component.component_spec, _docstring(component)
    image = spec.implementation.container.image
    lines = [
        "",
        f"## {spec.name.replace('-', '_')}",
        "",
        (spec.description or "").strip(),
        "",
        f"Runs in `{image}`.",
        "",
    ]
    lines += ["| input | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, value in (spec.inputs or {}).items():
        default = f"`{json.dumps(value.default)}`" if value.optional and not artifact(value.type) else ""
        lines.append(f"| `{name}` | {_type(value.type)} | {default} | {_cell(value.description)} |")
    lines += ["", "| output | type | meaning |", "| --- | --- | --- |"]
    for name, value in (spec.outputs or {}).items():
        lines.append(f"| `{name}` | {_type(value.type)} | {_cell(value.description or said.get(name))} |")
    return lines


def _docstring(component: Any) -> dict[str, str]:
    """What the docstring says of output artifacts and of a plain return value, which KFP's spec leaves out."""
    import docstring_parser  # KFP reads docstrings with it

    parsed = docstring_parser.parse(component.python_func.__doc__)
    said = {parameter.arg_name: parameter.description or "" for parameter in parsed.params}
    return said | ({"Output": parsed.returns.description or ""} if parsed.returns else {})


def artifact(kind: str) -> bool:
    """Whether KFP's name of a type is that of an artifact."""
    return "." in kind


def _type(kind: str) -> str:
    return kind.split("@")[0].removeprefix("system.") if artifact(kind) else kind.lower()


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
