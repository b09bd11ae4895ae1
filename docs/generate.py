"""Writes a page per component from its own spec: ``make docs``."""

import importlib
import json
from pathlib import Path
from typing import Any

STEPS = ("ingest", "validate", "features", "train", "evaluate", "register", "stage", "rollout")
FOLDER = Path(__file__).parent / "components"


def pages() -> dict[str, str]:
    """The text of every page, by file name."""
    return {f"{step}.md": _page(step) for step in STEPS}


def _page(step: str) -> str:
    from kfp.dsl.base_component import BaseComponent

    module = importlib.import_module(f"components.{step}.component")
    found = [value for value in vars(module).values() if isinstance(value, BaseComponent)]
    return "\n".join(
        [
            f"# {step}",
            "",
            f"Written from `components/{step}/component.py` by `make docs`; edit the docstrings there.",
            *(line for component in found for line in _component(component)),
        ]
    )


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
        default = f"`{json.dumps(value.default)}`" if value.optional and not _artifact(value.type) else ""
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


def _artifact(kind: str) -> bool:
    return "." in kind


def _type(kind: str) -> str:
    return kind.split("@")[0].removeprefix("system.") if _artifact(kind) else kind.lower()


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text + "\n", encoding="utf-8")
        print(FOLDER / name)
