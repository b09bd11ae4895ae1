"""Starts the processes of pods and of the gateway."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def start(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process whose output is appended to a log.

    Nothing of ours may run between fork and exec, as it does to tie a child to its parent in what is shipped: in a test
    process that has TensorFlow's threads the child would crash there.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=env, cwd="/")
