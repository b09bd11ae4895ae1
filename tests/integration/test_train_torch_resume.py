"""A torch training that is killed, reclaimed or out of disk goes on and ends as if nothing had happened."""

import contextlib
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from components.errors import BadInput, SluicewayError
from components.train.checkpoints import FILE, State, StoredCheckpoints
from components.train.contract import Data, Run
from components.train.torch import learner, loop
from components.train.torch.trainer import TRAINER
from tests.feature_sets import feature_set, mixed_frame

EPOCHS, PARAMETERS = 5, {"epochs": 5, "batch_size": 64, "width": 16}
FRESH = multiprocessing.get_context("forkserver")  # children come of a process that has imported torch already
FRESH.set_forkserver_preload([__name__, "components.train.torch.fit", "components.evaluate.metrics"])


def fit(features: Path, home: Path, pause: float, largest_file: int) -> None:
    """What a child does: save after every batch, and write down what was said and what came out."""
    sys.stdout = sys.stderr = (home / "log").open("a", buffering=1)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    loop.SAVE_SECONDS = loop.EPOCH_SECONDS = 0.0
    plain = learner.Learner.step

    def step(self, *args):
        time.sleep(pause)
        plain(self, *args)

    learner.Learner.step = step
    data = Data.read(features)
    run = Run(3, "cpu", StoredCheckpoints(str(home / "kept"), "a"), say=print)
    run.listeners = (lambda number, _metrics: print("epoch", number),)
    try:
        with run.interrupt.listening():
            fitted = TRAINER.fit(data, TRAINER.parameters("binary") | PARAMETERS, run)
    except SluicewayError as error:
        print(error)
        sys.exit(error.exit_code)
    np.save(home / "predictions.npy", fitted.predict(data.valid.inputs))


class Attempts:
    """Attempts at one training."""

    def __init__(self, features: Path, home: Path) -> None:
        self.features, self.home = features, home
        self.checkpoint = home / "kept" / FILE

    def start(self, pause: float = 0.0, largest_file: int = 0):
        """Start one; returns once it has saved something, or ended."""
        (self.home / "log").write_text("")
        process = FRESH.Process(target=fit, args=(self.features, self.home, pause, largest_file))
        process.start()
        while not self.checkpoint.exists() and process.is_alive():
            time.sleep(0.01)
        return process

    def finish(self) -> np.ndarray:
        process = self.start()
        process.join(120)
        assert process.exitcode == 0, self.said()
        return np.load(self.home / "predictions.npy")

    def said(self) -> str:
        return (self.home / "log").read_text()


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return feature_set(tmp_path_factory.mktemp("f") / "features", mixed_frame(700), "binary")


@pytest.fixture
def attempts(features, tmp_path):
    return Attempts(features, tmp_path)


@pytest.fixture(scope="module")
def uninterrupted(features, tmp_path_factory) -> np.ndarray:
    return Attempts(features, tmp_path_factory.mktemp("whole")).finish()


def test_killed_at_random_moments_it_ends_with_the_same_predictions_to_the_bit(attempts, uninterrupted):
    moments = random.Random(time.time_ns())
    for _ in range(4):
        process = attempts.start(pause=0.02)
        time.sleep(moments.uniform(0.0, 0.6))
        process.kill()
        process.join()
    assert attempts.checkpoint.exists()
    assert (attempts.finish() == uninterrupted).all()
    assert "Going on from the checkpoint: epoch" in attempts.said()
    told = [line for line in attempts.said().splitlines() if line.startswith("epoch")]
    assert told == [f"epoch {number}" for number in range(1, EPOCHS + 1)]  # those of the earlier attempts again


def test_sigterm_within_an_epoch_saves_in_time_and_exits_with_143(attempts, uninterrupted):
    process = attempts.start(pause=0.2)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert time.monotonic() - began < 3
    assert process.exitcode == 143
    assert "Training was stopped by SIGTERM in epoch 1, batch" in attempts.said()
    assert "the state is saved: run again" in attempts.said()
    assert (attempts.finish() == uninterrupted).all()
    assert "Going on from the checkpoint: epoch 1, batch" in attempts.said()


def test_a_disk_that_fills_up_stops_it_with_the_last_state_whole(attempts, uninterrupted):
    process = attempts.start(pause=0.3)
    process.kill()
    process.join()
    process = attempts.start(largest_file=attempts.checkpoint.stat().st_size)  # the best weights come on top of it
    process.join(60)
    assert process.exitcode == 1
    assert f"No space left while writing {attempts.checkpoint}" in attempts.said()
    assert os.listdir(attempts.checkpoint.parent) == [FILE]
    assert StoredCheckpoints(str(attempts.checkpoint.parent), "a").load().facts["epoch"] == 0
    assert (attempts.finish() == uninterrupted).all()


def test_a_checkpoint_of_another_model_is_refused(features, tmp_path):
    StoredCheckpoints(str(tmp_path), "another").save(State({"w": np.zeros(2)}, {}))
    run = Run(0, "cpu", StoredCheckpoints(str(tmp_path), "this one"))
    with pytest.raises(BadInput, match="is of another model"):
        TRAINER.fit(Data.read(features), TRAINER.parameters("binary"), run)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_killed_after_the_last_epoch_it_trains_no_further(features, tmp_path, uninterrupted):
    data = Data.read(features)
    for expected in (uninterrupted, uninterrupted):
        told = []
        run = Run(3, "cpu", StoredCheckpoints(str(tmp_path), "a"), listeners=(lambda n, _m: told.append(n),))  # noqa: B023
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "EPOCH_SECONDS", 0.0)
            if (tmp_path / FILE).exists():
                patch.setattr(learner.Learner, "step", None)
            fitted = TRAINER.fit(data, TRAINER.parameters("binary") | PARAMETERS, run)
        assert told == list(range(1, EPOCHS + 1))
        assert (fitted.predict(data.valid.inputs) == expected).all()


@pytest.fixture(scope="module", autouse=True)
def _server_ends():
    yield
    from multiprocessing import forkserver

    with contextlib.suppress(AttributeError):
        forkserver._forkserver._stop()
