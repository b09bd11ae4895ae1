"""SW014: every parameter of a pipeline does something."""

from collections.abc import Iterator
from typing import Any

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package
from pipelines.lint.rule import Found, Rule
from pipelines.project import Project


def _check(package: Package, _: Project) -> Iterator[Found]:
    used = set(_names(package.spec["root"]["dag"].plain()))
    for task in package.tasks:
        used |= set(_names(task.kubernetes.plain()))
    for name, spec in package.parameters.items():
        if name not in used:
            yield Found(spec.line, name, f"Parameter {name} is used by no task: pass it to one, or take it out.")


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("componentInputParameter", "inputParameter") and isinstance(item, str):
                yield item
            yield from _names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _names(item)


RULE = Rule(
    id="SW014",
    name="unused-parameter",
    severity=Severity.WARNING,
    summary="Every parameter of a pipeline is used by a task.",
    why="""Somebody sets it, starts a run that takes hours, and nothing is different. Most often a task was given the
default where the parameter was meant.""",
    check=_check,
)
