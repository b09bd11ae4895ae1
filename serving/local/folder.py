"""Where a service's files lie, and how they are read while another process writes them."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Folder:
    """The folder of one service, ``<home>/services/<name>``."""

    path: Path

    @classmethod
    def of(cls, home: Path, name: str) -> "Folder":
        """The folder of a service by name."""
        return cls(home.absolute() / "services" / name)

    @property
    def document(self) -> Path:
        """The desired InferenceService, written whole by the client."""
        return self.path / "inferenceservice.yaml"

    @property
    def status(self) -> Path:
        """What is so, written whole by the supervisor."""
        return self.path / "status.json"

    @property
    def memory(self) -> Path:
        """What the supervisor remembers over its own restarts: revisions, port."""
        return self.path / "memory.json"

    @property
    def children(self) -> Path:
        """Processes that the supervisor started, so that another can end them."""
        return self.path / "children.json"

    @property
    def lock(self) -> Path:
        """Held by the running supervisor; its text is the process id."""
        return self.path / "supervisor.lock"

    @property
    def log(self) -> Path:
        """The supervisor's log."""
        return self.path / "supervisor.log"

    @property
    def envoy(self) -> Path:
        """Envoy's configuration and log."""
        return self.path / "envoy"

    def server_log(self, revision: str) -> Path:
        """A model server's output."""
        return self.path / "servers" / f"{revision}.log"

    def read_document(self) -> dict[str, Any] | None:
        """The desired document; None when there is none."""
        try:
            document: dict[str, Any] = yaml.safe_load(self.document.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return document

    def read_status(self) -> dict[str, Any]:
        """The status as last written; empty before the first."""
        status: dict[str, Any] = read_json(self.status, {})
        return status

    def supervisor_pid(self) -> int | None:
        """The process that holds the lock; None when none does."""
        try:
            with self.lock.open("r+") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    text = stream.read().strip()
                    return int(text) if text else None
                return None
        except FileNotFoundError:
            return None


def read_json(path: Path, default: Any) -> Any:
    """Read a JSON file that is always written whole; ``default`` when it does not exist."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default


def last_line(path: Path, after: int = 0) -> str:
    """The last line of a log that says something, ``after`` a number of bytes; empty when there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(after, path.stat().st_size - 8192))
            lines = stream.read().decode("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, waiting for whoever has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
