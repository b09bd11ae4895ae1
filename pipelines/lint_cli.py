"""``sluiceway lint``: what is wrong with a compiled package before a cluster says so."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from pipelines.clear_errors import clear_errors

if TYPE_CHECKING:
    from pipelines.lint.check import Report
    from pipelines.lint.package import Package
    from pipelines.project import Project

BUILD = Path("build")


class Format(Enum):
    """How findings are written."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


def lint(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Packages, or folders of them; build/ by default.")
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="text for people, json for scripts, github for a pull request's lines.")
    ] = Format.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    explain: Annotated[str, typer.Option(metavar="RULE", help="Say what a rule is for, and end.")] = "",
    rules: Annotated[bool, typer.Option("--rules", help="List the rules, and end.")] = False,
    release: Annotated[
        bool,
        typer.Option("--release", help="Write the packages' interfaces as released; commit them with the release."),
    ] = False,
) -> None:
    """Look for what would fail, or be regretted, on a cluster: in any compiled KFP package, ours or not.

    A finding is `file:line: severity RULE [name] what is wrong and what to do`. `--explain SW003` says more of a rule.

    One that may stay is suppressed with a reason: `# lint: ignore SW002 - why` at the end of its line or alone above
    it, in a package that is kept by hand; for one that is compiled anew, in pyproject.toml:

        [[tool.sluiceway.lint.ignore]]
        rule = "SW002"
        package = "train-and-deploy"
        on = "train*"
        reason = "why"

    Exit codes: 0 nothing to mend (warnings may be, without --strict), 1 findings, 2 wrong usage or a file that is no
    package.

    Example: sluiceway compile && sluiceway lint build/*.yaml
    """
    from pipelines.lint import show
    from pipelines.lint.check import lint as run
    from pipelines.lint.findings import Severity
    from pipelines.project import project as read_project

    if rules or explain:
        _teach(explain)
        return
    with clear_errors():
        project = read_project()
        packages = _packages(paths or [BUILD])
        if release:
            _release(packages, project)
            return
        report = run(packages, project)
    _show(report, format_)
    failed = report.findings if strict else report.count(Severity.ERROR)
    if format_ is not Format.JSON:
        typer.echo(show.summary(report), err=True)
    raise typer.Exit(1 if failed else 0)


def _show(report: "Report", format_: Format) -> None:
    from pipelines.lint import show

    if format_ is Format.JSON:
        typer.echo(show.as_json(report))
    else:
        for line in show.github(report) if format_ is Format.GITHUB else show.text(report):
            typer.echo(line)


def _teach(rule: str) -> None:
    from pipelines.lint.rules import RULES

    console = Console()
    if not rule:
        for one in RULES.values():
            typer.echo(f"{one.id} {one.name:<20} {one.severity.value:<8} {one.summary}")
        return
    wanted = rule.upper()
    if wanted not in RULES:
        raise typer.BadParameter(f"there is no rule {rule}: --rules lists them", param_hint="--explain")
    found = RULES[wanted]
    console.print(Markdown(f"# {found.id} {found.name}\n\n**{found.summary}** ({found.severity.value})\n\n{found.why}"))


def _packages(paths: list[Path]) -> list["Package"]:
    """Read the packages; a folder stands for those in it.

    Raises:
        NotAPackage: there is none, or one of them is none.
    """
    from pipelines.lint.package import NotAPackage, read

    files = [file for path in paths for file in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])]
    if not files:
        raise NotAPackage(f"There is no package in {', '.join(map(str, paths))}: write some with `sluiceway compile`.")
    if missing := next((file for file in files if not file.exists()), None):
        raise NotAPackage(f"There is no package {missing}: write one with `sluiceway compile`.")
    return [read(file) for file in files]


def _release(packages: list["Package"], project: "Project") -> None:
    from pipelines.lint.interfaces import release

    for package in packages:
        typer.echo(f"wrote {release(package, project.released, project.version)}")
