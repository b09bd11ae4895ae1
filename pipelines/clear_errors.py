"""How the command tells of a failure."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from components.errors import SluicewayError


@contextmanager
def clear_errors() -> Iterator[None]:
    """End with one clear sentence and the failure's exit code."""
    try:
        yield
    except SluicewayError as error:
        Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from error
