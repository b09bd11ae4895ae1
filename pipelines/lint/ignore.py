"""Findings that may stay: by a comment in the package, or by the repository's pyproject.toml."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pipelines.lint.findings import Finding
from pipelines.lint.package import Package
from pipelines.lint.spot import comments
from pipelines.project import Project

_MARK = "lint:"
_COMMENT = re.compile(r"lint:\s*ignore\s+(?P<rules>SW\d+(?:\s*,\s*SW\d+)*)\s*(?:[-:]+\s*(?P<reason>.*))?")
_HEADER = re.compile(r"\s*\[\[\s*tool\.sluiceway\.lint\.ignore\s*\]\]")


@dataclass(frozen=True)
class Suppression:
    """Somebody's word that a finding may stay.

    Attributes:
        file: where it is written.
        line: in which line.
        rule: the rule's id.
        reason: why; empty where nobody said.
        at: the line of the package that it is about; None for any.
        package: pattern of the package's name.
        on: patterns of the task, parameter or component; one of them is enough.
    """

    file: str
    line: int
    rule: str
    reason: str
    at: int | None = None
    package: str = "*"
    on: tuple[str, ...] = ("*",)

    def covers(self, finding: Finding, package: Package) -> bool:
        """Whether it is about a finding."""
        return (
            finding.rule == self.rule
            and self.at in (None, finding.line)
            and fnmatch(package.name, self.package)
            and any(fnmatch(finding.subject, pattern) for pattern in self.on)
        )


def in_package(package: Package) -> Iterator[Suppression]:
    """What the package's own comments say, each about its line or, alone in one, about the next."""
    lines = package.text.splitlines()
    for comment in comments(package.text, _MARK):
        match = _COMMENT.match(comment.text)
        if match is None:
            continue
        at = comment.line
        while comment.alone and at < len(lines) and lines[at - 1].lstrip().startswith("#"):
            at += 1
        for rule in re.split(r"\s*,\s*", match["rules"]):
            yield Suppression(package.file, comment.line, rule, (match["reason"] or "").strip(), at)


def in_project(project: Project) -> Iterator[Suppression]:
    """What pyproject.toml says under ``[[tool.sluiceway.lint.ignore]]``."""
    if not project.ignores:
        return
    text = project.file.read_text(encoding="utf-8").splitlines()
    headers = [number for number, line in enumerate(text, 1) if _HEADER.match(line)]
    file = _shown(project.file)
    for index, one in enumerate(project.ignores):
        line = headers[index] if index < len(headers) else 1
        on = (one.on,) if isinstance(one.on, str) else one.on
        yield Suppression(file, line, one.rule, one.reason.strip(), None, one.package, on)


def _shown(file: Path) -> str:
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
