"""Runs a compiled package on this machine and follows it."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from components import naming
from components.errors import Busy, SluicewayError
from components.files import is_full, write_json
from components.rollout.stores.files import locked
from components.settings import Settings, settings
from pipelines import packages
from pipelines.follow import Follower
from pipelines.record import RunRecord, State, StepRecord, read_outputs
from serving.signing import SIGNING_KEY, VERIFY_KEY, named_by

Watch = Callable[[RunRecord], None]


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        pipeline: its name.
        given: parameters as text, by name.
        package: a compiled package to run as it is; None compiles one.
        cache: whether steps whose inputs have not changed keep their outputs.
    """

    pipeline: str
    given: dict[str, str]
    package: Path | None = None
    cache: bool = True


def run(request: Request, watch: Watch) -> RunRecord:
    """Run a package to its end and leave the service on a good release, whatever happens.

    Args:
        request: what to run.
        watch: called with the record after each change.

    Returns:
        The record with every step's outputs; a failed step is in it, not raised.

    Raises:
        BadInput: an unknown pipeline or parameter.
        Busy: another run works on the same service.
    """
    current = settings()
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = current.home / "runs" / run_id
    folder.mkdir(parents=True)
    try:
        record = _prepare(request, run_id, folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    holder = f"run {run_id}, process {os.getpid()}, since {time.strftime('%H:%M:%S')}"
    with ExitStack() as ownership:
        try:
            lock = current.home / "locks" / f"{record.service}.run"
            ownership.enter_context(locked(lock, holder, f"service {record.service}"))
        except Busy:
            shutil.rmtree(folder)
            raise
        settle(record)
        _execute(record, current, request.cache, watch)
    return record


def _prepare(request: Request, run_id: str, folder: Path) -> RunRecord:
    """Compile the package and read the parameters: what can be wrong before anything is started."""
    package = folder / "package.yaml"
    if request.package is None:
        packages.compile_package(request.pipeline, package)
    else:
        package.write_bytes(request.package.read_bytes())
    known = packages.parameters(package)
    values = packages.read_values(request.given, known)
    write_json(folder / "parameters.json", values)
    full = {name: values.get(name, parameter.default) for name, parameter in known.items()}
    deploys = "model_name" in known
    service = naming.model_name(full["model_name"], full.get("source_uri", "")) if deploys else request.pipeline
    steps = {name: StepRecord(name) for name in packages.entry(request.pipeline).steps}
    return RunRecord(run_id, folder, service, full, steps, time.time())


def settle(record: RunRecord) -> str:
    """Finish what a killed run of the same service left behind on this machine."""
    from components.rollout.deployment import parse_deployment
    from components.rollout.place import on_this_machine, place_for, store_for
    from components.rollout.settle import settle as finish

    deployment = parse_deployment(record.parameters.get("deployment") or {})
    if not on_this_machine(deployment):
        return "on a cluster the run's own exit handler settles it"
    return finish(lambda: place_for(deployment, None, record.service), store_for(deployment, record.service)).said


def _execute(record: RunRecord, current: Settings, cache: bool, watch: Watch) -> None:
    follower = Follower(record)
    cache_folder = current.home / "cache"
    command = [
        *(sys.executable, "-m", "pipelines.local_run", str(record.folder / "package.yaml")),
        *(str(record.folder / "parameters.json"), "--root", str(record.folder / "artifacts")),
        *("--parent", str(os.getpid())),
        *(("--cache", str(cache_folder)) if cache else ()),
    ]
    with (
        (record.folder / "kfp.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment(record, current),
            start_new_session=True,
        ) as child,
    ):
        assert child.stdout is not None
        try:
            for line in child.stdout:
                _keep(log, line)
                if follower.line(line):
                    watch(record)
                if follower.in_vain:
                    _end(child)
                    break
            code = child.wait()
        except BaseException:
            _end(child)
            settle(record)
            raise
    record.seconds = time.time() - record.began
    read_outputs(record, cache_folder, follower.cache_keys)
    if code and record.failed() is None:
        _blame(record, code)
    if code:
        settle(record)
    watch(record)


def _keep(log: IO[str], line: str) -> None:
    """Log a line; on a full disk the run goes on without its log, so that the step can say what is wrong."""
    try:
        log.write(line)
        log.flush()
    except OSError as error:
        if not is_full(error):
            raise


def _end(child: subprocess.Popen[str]) -> None:
    """Kill the run's process group and wait until none of it is left."""
    group = child.pid
    try:
        while True:
            os.killpg(group, signal.SIGKILL)
            child.wait()
            time.sleep(0.02)
    except ProcessLookupError:
        return


def _blame(record: RunRecord, code: int) -> None:
    """Name the step that ended without a word: killed, or out of memory."""
    running = [step for step in record.steps.values() if step.state is State.RUNNING]
    step = running[-1] if running else record.step("run")
    step.state, step.error_kind = State.FAILED, "Ended"
    step.error = (
        f"The {step.name} step ended without a word (exit code {code}); its log is {record.folder / 'kfp.log'}."
    )


def _environment(record: RunRecord, current: Settings) -> dict[str, str]:
    """The steps' environment; keys by their whole path, since model servers run in folders of their own.

    Raises:
        BadInput: a variable names a key that is not there.
    """
    keys = {name: named_by(name) for name in (SIGNING_KEY, VERIFY_KEY)}
    return {
        **os.environ,
        **{name: str(key.absolute()) for name, key in keys.items() if key is not None},
        "SLUICEWAY_HOME": str(current.home),
        "SLUICEWAY_RUN_ID": record.run_id,
        "SLUICEWAY_PACKAGE_DIGEST": packages.digest(record.folder / "package.yaml"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
    }


def failure(record: RunRecord) -> SluicewayError | None:
    """The run's failure as an error whose exit code the CLI ends with."""
    step = record.failed()
    if step is None:
        return None
    error = SluicewayError(f"{step.name}: {step.error}")
    error.exit_code = step.exit_code
    return error


def outputs_json(path: Path | None) -> dict[str, Any]:
    """Read a JSON artifact; empty when the step did not make it."""
    if path is None or not path.exists():
        return {}
    return dict(json.loads(path.read_text(encoding="utf-8")))
