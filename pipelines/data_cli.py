"""``sluiceway data``: the versions of data sets, what differs between them, and their bytes back."""

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from components.errors import BadInput, Unreachable
from pipelines.clear_errors import clear_errors
from pipelines.contract_cli import contract

if TYPE_CHECKING:
    from components.ingest.catalog import Entry

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""List the versions of data sets, compare them, and bring their bytes back.

    Versions are kept in SLUICEWAY_STORE and their bytes in SLUICEWAY_REMOTE, folders or URIs such as gs://bucket/store;
    set to the cluster's, the commands work on the cluster's data. A version is named by the first digits of its digest,
    `latest` (the last that was ingested), `previous`, or a registered model that was trained on it, as in
    models:/churn@champion.""",
)

app.command()(contract)

DATASET, VERSION = "DATASET", "DATASET[@VERSION]"
JsonOption = Annotated[bool, typer.Option("--json", help="End with one JSON object on standard output.")]
VersionArgument = Annotated[str, typer.Argument(metavar=VERSION, help="Such as churn, churn@3f2a or churn@previous.")]


@app.command("list")
def list_(
    dataset: Annotated[str, typer.Argument(metavar="[DATASET]", help="Only this one's versions.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the versions that can be restored, the newest first."""
    from components.ingest import catalog
    from pipelines.data import view

    with clear_errors():
        if dataset:
            catalog.find(dataset)  # says which there are when this one is not
        found = [one for name in ([dataset] if dataset else catalog.datasets()) for one in catalog.entries(name)]
        if as_json:
            _json({"versions": [_summary(one) for one in found]})
        else:
            view.listed(Console(), found)


@app.command()
def show(version: VersionArgument, as_json: JsonOption = False) -> None:
    """Show a version: source, files with digests, columns, where its bytes are, and the models trained on it."""
    from pipelines.data import view

    with clear_errors():
        entry = _named(version)
        models: list[dict[str, Any]] | None = None
        try:
            from pipelines.data.models import trained_on

            models = trained_on(entry.version)
        except Unreachable as error:
            Console(stderr=True).print(f"[yellow]{escape(str(error))}[/]", highlight=False, soft_wrap=True)
        if as_json:
            _json(entry.model_dump(mode="json") | {"models": models})
        else:
            view.shown(Console(), entry, models)


@app.command()
def diff(
    dataset: Annotated[str, typer.Argument(metavar=DATASET, help="The data set.")],
    before: Annotated[str, typer.Argument(metavar="[A]", help="The earlier version.")] = "previous",
    after: Annotated[str, typer.Argument(metavar="[B]", help="The later version.")] = "latest",
    key: Annotated[
        list[str] | None,
        typer.Option(help="A column that names a row, several times for several; by default as the contract says."),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page with charts.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two versions: rows, schema, and the distribution of every column.

    Columns come in the order of how much they changed. Rows are matched by the contract's key, where it has one.

    Examples: sluiceway data diff churn
    sluiceway data diff churn 3f2a latest --key customerID --html diff.html
    """
    from components.files import write_text
    from components.ingest import catalog
    from components.settings import settings
    from pipelines.data import view
    from pipelines.data.compare import compare
    from pipelines.data.kept import parts
    from pipelines.data.report import report

    with clear_errors():
        entries = catalog.find(dataset, before), catalog.find(dataset, after)
        with (
            _busy(as_json, f"comparing {entries[0].version[:12]} with {entries[1].version[:12]}"),
            parts(*entries) as (
                old,
                new,
            ),
        ):
            names = tuple(key) if key else _contract_key(dataset, entries)
            found = compare(*entries, (old, new), names, settings().home)
        if html:
            write_text(html, report(found))
        if as_json:
            _json(found.model_dump(mode="json"))
        else:
            view.compared(Console(), found)


@app.command()
def restore(
    version: VersionArgument,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to make; it must not exist, or be empty.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what the folder holds.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a version's bytes back, checked against their md5, whole or not at all.

    Examples: sluiceway data restore churn@previous --to old
    sluiceway data restore models:/churn@champion --to trained-on
    """
    from pipelines.data import kept, view

    with clear_errors():
        entry = _named(version)
        with _busy(as_json, f"restoring {entry.dataset}@{entry.version[:12]}, {view.size(entry.snapshot.bytes)}"):
            kept.restore(entry, to, force=force)
        if as_json:
            _json(_summary(entry) | {"folder": str(to)})
            return
        Console().print(
            f"[bold]Restored[/] {escape(entry.dataset)}@{entry.version[:12]} to {escape(str(to))}: "
            f"{entry.snapshot.rows:,} rows, {view.size(entry.snapshot.bytes)}",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def ingest(
    uri: Annotated[str, typer.Argument(help="Where the data is, as the pipeline's source_uri.")],
    dataset: Annotated[str, typer.Option(help="Name to list it under; by default named after the source.")] = "",
    options: Annotated[
        str, typer.Option(metavar="JSON", help="How to read it, as the pipeline's read_options.")
    ] = "{}",
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep the snapshot's folder, too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version of a source by hand, as the pipeline's ingest step does.

    Example: sluiceway data ingest 'gs://bucket/day=*/*.csv' --dataset clicks --options '{"delimiter": ";"}'
    """
    from tempfile import TemporaryDirectory

    from components.ingest import catalog
    from components.ingest.run import run
    from components.naming import model_name
    from components.settings import settings
    from pipelines.data import view

    with clear_errors():
        name = dataset or model_name("", uri)
        catalog.check_name(name)
        home = settings().home
        home.mkdir(parents=True, exist_ok=True)
        with _busy(as_json, f"ingesting {uri}"), TemporaryDirectory(prefix=".ingest-", dir=home) as aside:
            made = run(uri, "", _object(options), (out or Path(aside) / "snapshot").absolute(), name)
        entry = catalog.find(name, made.version)
        if as_json:
            _json(_summary(entry))
            return
        Console().print(
            f"[bold]{escape(name)}@{made.version[:12]}[/]: {made.rows:,} rows, {len(made.columns)} columns, "
            f"{view.size(made.bytes)}",
            highlight=False,
            soft_wrap=True,
        )


def _named(text: str) -> "Entry":
    """The version that a person named: DATASET[@VERSION], or a model's URI."""
    from components.ingest import catalog

    if text.startswith("models:/"):
        from pipelines.data.models import data_version

        return catalog.find(*data_version(text))
    dataset, _, version = text.partition("@")
    return catalog.find(dataset, version or "latest")


def _contract_key(dataset: str, entries: "tuple[Entry, Entry]") -> tuple[str, ...]:
    """The first key or identifier of the contract that both versions have; nothing without one."""
    from components.settings import settings
    from components.store import Store, contract_name
    from components.validate.contract import loads

    store = Store(settings().store)
    content = store.read(contract_name(dataset))
    if content is None:
        return ()
    contract = loads(content.decode(), store.where(contract_name(dataset)))
    common = set.intersection(*({column.name for column in entry.snapshot.columns} for entry in entries))
    keys = (*contract.keys, *((name,) for name in contract.identifiers))
    return next((tuple(key) for key in keys if common.issuperset(key)), ())


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadInput(f'--options is not JSON ({error}); write it as \'{{"delimiter": ";"}}\'.') from error
    if not isinstance(value, dict):
        raise BadInput('--options must be a JSON object, as \'{"delimiter": ";"}\'.')
    return value


def _summary(entry: "Entry") -> dict[str, Any]:
    made = entry.snapshot
    return {
        "dataset": entry.dataset,
        "version": entry.version,
        "created": entry.created.isoformat(),
        "ingested": entry.ingested.isoformat(),
        "source_uri": made.source_uri,
        "options": made.options,
        "rows": made.rows,
        "columns": len(made.columns),
        "bytes": made.bytes,
        "remote": entry.remote,
        "directory": entry.directory,
    }


def _busy(quiet: bool, what: str) -> AbstractContextManager[object]:
    """Something that moves on standard error, where a person looks at it."""
    console = Console(stderr=True)
    return nullcontext() if quiet or not console.is_terminal else console.status(f"{escape(what)} …")


def _json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
