"""The model server process of one revision: start, readiness, crash, restart."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from serving.faults import VARIABLE as FAULTS
from serving.local import loopback
from serving.local.document import bundle_folder
from serving.local.folder import last_line
from serving.local.processes import free_port, spawn
from serving.server import PORT_TAKEN

log = logging.getLogger("sluiceway.supervisor")

ATTEMPTS = 3
"""Starts of a server that was never ready, before it is left alone until another document comes."""
_LONGEST_BACKOFF = 30.0
_PROBE_SECONDS = 0.5
PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])


class Server:
    """One revision's server; call :meth:`tick` often."""

    def __init__(self, service: str, revision: str, predictor: dict[str, Any], log_file: Path) -> None:
        """Describe the server; the first tick starts it."""
        self.revision = revision
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self.was_ready = False
        self.restarts = 0
        self.failure = ""
        self.storage_uri: str = predictor["model"]["storageUri"]
        self._service = service
        self._env = {entry["name"]: str(entry.get("value", "")) for entry in predictor["model"].get("env", [])}
        self._log_file = log_file
        self._log_size = 0
        self._starts = 0
        self._crashes_in_a_row = 0
        self._ready_at = 0.0
        self._next_start = 0.0

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def given_up(self) -> bool:
        """Whether it failed so often before it was ever ready that it is not started again."""
        return not self.was_ready and bool(self.failure) and self._starts >= ATTEMPTS

    def tick(self) -> None:
        """Start the process if it is due, notice its end, ask whether it is ready."""
        if self.process is None:
            if time.monotonic() >= self._next_start and not self.given_up:
                self._start()
        elif self.process.poll() is not None:
            self._ended(self.process.returncode)
        elif not self.ready:
            self._probe()

    def try_again(self) -> None:
        """Forget failures: the document was applied again."""
        if not self.was_ready:
            self.failure = ""
            self._starts = 0
            self._next_start = 0.0

    def _start(self) -> None:
        command = [sys.executable, "-m", "serving.server", "--bundle", str(bundle_folder(self.storage_uri))]
        command += ["--name", self._service, "--revision", self.revision, "--port", str(self.port)]
        env = {name: value for name, value in os.environ.items() if name != FAULTS}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (PACKAGE_ROOT, env.get("PYTHONPATH"))))
        env["PYTHONUNBUFFERED"] = "1"
        env.setdefault("OMP_NUM_THREADS", "1")  # many small requests: threads within one only cost
        self._log_size = self._log_file.stat().st_size if self._log_file.exists() else 0
        self.process = spawn(command, self._log_file, {**env, **self._env})
        self._starts += 1
        log.info("started %s as process %d on port %d", self.revision, self.process.pid, self.port)

    def _ended(self, code: int) -> None:
        said = last_line(self._log_file, self._log_size)
        if self.ready and time.monotonic() - self._ready_at > _LONGEST_BACKOFF:
            self._crashes_in_a_row = 0
        self.process = None
        self.ready = False
        if code == PORT_TAKEN and not self.was_ready:
            self._starts -= 1
        if code == PORT_TAKEN:
            self.port = free_port()
            return
        how = f"ended by signal {-code}" if code < 0 else f"exited with code {code}"
        self.failure = f"The server of {self.revision} {how}: {said or 'it said nothing'}"
        if self.was_ready:
            self.restarts += 1
        self._next_start = time.monotonic() + min(_LONGEST_BACKOFF, 2.0**self._crashes_in_a_row - 1)
        self._crashes_in_a_row += 1
        log.warning("%s", self.failure)

    def _probe(self) -> None:
        try:
            status, _ = loopback.get(self.port, f"/v2/models/{self._service}/ready", _PROBE_SECONDS)
        except OSError:
            return
        if status == 200:
            log.info("%s is ready", self.revision)
            self.ready = self.was_ready = True
            self.failure = ""
            self._ready_at = time.monotonic()
