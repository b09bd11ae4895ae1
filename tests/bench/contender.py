"""A program of the data benches in a process of its own: its seconds, and the memory of its whole tree."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Measured:
    """Wall-clock seconds, and the most memory (resident, MB) that the process and its children held at one time."""

    seconds: float
    memory: float


def measured(program: str, *arguments: str | Path) -> Measured:
    """Run a Python program and measure it, its start included.

    Raises:
        RuntimeError: it failed.
    """
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        most = 0.0
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            most = max(most, _resident(watched))
            time.sleep(0.05)
        seconds = time.monotonic() - began
        if process.returncode != 0:
            assert process.stderr is not None
            raise RuntimeError(process.stderr.read()[-2_000:])
    return Measured(seconds, most)


def _resident(process: psutil.Process) -> float:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total / 1e6
