"""A run's progress in the terminal: each step with its time and the one fact that matters."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from pipelines.record import RunRecord, State, StepRecord

_SIGNS = {
    State.PENDING: "[dim]·[/]",
    State.RUNNING: "[cyan]▶[/]",
    State.DONE: "[green]✓[/]",
    State.CACHED: "[green]✓[/]",
    State.FAILED: "[red]✗[/]",
}
_ENDED = {State.DONE, State.CACHED, State.FAILED}


class Progress:
    """Follows a run: a live table in a terminal, one line per finished step elsewhere."""

    def __init__(self, console: Console) -> None:
        """Write to a console."""
        self._console = console
        self._record: RunRecord | None = None
        self._said: set[str] = set()
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4, transient=False)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, record: RunRecord) -> None:
        """Show what has changed."""
        self._record = record
        if self._console.is_terminal:
            return
        for step in record.steps.values():
            if step.state is State.RUNNING:  # perhaps once more
                self._said.discard(step.name)
            if step.state in _ENDED and step.name not in self._said:
                self._said.add(step.name)
                self._console.print(
                    f"{_SIGNS[step.state]} {step.name:<9} {_seconds(step):>7}  {escape(_said(step))}",
                    highlight=False,
                    soft_wrap=True,
                )

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for step in self._record.steps.values() if self._record else ():
            style = "dim" if step.state is State.PENDING else ""
            table.add_row(_SIGNS[step.state], f"[{style or 'bold'}]{step.name}[/]", _seconds(step), escape(_said(step)))
        return table


def _said(step: StepRecord) -> str:
    if step.state is State.RUNNING:
        return step.progress[-1] if step.progress else ""
    return step.error or step.fact


def _seconds(step: StepRecord) -> str:
    if step.state is State.RUNNING:
        return f"{time.time() - step.began:.1f} s"
    if step.state is State.CACHED:
        return "kept"
    return f"{step.seconds:.1f} s" if step.state in _ENDED else ""
