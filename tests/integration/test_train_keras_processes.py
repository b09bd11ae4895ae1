"""Keras trainings in processes of their own: killed at random moments, and on two devices."""

import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.train.checkpoints import FILE, NoCheckpoints, State, StoredCheckpoints
from components.train.contract import Data, Run
from components.train.interrupt import Interrupted
from tests.feature_sets import feature_set, mixed_frame

EPOCHS = 100


@pytest.fixture(scope="module")
def processes():
    """Starts a function in a fresh process that has TensorFlow imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["components.train.keras.fit", "tests.feature_sets"])

    def start(target, *given) -> BaseProcess:
        process = context.Process(target=target, args=given, daemon=True)
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return feature_set(tmp_path_factory.mktemp("keras") / "features", mixed_frame(300), "binary")


def train(features: Path, kept: Path, result: Path) -> None:
    """A training as the step does it; writes its predictions when it ends."""
    from components.train.keras.trainer import TRAINER

    data = Data.read(features)
    own = {"epochs": EPOCHS, "patience": EPOCHS, "width": 8, "blocks": 1, "dropout": 0.2, "batch_size": 16}
    run = Run(7, "cpu", StoredCheckpoints(str(kept), "one"))
    try:
        with run.interrupt.listening():
            fitted = TRAINER.fit(data, TRAINER.parameters("binary") | own, run)
    except Interrupted as error:
        sys.exit(error.exit_code)
    np.save(result, fitted.predict(data.valid.inputs))


def test_killed_at_random_moments_it_ends_bit_equal_with_an_undisturbed_run(tmp_path, features, processes):
    undisturbed = processes(train, features, tmp_path / "a", tmp_path / "a.npy")
    undisturbed.join(120)
    assert undisturbed.exitcode == 0
    seed = random.randrange(10**6)
    moments, positions = random.Random(seed), []
    for signal_number in (signal.SIGKILL, signal.SIGTERM):
        process = processes(train, features, tmp_path / "b", tmp_path / "b.npy")
        saved = wait_for_a_save(tmp_path / "b", process)
        time.sleep(moments.uniform(0, 0.1))
        assert process.pid is not None
        os.kill(process.pid, signal_number)
        process.join(60)
        assert process.exitcode in (-signal.SIGKILL, 143), f"ended before it was killed (seed {seed})"
        positions.append(saved)
    last = processes(train, features, tmp_path / "b", tmp_path / "b.npy")
    last.join(120)
    assert last.exitcode == 0
    assert (np.load(tmp_path / "b.npy") == np.load(tmp_path / "a.npy")).all(), f"seed {seed}, from {positions}"


def wait_for_a_save(kept: Path, process: BaseProcess) -> tuple[Any, ...]:
    """Until the process has saved its state once more; gives the position that it saved."""
    before = (kept / FILE).stat().st_mtime_ns if (kept / FILE).exists() else 0
    until = time.monotonic() + 60
    while time.monotonic() < until and process.is_alive():
        if (kept / FILE).exists() and (kept / FILE).stat().st_mtime_ns > before:
            state = StoredCheckpoints(str(kept), "one").load()
            assert state is not None
            return state.facts["epoch"], state.facts["done"]
        time.sleep(0.002)
    raise AssertionError("no state was saved")


class FirstState(NoCheckpoints):
    """Keeps what the optimiser knew after the first epoch: the sizes of the gradients, which no loss shows."""

    moments: np.ndarray

    def save(self, state: State) -> None:
        if not hasattr(self, "moments"):
            known = [value.ravel() for name, value in sorted(state.arrays.items()) if name.startswith("optimizer/")]
            self.moments = np.concatenate(known).astype("float64")


def on_devices(features: Path, result: Path) -> None:
    """The losses on one device and on two, and on two in half precision."""
    import tensorflow as tf

    from components.train.keras.device import Device
    from components.train.keras.fit import fit
    from components.train.keras.settings import Settings

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    tf.config.experimental.enable_op_determinism()
    data = Data.read(features)
    batch = len(data.train.target) - 1  # the last batch is one row: a device gets none
    settings = Settings(epochs=3, width=8, blocks=1, dropout=0, batch_size=batch, learning_rate=0.01)
    losses, moments = [], []
    for names, precision in ((("CPU:0",), "fp32"), (("CPU:0", "CPU:1"), "fp32"), (("CPU:0", "CPU:1"), "fp16")):
        told: list[tuple[float, float]] = []

        def listen(_number: int, metrics: Any, told: list[tuple[float, float]] = told) -> None:
            told.append((metrics["train_loss"], metrics["valid_loss"]))

        kept = FirstState()
        fit(data, settings, Run(0, checkpoints=kept, listeners=(listen,)), Device(names, precision, 10**9, "Two;"))
        losses.append(told)
        moments.append(kept.moments)
    np.savez(result, losses=np.array(losses), moments=np.array(moments))


def test_two_devices_learn_what_one_learns(tmp_path, features, processes):
    process = processes(on_devices, features, tmp_path / "found.npz")
    process.join(120)
    assert process.exitcode == 0
    found = np.load(tmp_path / "found.npz")
    one, two, half = found["losses"]
    assert one[-1, 0] < one[0, 0] - 0.005  # something was learnt
    assert two == pytest.approx(one, rel=1e-5)
    assert half == pytest.approx(one, rel=1e-2)
    one, two, half = found["moments"]
    assert two == pytest.approx(one, rel=1e-3, abs=1e-7)
    assert half == pytest.approx(one, rel=0.1, abs=1e-3)
