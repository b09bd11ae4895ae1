"""Runs the rules over packages and takes out what was suppressed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from pipelines.lint.findings import Finding, Severity, Suppressed
from pipelines.lint.ignore import Suppression, in_package, in_project
from pipelines.lint.package import Package
from pipelines.lint.rule import Rule
from pipelines.lint.rules import RULES, suppressions
from pipelines.project import Project


@dataclass(frozen=True)
class Report:
    """How a lint ended.

    Attributes:
        packages: how many were looked at.
        findings: what is to be mended, by file and line.
        suppressed: what may stay, and why.
    """

    packages: int
    findings: tuple[Finding, ...]
    suppressed: tuple[Suppressed, ...]

    def count(self, severity: Severity) -> int:
        """How many findings are of a severity."""
        return sum(finding.severity is severity for finding in self.findings)


def lint(packages: Sequence[Package], project: Project) -> Report:
    """Run every rule on every package.

    Raises:
        BadInput: a released interface or the project's version cannot be read.
    """
    of_project = list(in_project(project))
    findings: list[Finding] = []
    suppressed: list[Suppressed] = []
    used: set[Suppression] = set()
    relevant: set[Suppression] = set()
    for package in packages:
        here = [*in_package(package), *of_project]
        relevant.update(one for one in here if fnmatch(package.name, one.package))
        for finding in _findings(package, project):
            covering = [one for one in here if one.reason and one.covers(finding, package)]
            used.update(one for one in here if one.covers(finding, package))
            if covering:
                suppressed.append(Suppressed(finding, covering[0].reason))
            else:
                findings.append(finding)
    findings += (found for one in relevant if (found := _complaint(one, one in used)))
    findings.sort(key=lambda finding: (finding.file, finding.line, finding.rule, finding.subject))
    return Report(len(packages), tuple(findings), tuple(suppressed))


def _findings(package: Package, project: Project) -> Iterator[Finding]:
    for rule in RULES.values():
        for found in rule.check(package, project):
            severity = found.severity or rule.severity
            yield Finding(package.file, found.line, rule.id, rule.name, severity, found.subject, found.message)


def _complaint(one: Suppression, used: bool) -> Finding | None:
    """What is wrong with a suppression itself."""
    if one.rule not in RULES:
        return _about(suppressions.REASON, one, f"There is no rule {one.rule}: `sluiceway lint --rules` lists them.")
    if not one.reason:
        return _about(suppressions.REASON, one, f"{one.rule} is suppressed without a reason: say why it may be.")
    if not used:
        return _about(suppressions.UNUSED, one, f"Nothing here breaks {one.rule} any more: take the suppression out.")
    return None


def _about(rule: Rule, one: Suppression, message: str) -> Finding:
    return Finding(one.file, one.line, rule.id, rule.name, rule.severity, one.rule, message)
