"""``sluiceway serve``: one model on this machine, by the server that the image runs."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from components.settings import settings
from pipelines.clear_errors import clear_errors

# What is no option of this command is one of the server's.
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

_PACKAGES = str(Path(__file__).resolve().parents[1])


def serve(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(metavar="PATH|models:/NAME@ALIAS", help="A bundle, an archive of one, or one in the registry."),
    ] = "",
) -> None:
    """Serve a model on this machine until Ctrl-C: KServe's protocols, V1 and V2.

    WHAT is the folder of a bundle or of several, an archive (.zip, .tar, .tar.gz), or a version in MLflow's registry:
    models:/churn@champion or models:/churn/3, from MLFLOW_TRACKING_URI. The port is 8080
    unless `--port` says otherwise; `sluiceway serve --help` lists the options.

    Example: sluiceway serve models:/churn@champion --port 8080 --workers 2
    """
    from serving.server.__main__ import PREFIX, parser

    if not what or {what, *context.args} & {"-h", "--help"}:
        typer.echo(_help(context))
        raise typer.Exit(0 if what else 2)
    with clear_errors():
        from serving.fetch import fetch

        fetched = fetch(what, settings().home)
        given = ["--bundle", str(fetched.folder), "--announce"]
        if f"{PREFIX}PORT" not in os.environ:
            given.append("--port=8080")
        given += [part for name in ("name", "revision") if (part := _option(name, getattr(fetched, name)))]
        given += context.args  # of an option that is given twice the last counts
        parser(os.environ, "sluiceway serve WHAT").parse_args(given)  # complains here, under this command's name
    # In place of this process, so that signals reach the server and none of the command's libraries stay in memory.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_PACKAGES, os.environ.get("PYTHONPATH"))))
    os.execv(sys.executable, [sys.executable, "-m", "serving.server", *given])  # noqa: S606 - no shell is wanted


def _option(name: str, value: str) -> str:
    return f"--{name}={value}" if value else ""


def _help(context: typer.Context) -> str:
    from serving.server.__main__ import parser

    text = (serve.__doc__ or "").replace("\n    ", "\n")
    return f"{text}\n{parser(os.environ, 'sluiceway serve WHAT').format_help()}"
