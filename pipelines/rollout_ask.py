"""A person's say in a rollout: a command to whoever is at work on it, or the decision where nobody is any more."""

import getpass
import os
import socket
import time
from collections.abc import Callable
from typing import Literal

from components.errors import SluicewayError
from components.rollout.ledger import Event, Ledger, Phase
from components.rollout.store import Command, Store
from components.rollout.timeline import AT_WORK, extra, why

What = Literal["pause", "resume", "abort", "promote"]

_POLL_SECONDS = 0.2
_ANSWERS: dict[What, tuple[str, ...]] = {
    "pause": ("paused",),
    "resume": ("resumed",),
    "abort": ("rolled back", "halted"),
    "promote": ("promoted", "rolled back", "halted"),
}


def me() -> str:
    """Who asks, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def nobody(ledger: Ledger, what: str) -> SluicewayError:
    """The failure of asking where nobody listens, with what to do instead."""
    if ledger.phase in AT_WORK:
        return SluicewayError(
            f"Nobody is at work on {ledger.service}: run {ledger.run_id or 'unknown'} ended while it was "
            f"{ledger.phase.value} at {ledger.weight} %. Run the pipeline again, or end the rollout with "
            f"`sluiceway rollout abort {ledger.service}`."
        )
    if ledger.phase is Phase.HALTED:
        return SluicewayError(
            f"There is nothing to {what}: the rollout of {ledger.service} was halted ({ledger.reason}). End it with "
            f"`sluiceway rollout promote {ledger.service}` or `sluiceway rollout abort {ledger.service}`."
        )
    last = f"the last one was {ledger.outcome.replace('_', ' ')}" if ledger.outcome else "there has been none yet"
    return SluicewayError(f"There is nothing to {what}: no rollout of {ledger.service} is under way ({last}).")


def send(store: Store, what: What, by: str) -> Command:
    """Leave a command for the owner, who takes it with the next look.

    Raises:
        SluicewayError: nobody is at work on the service.
    """
    ledger = store.load()
    if ledger.phase not in AT_WORK or not store.owner():
        raise nobody(ledger, what)
    command = Command(what=what, by=by, time=time.time())
    store.send(command)
    return command


def answer(store: Store, command: Command, before: int, wait_seconds: float, say: Callable[[str], None]) -> str:
    """Wait until the owner has taken a command and done what it asks; gives its answer in one sentence.

    Args:
        store: the record.
        command: what was sent.
        before: how many events the record had then.
        wait_seconds: how long to wait.
        say: told once the command is taken.

    Raises:
        SluicewayError: the owner has ended without it, or did not come to it in time.
    """
    deadline, taken = time.monotonic() + wait_seconds, False
    while True:
        owner = store.owner()  # asked before the record is read, so that a last word is not missed
        ledger = store.load()
        events = _after_command(ledger.events[before:], command)
        if events and not taken:
            taken = True
            say(f"{owner or 'the owner'} has taken the command")
        done = _done(events, command) if events else None
        if done is not None:
            return done
        if not owner or ledger.phase not in AT_WORK:
            raise _too_late(ledger, command)
        if time.monotonic() >= deadline:
            raise SluicewayError(
                f"The command to {command.what} {'was taken, but is not done' if taken else 'is not taken yet'} after "
                f"{wait_seconds:.0f} s: {owner} is {ledger.phase.value}. It stays in force; watch with "
                f"`sluiceway rollout status {ledger.service} --watch`."
            )
        time.sleep(_POLL_SECONDS)


def _after_command(events: list[Event], command: Command) -> list[Event]:
    """The owner's word that it has taken the command, and everything after; empty while it has not."""
    for index, event in enumerate(events):
        if event.what == "command" and (extra(event).get("command"), extra(event).get("by")) == (
            command.what,
            command.by,
        ):
            return events[index:]
    return []


def _done(events: list[Event], command: Command) -> str | None:
    for event in events:
        if event.what in _ANSWERS[command.what]:
            return f"{event.what} at {event.weight} %" + (f": {why(event)}" if why(event) else "")
    waits_for_nothing = command.what in ("pause", "resume") and any(event.what == "sample" for event in events)
    return f"it was {command.what}d already" if waits_for_nothing else None


def _too_late(ledger: Ledger, command: Command) -> SluicewayError:
    ended = ledger.outcome.replace("_", " ") if ledger.outcome else "ended by its run's end"
    return SluicewayError(
        f"The command to {command.what} came too late: the rollout of {ledger.service} is {ended}"
        f"{f' ({ledger.reason})' if ledger.reason else ''}."
    )
