"""What pipelines and the command line do with services on this machine; importing it is cheap."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from components.errors import NotReady
from components.files import write_json, write_text
from serving.local.document import validated
from serving.local.folder import Folder, last_line, locked
from serving.local.processes import is_running, kill_leftovers
from serving.local.status import HOPELESS, gone, starting, stopped

_POLL_SECONDS = 0.02
_START_SECONDS = 20.0
_STOP_SECONDS = 30.0
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])


def apply(home: Path, document: dict[str, Any]) -> int:
    """Ask for an InferenceService; its supervisor is started, or started again, when it does not run.

    Applying what is asked for already changes nothing.

    Returns:
        The generation, for :func:`wait`.

    Raises:
        BadInput: a field is missing or wrong.
        NotReady: the supervisor does not start.
    """
    service = validated(document)
    folder = Folder.of(home, service.metadata.name)
    with locked(folder.path / "apply.lock"):
        current = folder.read_document()
        generation = int(current["metadata"].get("generation", 0)) if current else 0
        wanted = {key: value for key, value in document.items() if key != "status"}
        wanted["metadata"] = {**document["metadata"], "generation": generation}
        if wanted != current:
            generation += 1
            wanted["metadata"]["generation"] = generation
            write_text(folder.document, yaml.safe_dump(wanted, sort_keys=False))
        _start(folder)
    return generation


def read(home: Path, name: str) -> dict[str, Any] | None:
    """The document with its status; None when there is no such service.

    The status of a service whose supervisor is gone says so, whatever it said last.
    """
    folder = Folder.of(home, name)
    document = folder.read_document()
    if document is None:
        return None
    pid = folder.supervisor_pid()
    now = folder.read_status()
    writer = now.get("local", {}).get("supervisor", {}).get("pid")
    if writer is not None and pid is None:
        now = gone(now, f"The supervisor of {name} is gone; apply or repair the service to start it again.")
    elif writer is not None and writer != pid:
        now = starting(now, f"The supervisor of {name} has just started.")
    return {**document, "status": now}


def alive(home: Path, name: str) -> bool:
    """Whether the service's supervisor runs."""
    return Folder.of(home, name).supervisor_pid() is not None


def names(home: Path) -> list[str]:
    """All services that were ever applied, running or not."""
    return sorted(path.parent.name for path in (home / "services").glob("*/inferenceservice.yaml"))


def wait(home: Path, name: str, generation: int, timeout_s: float) -> dict[str, Any]:
    """Wait until a generation is in force: its revision ready, its split confirmed by Envoy.

    Returns:
        The document with its status.

    Raises:
        NotReady: the revision failed, the port is taken, the supervisor ended, or the time is over; says why.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        running = alive(home, name)
        document = read(home, name)
        if document is None:
            raise NotReady(f"There is no service {name} in {home}; apply it first.")
        ready = _condition(document["status"])
        if document["status"].get("observedGeneration", 0) >= generation and running:
            if ready.get("status") == "True":
                return document
            if ready.get("reason") in HOPELESS:
                raise NotReady(f"{name} is not ready: {ready['message']}")
        if not running:
            said = last_line(Folder.of(home, name).log)
            raise NotReady(f"The supervisor of {name} is not running; its log ends with: {said}")
        if time.monotonic() > deadline:
            raise NotReady(f"{name} is not ready after {timeout_s:g} s: {ready.get('message', 'nothing was reported')}")
        time.sleep(_POLL_SECONDS)


def repair(home: Path, name: str) -> None:
    """Start the supervisor of a service again if it does not run; what it left behind is ended first.

    Raises:
        NotReady: there is no such service, or the supervisor does not start.
    """
    folder = Folder.of(home, name)
    if not folder.document.exists():
        raise NotReady(f"There is no service {name} in {home}; apply it first.")
    with locked(folder.path / "apply.lock"):
        _start(folder)


def stop(home: Path, name: str | None = None) -> None:
    """End a service, or all: supervisor, servers and Envoy, and wait until they are gone.

    The document stays, so that applying or repairing starts the same revisions again.

    Raises:
        NotReady: a process does not end.
    """
    for service in [name] if name is not None else names(home):
        folder = Folder.of(home, service)
        if not folder.path.is_dir():
            continue
        with locked(folder.path / "apply.lock"):
            _stop(folder)


def _stop(folder: Folder) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    pid = folder.supervisor_pid()
    if pid is not None:
        _signal(pid, signal.SIGTERM)
        while is_running(pid):
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
                deadline += 5.0
            time.sleep(_POLL_SECONDS)
    kill_leftovers(folder.children)
    folder.children.unlink(missing_ok=True)
    now = folder.read_status()
    if now and now["local"]["supervisor"]["pid"] is not None:
        write_json(folder.status, stopped(now, "The service was stopped; apply it again to start it."))


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may end by itself in between
        os.kill(pid, number)


def _start(folder: Folder) -> None:
    if folder.supervisor_pid() is not None:
        return
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (_PACKAGE_ROOT, os.environ.get("PYTHONPATH"))))}
    with folder.log.open("ab") as log:
        subprocess.run(
            [sys.executable, "-m", "serving.local", str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            cwd="/",
            start_new_session=True,
            check=True,
        )
    deadline = time.monotonic() + _START_SECONDS
    while folder.supervisor_pid() is None:
        if time.monotonic() > deadline:
            raise NotReady(
                f"The supervisor of {folder.path.name} did not start; {folder.log} ends with: {last_line(folder.log)}"
            )
        time.sleep(_POLL_SECONDS)


def _condition(status: dict[str, Any], kind: str = "Ready") -> dict[str, Any]:
    for condition in status.get("conditions", []):
        if condition["type"] == kind:
            found: dict[str, Any] = condition
            return found
    return {}
