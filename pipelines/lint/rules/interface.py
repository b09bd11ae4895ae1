"""SW012: what was released keeps its interface, or gets a new major version."""

from collections.abc import Iterator

from pipelines.lint.findings import Severity
from pipelines.lint.interfaces import PIPELINE, breaks, interfaces_of, released
from pipelines.lint.package import Package
from pipelines.lint.rule import Found, Rule
from pipelines.lint.versions import allows_breaking, next_breaking
from pipelines.project import Project


def _check(package: Package, project: Project) -> Iterator[Found]:
    before = released(project.released, package.name)
    if before is None or allows_breaking(before.version, project.version):
        return
    now = interfaces_of(package)
    for name, interface in before.interfaces.items():
        if name not in now:
            continue  # it may still exist, and this pipeline not use it
        what = "The pipeline" if name == PIPELINE else f"Component {name}"
        for change in breaks(interface, now[name].interface):
            yield Found(
                now[name].line(change.subject),
                package.name if name == PIPELINE else name,
                f"{what} {change.text} since {before.version}: what uses it breaks; take that back, or raise the "
                f"version to {next_breaking(before.version)}.",
            )


RULE = Rule(
    id="SW012",
    name="interface",
    severity=Severity.ERROR,
    summary="No parameter or output that was released is gone, renamed, of another type or newly required, unless the "
    "major version is raised (before 1.0, the minor).",
    why="""Schedules, CI and other pipelines name parameters and outputs. Take one away, rename it, change its type
or add a required one, and they fail at their next run, at night. A version number is the promise that this happens
only when its first part changes (before 1.0, its second).

`sluiceway lint --release` writes the interface of each pipeline and its components to the folder `released` (set
another with `released` under `[tool.sluiceway.lint]`); commit it with the release. From then on this rule compares
every package with it. The version is `version` under `[project]` in pyproject.toml. Adding an optional parameter or
an output breaks nobody.""",
    check=_check,
)
