"""The record of a rollout on one machine: a file beside the service, and a lock that the kernel frees."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from components.errors import Busy
from components.files import write_text
from components.rollout.ledger import Ledger
from components.rollout.store import Command

_POLL_SECONDS = 0.2


class Held:
    """The right to act, which a process has until it ends: there is nothing to lose or to hand over."""

    def check(self) -> None:
        """Return: the kernel keeps the lock."""

    def hand_over(self, seconds: float) -> None:
        """Return: a pipeline on this machine locks the service for its whole run."""


class FileStore:
    """The record of one service's newest rollout, under the folder of local state."""

    def __init__(self, home: Path, service: str) -> None:
        """Name the service; nothing is read yet."""
        self.path = home / "rollouts" / f"{service}.json"
        self._command = home / "rollouts" / f"{service}.command.json"
        self._lock = home / "locks" / f"{service}.rollout"
        self._service = service

    @contextmanager
    def owned(
        self, rollout: str, wait_seconds: float = 0.0, say: Callable[[str], None] = lambda _text: None
    ) -> Iterator[Held]:
        """Own the service while the block runs.

        Raises:
            Busy: another process owns it.
        """
        deadline, told = time.monotonic() + wait_seconds, False
        while True:
            try:
                with locked(self._lock, f"run {rollout}", f"service {self._service}"):
                    yield Held()
                    return
            except Busy as busy:
                if time.monotonic() >= deadline:
                    raise
                if not told:
                    say(f"waiting: {busy}")
                    told = True
            time.sleep(_POLL_SECONDS)

    def owner(self) -> str:
        """Who is at work on the service now; empty when nobody is."""
        try:
            with self._lock.open(encoding="utf-8") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return file.read().strip() or "a run that has just started"
        except FileNotFoundError:
            pass
        return ""

    def load(self) -> Ledger:
        """Read the record, or begin an empty one."""
        try:
            return Ledger.model_validate_json(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Ledger(service=self._service)

    def save(self, ledger: Ledger) -> None:
        """Write the record whole; only the owner of the lock writes."""
        ledger.saved = time.time()
        write_text(self.path, ledger.model_dump_json(indent=1))

    def send(self, command: Command) -> None:
        """Leave a command for the owner."""
        write_text(self._command, command.model_dump_json())

    def command(self) -> Command | None:
        """The newest command; None when there is none."""
        try:
            return Command.model_validate_json(self._command.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def clear(self) -> None:
        """Take commands away."""
        self._command.unlink(missing_ok=True)


@contextmanager
def locked(lock_file: Path, holder: str, waiting_for: str) -> Iterator[None]:
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
