"""A real model server for tests, as a process."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from serving.local.processes import free_port
from tests.prometheus import eventually

ROOT = Path(__file__).resolve().parents[1]
ROW = {
    "mean_radius": 14.2,
    "mean_texture": None,
    "mean_smoothness": 0.1,
    "mean_concavity": 0.08,
    "size": "large",
    "rough": True,
}


class Server:
    """A real model server of one revision."""

    def __init__(self, bundle, revision, log, faults="", options=()):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "serving.server", "--bundle", str(bundle), "--name", "ours"]
        self._command += ["--revision", revision, "--port", str(self.port), *options]
        self._env = {**os.environ, "SLUICEWAY_FAULTS": faults} if faults else dict(os.environ)
        self._log = log
        self._process = None

    @property
    def process(self):
        return self._process

    def start(self):
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=ROOT, env=self._env)

    def wait(self):
        def ready():
            assert self._process.poll() is None, self._log.read_text()
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://{self.address}/v2/models/ours/ready").status_code == 200

        eventually(ready, 60)

    def send(self, count, body=None):
        """Predict; gives how often each status code was answered."""
        body = body or {"instances": [ROW]}
        with httpx.Client(base_url=f"http://{self.address}") as client:
            codes = [client.post("/v1/models/ours:predict", json=body).status_code for _ in range(count)]
        return {code: codes.count(code) for code in codes}

    def kill(self):
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
