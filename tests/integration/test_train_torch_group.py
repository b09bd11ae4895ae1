"""Several processes train one network as one process would."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from components.train.checkpoints import FILE, StoredCheckpoints
from components.train.contract import Data, Run
from components.train.interrupt import Interrupted
from components.train.torch.trainer import TRAINER
from tests.feature_sets import feature_set, mixed_frame

CHOSEN = {"epochs": 3, "batch_size": 100, "width": 16, "dropout": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Data.read(feature_set(tmp_path_factory.mktemp("f") / "features", mixed_frame(505), "binary"))


@pytest.fixture(scope="module")
def alone(data):
    return fit(data)


def fit(data, **around):
    told = []
    run = Run(5, "cpu", listeners=(lambda _number, metrics: told.append(dict(metrics)),), **around)
    fitted = TRAINER.fit(data, TRAINER.parameters("binary") | CHOSEN, run)
    return told, fitted.predict(data.valid.inputs)


def test_two_processes_have_the_losses_and_the_model_of_one(data, alone, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_TRAIN_PROCESSES", "2")
    said = []
    told, predicted = fit(data, say=said.append)
    assert "2 processes train together." in said
    assert len(told) == len(alone[0]) == 3
    for ours, theirs in zip(told, alone[0], strict=True):
        for name in ("train_loss", "valid_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
    assert np.abs(predicted - alone[1]).max() < 1e-4


def test_a_group_that_is_stopped_leaves_no_process_and_goes_on_alone(data, alone, monkeypatch, tmp_path):
    monkeypatch.setenv("SLUICEWAY_TRAIN_PROCESSES", "2")
    kept = StoredCheckpoints(str(tmp_path), "a")
    run = Run(5, "cpu", kept)
    run.listeners = (lambda number, _metrics: os.kill(os.getpid(), signal.SIGTERM) if number == 2 else None,)
    with run.interrupt.listening(), pytest.raises(Interrupted, match="epoch 3, batch 0"):
        TRAINER.fit(data, TRAINER.parameters("binary") | CHOSEN, run)
    assert (tmp_path / FILE).exists()
    assert not [child for child in psutil.Process().children() if "components.train.torch.worker" in child.cmdline()]
    monkeypatch.delenv("SLUICEWAY_TRAIN_PROCESSES")
    told, predicted = fit(data, checkpoints=StoredCheckpoints(str(tmp_path), "a"))
    assert len(told) == 3
    assert np.abs(predicted - alone[1]).max() < 1e-4


def test_a_group_that_torchrun_or_a_trainjob_started_is_joined(data, alone, monkeypatch, tmp_path):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from components.train.contract import Data, Run\n"
        "from components.train.torch.trainer import TRAINER\n"
        "run = Run(5, 'cpu', listeners=(lambda *_: sys.exit('only rank 0 tells'),))\n"
        f"chosen = TRAINER.parameters('binary') | {CHOSEN}\n"
        "TRAINER.fit(Data.read(Path(sys.argv[1])), chosen, run)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    around = (
        os.environ | group | {"RANK": "1", "LOCAL_RANK": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    )
    with subprocess.Popen([sys.executable, "-c", script, str(data.folder)], env=around) as other:
        for name, value in (group | {"RANK": "0", "LOCAL_RANK": "0"}).items():
            monkeypatch.setenv(name, value)
        told, predicted = fit(data)
        assert other.wait(60) == 0
    assert [metrics["train_loss"] for metrics in told] == pytest.approx(
        [metrics["train_loss"] for metrics in alone[0]], rel=1e-4
    )
    assert np.abs(predicted - alone[1]).max() < 1e-4


def test_a_worker_ends_when_the_process_that_started_it_is_gone(data, tmp_path):
    settings = TRAINER.parameters("binary") | CHOSEN
    work = {"features": str(data.folder), "settings": settings, "seed": 5, "device": "cpu", "rank": 1, "size": 2}
    around = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "components.train.torch.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=around) as worker:
        worker.stdin.write(json.dumps(work | {"store": (tmp_path / "store").as_uri(), "ready": str(tmp_path)}) + "\n")
        worker.stdin.flush()
        while not (tmp_path / "store").exists() and worker.poll() is None:
            time.sleep(0.02)
        assert worker.poll() is None  # it waits for rank 0
        worker.stdin.close()  # as the kernel does when that is killed
        assert worker.wait(20) == 1


def test_a_worker_that_cannot_start_is_said_at_once(data, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_TRAIN_PROCESSES", "2")
    monkeypatch.setattr("components.train.torch.distributed.sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="The training process 1 ended with 1"):
        fit(data)
