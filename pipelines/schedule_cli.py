"""``sluiceway schedule``: recurring runs on a KFP server, as YAML files declare them."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipelines.clear_errors import clear_errors
from pipelines.server.flags import takes_server
from pipelines.server.options import Options

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from pipelines.packages import Parameter
    from pipelines.server.schedules_plan import Change, Step

app = typer.Typer(
    no_args_is_help=True,
    help="""Keep the recurring runs on a KFP server as YAML files declare them.

    `check` looks at the files alone, `diff` says what `apply` would change, `apply` changes it, `list` shows what is
    there. Only recurring runs of the files' owner that `apply` has made are touched.

    Example: sluiceway schedule diff schedules/""",
)

PathArgument = Annotated[Path, typer.Argument(help="A file of schedules, or a folder of them: all of its owner's.")]
JsonOption = Annotated[bool, typer.Option("--json", help="End with one JSON object on standard output.")]

_CHANGES = 3


@app.command()
def check(
    path: PathArgument = Path("schedules"),
    package: Annotated[
        list[Path] | None, typer.Option(help="Compiled packages whose parameters to check against.")
    ] = None,
    times: Annotated[int, typer.Option(min=1, max=50, help="How many of the next times to show.")] = 3,
) -> None:
    """Read schedule files and show when they will start runs, without any server.

    Parameters are checked against the pipelines of this checkout, compiled now, or against the packages that are
    named; of other pipelines they are not checked.

    Example: sluiceway schedule check schedules/ --package build/train-and-deploy.yaml
    """
    from pipelines.server import schedules

    with clear_errors():
        document = schedules.read(path)
        known = _known(package or [], {one.pipeline for one in document.schedules})
        table = Table("schedule", "pipeline", "parameters", "next", box=None, pad_edge=False)
        for one in document.schedules:
            if one.pipeline in known:
                schedules.check_parameters(one, known[one.pipeline])
            shown = [f"{at:%a %Y-%m-%d %H:%M %Z}" for at in schedules.next_times(one, document.zone, _now(), times)]
            fine = "checked" if one.pipeline in known else "not checked"
            table.add_row(one.name, f"{one.pipeline} {one.version}", fine, "\n".join(shown) or "paused or over")
    Console().print(table)


@app.command("diff")
@takes_server
def diff_(server: Options, path: PathArgument = Path("schedules"), as_json: JsonOption = False) -> None:
    """Say what `apply` would change, and change nothing.

    Exit codes: 0 nothing would change, 1 failed, 2 wrong usage, 3 something would.
    """
    from pipelines.server import schedules, schedules_apply, schedules_view
    from pipelines.server.connection import connect
    from pipelines.server.schedules_plan import plan

    with clear_errors():
        document = schedules.read(path)
        with connect(server) as connection:
            wanted = schedules_apply.resolve(connection, document, make=False)
            changes = plan(wanted, schedules_apply.observe(connection, document.owner, wanted, show=True), _now())
    if as_json:
        sys.stdout.write(json.dumps({"changes": [schedules_view.as_json(one) for one in changes]}, default=str) + "\n")
    else:
        _tell(changes, document.zone)
    raise typer.Exit(_CHANGES if changes else 0)


@app.command("apply")
@takes_server
def apply_(server: Options, path: PathArgument = Path("schedules"), as_json: JsonOption = False) -> None:
    """Make the recurring runs what the files declare: made, replaced, paused, resumed, deleted.

    It can be stopped at any time and run again, by two at once too: no schedule is ever there twice and switched on.
    A changed schedule goes on where the old one has come to. An old one whose run is going on is switched off, and
    deleted by a later apply.
    """
    from pipelines.server import schedules, schedules_apply, schedules_view
    from pipelines.server.connection import connect

    done: list[tuple[Change, Step]] = []
    console = Console(stderr=as_json)

    def say(change: "Change", step: "Step") -> None:
        done.append((change, step))
        console.print(schedules_view.said(change, step), highlight=False, soft_wrap=True)

    with clear_errors():
        document = schedules.read(path)
        with connect(server) as connection:
            wanted = schedules_apply.resolve(connection, document, make=True)
            waiting = schedules_apply.apply(connection, document.owner, wanted, say)
    for change in waiting:
        console.print(*schedules_view.diff(change, document.zone, _now()), sep="\n", highlight=False, soft_wrap=True)
    if not done and not waiting:
        console.print(f"{len(wanted)} schedules are as declared.")
    if as_json:
        steps = [{"name": change.name, "step": step.deed, "recurring_run": step.id} for change, step in done]
        answer = {"steps": steps, "waiting": [one.name for one in waiting], "schedules": len(wanted)}
        sys.stdout.write(json.dumps(answer) + "\n")


@app.command("list")
@takes_server
def list_(
    server: Options,
    owner: Annotated[str, typer.Option(help="Only this owner's.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the recurring runs that `apply` has made, and how their last runs ended."""
    from pipelines.server import schedules_apply
    from pipelines.server.connection import connect

    with clear_errors(), connect(server) as connection:
        found = schedules_apply.overview(connection, owner)
    if as_json:
        sys.stdout.write(json.dumps({"schedules": found}, default=str) + "\n")
        return
    table = Table("schedule", "owner", "pipeline", "when", "state", "last run", box=None, pad_edge=False)
    for one in found:
        when = one.get("cron") or f"every {one['every']}"
        table.add_row(one["name"], one["owner"], f"{one['pipeline']} {one['version']}", when, one["state"], one["last"])
    Console().print(table if found else "There are no schedules here that `sluiceway schedule apply` has made.")


def _known(packages: list[Path], named: set[str]) -> "dict[str, dict[str, Parameter]]":
    """The parameters of pipelines, from packages, or from what this checkout compiles."""
    import tempfile

    from pipelines.catalog import CATALOG
    from pipelines.packages import compile_package, parameters
    from pipelines.server.upload import read_package

    if packages:
        return {read_package(path).pipeline: parameters(path) for path in packages}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.yaml" for name in named if name in CATALOG}
        for name, path in paths.items():
            compile_package(name, path)
        return {name: parameters(path) for name, path in paths.items()}


def _tell(changes: "list[Change]", zone: "ZoneInfo") -> None:
    from pipelines.server import schedules_view

    console = Console()
    colours = {"-": "red", "+": "green", " ": "dim"}
    for change in changes:
        headline, *lines = schedules_view.diff(change, zone, _now())
        console.print(headline, style="bold", highlight=False, soft_wrap=True, markup=False)
        for line in lines:
            console.print(line, style=colours.get(line[:1]), highlight=False, soft_wrap=True, markup=False)
    if not changes:
        console.print("All schedules are as declared.")


def _now() -> datetime:
    return datetime.now(UTC)
