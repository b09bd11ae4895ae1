"""Runs the CLI as a person or a script would, each time in a home of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from pipelines import services

CLI = [sys.executable, "-m", "pipelines.cli"]
QUICK = {"plan": '{"min_requests": 50, "steps": [50, 100]}', "load": '{"seconds": 0.5}'}


@dataclass(frozen=True)
class Ended:
    """How a command ended; ``result`` is the JSON object that a run ends with."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])


@dataclass(frozen=True)
class Road:
    """One home, and the commands that work on it."""

    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICEWAY_", "MLFLOW_"))}
        return {**kept, "SLUICEWAY_HOME": str(self.home), "COLUMNS": "200", **more}

    def command(self, *arguments: str, **environment: str) -> Ended:
        ended = subprocess.run(
            [*CLI, *arguments],
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
            env=self.environment(**environment),
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def run(self, parameters: dict[str, str] | None = None, *flags: str, **environment: str) -> Ended:
        return self.command(*self.arguments(parameters or {}, *flags), **environment)

    def start(self, parameters: dict[str, str], *flags: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*CLI, *self.arguments(parameters, *flags)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment(),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job is started deaf to it
        )

    @staticmethod
    def arguments(parameters: dict[str, str], *flags: str) -> list[str]:
        pairs = [f"--set={name}={value}" for name, value in {**QUICK, **parameters}.items()]
        return ["run", "train-and-deploy", "--json", *flags, *pairs]

    def status(self) -> list[dict[str, Any]]:
        """What `sluiceway status` shows, without a process of its own for each look."""
        return services.services(self.home, repair=False)

    def versions(self, model: str) -> list[Any]:
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.home / 'mlflow.db'}")
        return sorted(client.search_model_versions(f"name = '{model}'"), key=lambda version: int(version.version))

    def champion(self, model: str) -> str:
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.home / 'mlflow.db'}")
        return str(client.get_registered_model(model).aliases["champion"])

    def answers(self, model: str, instance: dict[str, Any]) -> int:
        (service,) = [s for s in self.status() if s["name"] == model]
        url = f"{service['url']}/v1/models/{model}:predict"
        return httpx.post(url, json={"instances": [instance]}, trust_env=False).status_code

    def steps_alive(self) -> list[psutil.Process]:
        """Processes of pipeline runs in this home; the service's own are not among them."""
        return [p for p in self.processes() if "SLUICEWAY_RUN_ID" in p.environ() and _is_step(p)]

    def processes(self) -> list[psutil.Process]:
        """Every process that works in this home."""
        return [p for p in psutil.process_iter() if _home_of(p) == str(self.home)]


def _is_step(process: psutil.Process) -> bool:
    line = " ".join(process.cmdline())
    return "kfp.dsl.executor_main" in line or "pipelines.local_run" in line


def _home_of(process: psutil.Process) -> str:
    try:
        return str(process.environ().get("SLUICEWAY_HOME", ""))
    except psutil.Error:
        return ""
