"""A report: text for people, JSON for scripts, or commands that put findings on the lines of a pull request."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pipelines.lint.check import Report
from pipelines.lint.findings import Finding, Severity
from pipelines.lint.rule import Rule


def text(report: Report) -> Iterator[str]:
    """A line per finding, as compilers write them, so that editors can jump there."""
    for one in report.findings:
        yield f"{one.file}:{one.line}: {one.severity.value} {one.rule} [{one.name}] {one.message}"


def summary(report: Report) -> str:
    """How it ended, in a line."""
    packages = f"{report.packages} package{'s' if report.packages != 1 else ''}"
    kept = f", {len(report.suppressed)} suppressed" if report.suppressed else ""
    if not report.findings:
        return f"{packages}: nothing to mend{kept}"
    errors, warnings = report.count(Severity.ERROR), report.count(Severity.WARNING)
    counts = [f"{n} {word}{'s' if n != 1 else ''}" for n, word in ((errors, "error"), (warnings, "warning")) if n]
    return f"{packages}: {', '.join(counts)}{kept}; `sluiceway lint --explain {report.findings[0].rule}` says why"


def as_json(report: Report) -> str:
    """One JSON object: packages, findings, suppressed."""
    return json.dumps(
        {
            "packages": report.packages,
            "errors": report.count(Severity.ERROR),
            "warnings": report.count(Severity.WARNING),
            "findings": [_plain(one) for one in report.findings],
            "suppressed": [{**_plain(one.finding), "reason": one.reason} for one in report.suppressed],
        }
    )


def _plain(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "severity": finding.severity.value}


def github(report: Report) -> Iterator[str]:
    """A workflow command per finding."""
    for one in report.findings:
        place = f"file={_property(one.file)},line={one.line},title={_property(f'{one.rule} {one.name}')}"
        yield f"::{one.severity.value} {place}::{_data(one.message)}"


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


def table(rules: dict[str, Rule]) -> Iterator[str]:
    """The rules as a Markdown table, for the documentation."""
    yield "| rule | name | severity | what it asks for |"
    yield "| --- | --- | --- | --- |"
    for rule in rules.values():
        yield f"| {rule.id} | {rule.name} | {rule.severity.value} | {rule.summary} |"
