"""What a rule is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package, Task
from pipelines.lint.spot import Spot
from pipelines.project import Project


@dataclass(frozen=True)
class Found:
    """What a rule's check says; the linter adds file and rule.

    Attributes:
        line: where.
        subject: the task, parameter or component that it is about.
        message: what is wrong and what to do.
        severity: where it is not the rule's own.
    """

    line: int
    subject: str
    message: str
    severity: Severity | None = None


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        id: what suppressions name, such as ``SW003``; never given to another rule.
        name: the same for people, such as ``resources``.
        severity: of its findings, where they do not say otherwise.
        summary: what it asks for, in a line.
        why: what goes wrong without it and how to mend it, for ``--explain``; Markdown.
        check: finds what breaks it.
    """

    id: str
    name: str
    severity: Severity
    summary: str
    why: str
    check: Callable[[Package, Project], Iterator[Found]]


def about(task: Task, spot: Spot, message: str, severity: Severity | None = None) -> Found:
    """A finding about a task."""
    return Found(spot.line, task.name, f"Task {task.name} {message}", severity)
