"""What a rollout has done so far, kept beside the service so that a killed run can be settled by the next.

It is never kept in the InferenceService itself, whose metadata propagates to the pods and restarts them.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.errors import Busy
from components.files import write_text


class Phase(StrEnum):
    """How far the rollout is; anything but ``SETTLED`` that outlives its run must be settled."""

    SETTLED = "settled"
    STAGING = "staging"
    STAGED = "staged"
    SHIFTING = "shifting"
    PROMOTING = "promoting"


class Release(BaseModel):
    """A registered model version as it is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    uri: str
    document: dict[str, Any]


class Event(BaseModel):
    """One entry of the timeline; counts are since the step began, latency in milliseconds."""

    model_config = ConfigDict(extra="allow")

    time: float
    what: str
    weight: int


class Ledger(BaseModel):
    """The record of the newest rollout of one service.

    Attributes:
        service: the InferenceService's name.
        run_id: the run that owns the rollout.
        phase: how far it is.
        stable: the last good release; None before the first.
        candidate: the release on trial; None when settled.
        events: the timeline of this rollout.
    """

    service: str
    run_id: str = ""
    phase: Phase = Phase.SETTLED
    stable: Release | None = None
    candidate: Release | None = None
    events: list[Event] = []

    def note(self, what: str, weight: int, **seen: Any) -> Event:
        """Add an event to the timeline."""
        event = Event.model_validate({"time": time.time(), "what": what, "weight": weight, **seen})
        self.events.append(event)
        return event


def path(home: Path, service: str) -> Path:
    """Where the ledger of a service lies."""
    return home / "rollouts" / f"{service}.json"


def load(home: Path, service: str) -> Ledger:
    """Read the ledger, or begin an empty one."""
    try:
        return Ledger.model_validate_json(path(home, service).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Ledger(service=service)


def save(home: Path, ledger: Ledger) -> None:
    """Write the ledger whole."""
    write_text(path(home, ledger.service), ledger.model_dump_json(indent=1))


@contextmanager
def owned(lock_file: Path, holder: str, waiting_for: str) -> Iterator[None]:
    """Hold a file lock; the kernel frees it when the process ends, however it ends.

    Args:
        lock_file: the lock.
        holder: who holds it, for the message to the one who cannot have it.
        waiting_for: what the lock stands for, likewise.

    Raises:
        Busy: another process holds it.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise Busy(
                f"Another run is at work on {waiting_for} ({file.read().strip() or 'just started'}): "
                "wait until it has ended, or end it, then run again."
            ) from error
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield
