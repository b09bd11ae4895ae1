"""Child processes that end with their parent, and free ports."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from components.files import write_json
from serving.local.folder import read_json

HOST = "127.0.0.1"
_PR_SET_PDEATHSIG = 1


def spawn(command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a child whose output is appended to a log, and which the kernel kills when this process dies.

    Call it from the main thread: Linux sends the signal when the *thread* that forked ends. Elsewhere than on Linux
    the child may outlive a killed parent, until :func:`kill_leftovers`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=env,
            cwd="/",
            preexec_fn=_die_with(os.getpid()),
        )


def _die_with(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def set_up() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return set_up


def free_port() -> int:
    """A port of the loopback address that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether the port can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def end(processes: Iterable[subprocess.Popen[bytes]], grace_s: float) -> None:
    """SIGTERM all of them, and SIGKILL those that are still there after the grace period."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + grace_s
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def record(path: Path, pids: Iterable[int]) -> None:
    """Remember processes by id and start time, since ids are used again."""
    entries: list[dict[str, Any]] = []
    for pid in pids:
        try:
            entries.append({"pid": pid, "started": psutil.Process(pid).create_time()})
        except psutil.NoSuchProcess:
            continue
    write_json(path, entries)


def kill_leftovers(path: Path) -> list[int]:
    """Kill the recorded processes that still run, and wait until they are gone; gives their ids."""
    leftovers = []
    for entry in read_json(path, []):
        try:
            process = psutil.Process(entry["pid"])
            if abs(process.create_time() - entry["started"]) < 0.05 and process.status() != psutil.STATUS_ZOMBIE:
                process.kill()
                leftovers.append(process)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(leftovers, timeout=10)
    return [process.pid for process in leftovers]


def is_running(pid: int) -> bool:
    """Whether a process runs; one that ended but was not waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
