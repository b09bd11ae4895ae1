"""What every step says about itself: one JSON line per event on standard output.

The lines are the pod's structured log on a cluster, and what `sluiceway run` turns into live progress and the run
report on one machine.
"""

import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.errors import SluicewayError

MARK = "sluiceway"


def emit(step: str, event: str, **fields: Any) -> None:
    """Print one event; ``event`` is ``started``, ``progress``, ``finished`` or ``failed``."""
    line = {MARK: event, "step": step, "time": time.time(), **fields}
    sys.stdout.write(json.dumps(line, default=str) + "\n")  # in one piece: standard error shares the pipe
    sys.stdout.flush()


class Step:
    """The running step, handed to the component's body by :func:`step`."""

    def __init__(self, name: str) -> None:
        """Remember the step's name; the fact is what its one line of progress ends with.

        The labels are for programs that read the log, and are counted by its agent: short, of few different values.
        """
        self.name = name
        self.fact = ""
        self.labels: dict[str, str] = {}

    def progress(self, message: str, **fields: Any) -> None:
        """Say how far a long step has come."""
        emit(self.name, "progress", message=message, **fields)


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Report start, end and failure of a step; set ``fact`` to the one thing worth knowing about it.

    A foreseen failure ends the process with its exit code after one clear sentence; anything else keeps its
    traceback, which is what a bug report needs.
    """
    began = time.monotonic()
    current = Step(name)
    emit(name, "started")
    try:
        yield current
    except SluicewayError as error:
        told = {"kind": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
        emit(name, "failed", **told, **current.labels)
        traceback.print_exc()
        print(f"{name} failed: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from error
    except Exception as error:
        told = {"kind": type(error).__name__, "message": f"{type(error).__name__}: {error}", "exit_code": 1}
        emit(name, "failed", **told, **current.labels)
        raise
    emit(name, "finished", fact=current.fact, seconds=round(time.monotonic() - began, 3), **current.labels)
