"""A new pipeline: wiring of one component, with all that the lint asks for, its entry in the catalog, and a test."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import BadInput
from pipelines.new.component import package_files
from pipelines.new.pages import artifact, components
from pipelines.new.register import register
from pipelines.new.repository import Names, Repository
from pipelines.new.writing import all_or_none, rendered

_ANNOTATIONS = {
    "STRING": "str",
    "NUMBER_INTEGER": "int",
    "NUMBER_DOUBLE": "float",
    "BOOLEAN": "bool",
    "STRUCT": "dict",
    "LIST": "list",
    "String": "str",
    "Integer": "int",
    "Float": "float",
    "Boolean": "bool",
    "JsonObject": "dict",
    "JsonArray": "list",
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of the pipeline, which hands it on to its first component."""

    name: str
    annotation: str
    default: str
    note: str
    description: str


def new_pipeline(repository: Repository, name: Names, component: Names) -> list[Path]:
    """Write a pipeline of one component, which takes the component's parameters.

    Returns:
        What was written.

    Raises:
        BadInput: something of that name is there, or the component takes what a pipeline cannot be given.
    """
    face = components(repository.components, component.module, repository.project)[0]
    module = repository.folder(repository.pipelines) / f"{name.module}.py"
    values = {
        "name": name,
        "pipelines": repository.pipelines,
        "module": f"{repository.components}.{component.module}.component",
        "component": face.python_func.__name__,
        "call": "first_step" if face.python_func.__name__ == name.module else face.python_func.__name__,
        "does": _first_sentence(face.component_spec.description),
        "parameters": _parameters(face),
    }
    files = package_files(repository, repository.pipelines) | {
        module: rendered("pipeline.py", **values),
        repository.tests / f"test_{name.module}_pipeline.py": rendered("test_pipeline.py", **values),
    }
    with all_or_none(files):
        return [*(path for path in files if path.name != "__init__.py"), register(repository, name)]


def _parameters(face: Any) -> list[Parameter]:
    found = []
    for name, spec in (face.component_spec.inputs or {}).items():
        if artifact(spec.type):
            raise BadInput(
                f"Component {face.name} takes the artifact {name}, which another step must make: begin with a "
                "component that takes parameters only, and wire this one behind it."
            )
        kind = _ANNOTATIONS[spec.type]
        default = f" = {spec.default!r}".replace("'", '"') if spec.optional and kind == "str" else ""
        default = default or (f" = {spec.default!r}" if spec.optional else "")
        mutable = default and kind in ("dict", "list")
        note = "  # noqa: B006 - KFP reads the default, nothing changes it" if mutable else ""
        found.append(Parameter(name, kind, default, note, " ".join((spec.description or "").split())))
    return sorted(found, key=lambda parameter: bool(parameter.default))


def _first_sentence(text: str | None) -> str:
    sentence = " ".join((text or "").split()).partition(". ")[0].rstrip(".")
    return sentence[:1].lower() + sentence[1:]
