"""Epochs until the valid loss no longer falls; saved on the way, and gone on with where a killed attempt was."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.errors import BadInput
from components.train.checkpoints import State
from components.train.contract import Run
from components.train.interrupt import Interrupted
from components.train.keras.encoding import Table
from components.train.keras.learner import Learner
from components.train.keras.settings import Settings
from components.train.keras.sources import Source

_CALL_SECONDS = 0.5  # steps that run in one call are as many as take about this long: an interrupt waits no longer
_SAVING_SHARE = 0.1  # of the time, at most, that goes into checkpoints
_SAVED_WITHIN = 60.0  # seconds, in the middle of an epoch
_AHEAD = 4  # batches' worth of rows that are measured at once: without gradients they take no more memory


@dataclass
class Progress:
    """Where a training is.

    Attributes:
        batch: rows per step.
        epoch: how many have ended.
        done: rows of the next that are done.
        totals: sum of weighted losses and of weights over those rows.
        best: lowest valid loss so far.
        best_epoch: when it was.
        history: of each epoch that ended, its metrics by name.
    """

    batch: int
    epoch: int = 0
    done: int = 0
    totals: tuple[float, float] = (0.0, 0.0)
    best: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Loop:
    """A training from its first epoch, or its last checkpoint, to its best weights."""

    def __init__(self, learner: Learner, source: Source, valid: Table, settings: Settings, run: Run) -> None:
        """Nothing is trained yet.

        Args:
            learner: the network.
            source: the rows to learn from.
            valid: the rows that decide when to stop.
            settings: how long, and how many rows per step to begin with.
            run: whom to tell, and where to save.
        """
        self._learner, self._source, self._valid, self._run = learner, source, valid, run
        self._settings = settings
        self.progress = Progress(settings.batch(source.rows))
        self._best: list[NDArray[Any]] = learner.weights()
        self._steps = 1
        self._saved_at, self._saving = -math.inf, 0.0
        self._usage: Callable[[], dict[str, float]] = dict
        self._last = self._state()

    def train(self, usage: Callable[[], dict[str, float]] = dict) -> list[NDArray[Any]]:
        """Train to the end.

        Args:
            usage: what the devices did since it was last asked, told with each epoch.

        Returns:
            The weights of the epoch with the lowest valid loss.

        Raises:
            BadInput: a loss is not a number, one row does not fit on the device, or the checkpoint is of another model.
            Interrupted: SIGTERM came; the state is saved.
        """
        self._usage = usage
        self._resume()
        while self.progress.epoch < self._settings.epochs and not self._stale():
            try:
                self._epoch()
            except tf.errors.ResourceExhaustedError as error:
                self._halve(error)
        return self._best

    def _stale(self) -> bool:
        return self.progress.epoch - self.progress.best_epoch >= self._settings.patience and self.progress.epoch > 0

    def _epoch(self) -> None:
        now = self.progress
        number, rate = now.epoch + 1, self._settings.learning_rate
        totals = np.array(now.totals)
        epoch = self._source.epoch(self._learner, number, now.done, now.batch)
        while now.done < self._source.rows:
            began, steps = time.monotonic(), self._steps
            totals = epoch.advance(steps, totals)
            self._pace(time.monotonic() - began)
            if not np.isfinite(totals).all():
                self._run.epoch(number, {"train_loss": float(totals[0])}, rate)
            now.done = min(self._source.rows, now.done + steps * now.batch)
            now.totals = (float(totals[0]), float(totals[1]))
            self._between(number)
        valid = self._learner.measure(self._valid, now.batch * _AHEAD)
        losses = {"train_loss": now.totals[0] / now.totals[1], "valid_loss": valid}
        self._end(number, losses | self._usage(), rate)

    def _end(self, number: int, metrics: dict[str, float], rate: float) -> None:
        now = self.progress
        self._run.epoch(number, metrics, rate)
        now.history.append(metrics)
        now.epoch, now.done, now.totals = number, 0, (0.0, 0.0)
        if metrics["valid_loss"] < now.best:
            now.best, now.best_epoch = metrics["valid_loss"], number
            self._best = self._learner.weights()
        if time.monotonic() - self._saved_at >= self._saving / _SAVING_SHARE:
            self._save()

    def _between(self, number: int) -> None:
        """What happens between two calls: stop where that is asked, save where the last time is long ago."""
        if self._run.interrupt:
            self._save()
            raise Interrupted(
                f"Training was told to stop in epoch {number}: its state is saved, and the same call goes on."
            )
        if time.monotonic() - self._saved_at >= max(_SAVED_WITHIN, self._saving / _SAVING_SHARE):
            self._save()

    def _pace(self, seconds: float) -> None:
        if seconds < _CALL_SECONDS / 2:
            self._steps *= 2
        elif seconds > _CALL_SECONDS * 2:
            self._steps = max(1, self._steps // 2)

    def _halve(self, error: tf.errors.ResourceExhaustedError) -> None:
        """Go back to the last state with half the batch."""
        batch = self.progress.batch
        if batch == 1:
            raise BadInput(
                "Not even one row at a time fits on the device: choose a smaller width, or device cpu."
            ) from error
        self._run.say(f"A batch of {batch:,} rows does not fit on the device: going on with {batch // 2:,}.")
        self._go_back(self._last)
        self.progress.batch = batch // 2

    def _state(self) -> State:
        now = self.progress
        best = {f"best/{index:04}": value for index, value in enumerate(self._best)}
        return State({**self._learner.state(), **best}, {**vars(now), "history": list(now.history)})

    def _save(self) -> None:
        began = time.monotonic()
        self._last = self._state()
        self._run.checkpoints.save(self._last)
        self._saved_at = time.monotonic()
        self._saving = self._saved_at - began

    def _resume(self) -> None:
        found = self._run.checkpoints.load()
        if found is None:
            return
        self._go_back(found)
        self._last = found
        now = self.progress
        self._run.say(f"Going on from the checkpoint: {now.epoch} epochs and {now.done:,} rows of the next are done.")
        for number, metrics in enumerate(now.history, 1):
            self._run.epoch(number, metrics, self._settings.learning_rate)

    def _go_back(self, state: State) -> None:
        self._learner.restore(dict(state.arrays))
        self._best = [state.arrays[name] for name in sorted(state.arrays) if name.startswith("best/")]
        facts = dict(state.facts)
        self.progress = Progress(
            **{**facts, "totals": tuple(facts["totals"]), "history": [dict(one) for one in facts["history"]]}
        )
