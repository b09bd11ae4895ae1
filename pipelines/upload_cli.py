"""``sluiceway upload``: compiled pipelines become versions on a KFP server."""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipelines.catalog import names
from pipelines.clear_errors import clear_errors
from pipelines.server.flags import takes_server
from pipelines.server.options import Options

if TYPE_CHECKING:
    from pipelines.server.upload import Package, Uploaded


@takes_server
def upload(
    server: Options,
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH or NAME", help="Packages, or pipelines to compile; all when none is named."),
    ] = None,
    keep: Annotated[int, typer.Option(min=0, help="How many old versions stay, beside those that are in use.")] = 10,
    shared: Annotated[
        bool, typer.Option("--shared", help="On a multi-user Kubeflow: for every namespace (SLUICEWAY_KFP_SHARED).")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on standard output.")] = False,
) -> None:
    """Upload pipelines to a KFP server, each as a new version of its pipeline.

    A version is named by git commit and package digest. A package that is there already, even from another commit,
    makes none; so an upload can be repeated at any time, and is, when answers get lost. Old versions that Sluiceway
    made are deleted but for the newest 10 and those that a recurring run, or a run that has not ended, uses.

    Examples: sluiceway upload --host https://kfp.example.com
    sluiceway upload build/train-and-deploy.yaml --namespace team-a --token-file /var/run/secrets/kfp/token --json
    """
    from pipelines.server.connection import connect
    from pipelines.server.upload import upload as upload_package

    if shared:
        server = server.model_copy(update={"shared": True})
    notes = Console(stderr=True)
    done: list[Uploaded] = []
    with clear_errors(), tempfile.TemporaryDirectory() as folder:
        found = [_package(one, Path(folder)) for one in what or names()]
        with connect(server) as connection:
            for package in found:
                done.append(upload_package(connection, package, keep, dry_run))
                _tell(done[-1], notes if as_json else Console(), dry_run)
    if as_json:
        sys.stdout.write(json.dumps({"uploads": [dataclasses.asdict(one) for one in done], "dry_run": dry_run}) + "\n")


def _package(named: str, folder: Path) -> "Package":
    """A package that is named by its path, or a pipeline's, compiled now."""
    from pipelines.packages import compile_package
    from pipelines.server.upload import read_package

    if Path(named).suffix in (".yaml", ".yml") or Path(named).is_file():
        return read_package(Path(named))
    path = folder / f"{named}.yaml"
    compile_package(named, path)
    return read_package(path)


def _tell(done: "Uploaded", console: Console, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    what = f"[bold]{would}new[/]" if done.state == "new" else "there already"
    console.print(f"{done.pipeline}  {done.version}  {what}  {done.link}", soft_wrap=True, highlight=False)
    for name in done.deleted:
        console.print(f"  {would}deleted: old version {name}", soft_wrap=True, highlight=False)
    for note in done.notes:
        console.print(f"  {note}", soft_wrap=True, highlight=False, markup=False)
