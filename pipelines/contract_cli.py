"""``sluiceway data contract``: print a data set's contract, and replace it by a file kept beside the pipeline."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from components.errors import BadInput
from pipelines.clear_errors import clear_errors

if TYPE_CHECKING:
    from components.store import Store


def contract(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The data set.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it to a file.")] = None,
    new: Annotated[
        Path | None,
        typer.Option("--set", metavar="FILE", help="Check a contract, or a pandera schema in YAML, and apply it."),
    ] = None,
    version: Annotated[int | None, typer.Option(help="An earlier version; by default the one applied.")] = None,
    pandera: Annotated[bool, typer.Option("--pandera", help="As a pandera schema, for use elsewhere.")] = False,
) -> None:
    """Print a data set's contract, or apply the next version of it.

    Keep it in Git beside the pipeline: print it once, edit and review it there, and set it from CI. Versions before
    are kept in the store.

    Examples: sluiceway data contract churn --out contracts/churn.yaml
    sluiceway data contract churn --set contracts/churn.yaml
    """
    from components.files import write_text
    from components.settings import settings
    from components.store import Store
    from components.validate import versions
    from components.validate.contract import dumps

    with clear_errors():
        if new is not None and (version is not None or pandera):
            raise BadInput("--set applies a contract; --version and --pandera are for printing one.")
        store = Store(settings().store)
        if new is not None:
            _set(store, dataset, new)
            return
        found = versions.read(store, dataset, version)
        if pandera:
            from components.validate import pandera_yaml

            text = pandera_yaml.write(found)
        else:
            text = dumps(found)
        if out is None:
            sys.stdout.write(text)
        else:
            write_text(out, text)


def _set(store: "Store", dataset: str, path: Path) -> None:
    import re

    from components.validate import pandera_yaml, versions
    from components.validate.contract import loads

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error
    if re.search(r"^schema_type:", text, re.MULTILINE):
        given = pandera_yaml.read(text, dataset, str(path))
    else:
        given = loads(text, str(path))
    if given.dataset != dataset:
        raise BadInput(f"{path} is the contract of {given.dataset}, not of {dataset}; check the file or the name.")
    done = versions.replace(store, given, str(path))
    console = Console(highlight=False, soft_wrap=True)
    for line in done.diff:
        colour = {"+": "green", "-": "red"}.get(line[:1], "dim")
        console.print(f"[{colour}]{escape(line)}[/]")
    what = "applies from the next run on" if done.diff else "is what is applied already"
    console.print(f"[bold]Version {done.contract.version}[/] of {escape(dataset)}'s contract {what}.")
