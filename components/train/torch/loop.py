"""The epochs of a fit: steps, measurements, early stopping, and the state that is saved on the way."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluate.metrics import PRIMARY, measure
from components.features.schema import Task
from components.train import devices
from components.train.checkpoints import NoCheckpoints, State
from components.train.contract import Run
from components.train.devices import Sampler
from components.train.interrupt import Interrupted
from components.train.torch.learner import Learner, rate
from components.train.torch.settings import Settings
from components.train.torch.table import Rows, Source, mixed

SAVE_SECONDS = 15.0
"""Within an epoch, the state is saved about so often."""
EPOCH_SECONDS = 2.0
"""At the end of an epoch, it is saved unless that was done less than so long ago: an object store takes one write of a
name per second."""


@dataclass
class Position:
    """How far a fit has come.

    Attributes:
        epoch: which one is under way, from 0.
        step: how many batches of it are done.
        order: in which order they came.
        best: the least loss on the valid split so far, of the epoch with this number (from 1).
        history: the metrics of each ended epoch, and its learning rate.
    """

    epoch: int = 0
    step: int = 0
    order: str = ""
    best: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Valid:
    """The valid split, for the process that measures.

    Attributes:
        rows: encoded.
        target: classes or values as they are in the data, ``(n,)``.
        spread: standard deviation of a regression's target in the train split, and ``centre`` its mean.
        weights: by class; None for a regression, or where all weigh the same.
    """

    rows: Rows
    target: NDArray[Any]
    centre: float
    spread: float
    weights: NDArray[np.float32] | None

    def loss(self, predicted: NDArray[np.float64], task: Task) -> float:
        """The loss that decides when to stop: of the averaged prediction, in the units of the loss on train."""
        if task == "regression":
            return float(np.mean((predicted - (self.target - self.centre) / self.spread) ** 2))
        likely = np.log(np.maximum(predicted[np.arange(len(predicted)), self.target], np.finfo("float32").tiny))
        weights = 1.0 if self.weights is None else self.weights[self.target].astype("float64")
        return float(-np.mean(likely * weights))

    def metric(self, predicted: NDArray[np.float64], task: Task) -> dict[str, float]:
        """The task's primary metric, where it is defined on these rows."""
        scores = predicted * self.spread + self.centre if task == "regression" else predicted
        value = measure(task, self.target, scores)[PRIMARY[task]]
        return {f"valid_{PRIMARY[task]}": value} if math.isfinite(value) else {}


class Fit:
    """A fit under way."""

    def __init__(
        self, learner: Learner, source: Source, valid: Valid, task: Task, settings: Settings, run: Run
    ) -> None:
        """Nothing is learnt yet."""
        self._learner, self._source, self._valid = learner, source, valid
        self._task, self._settings, self._run = task, settings, run
        self._group = learner.group
        self._saved = time.monotonic()
        self.position = Position(order=source.order)

    def resume(self) -> None:
        """Go on from the state that a killed attempt left, if there is one, and tell its epochs again."""
        loaded = self._run.checkpoints.load() if self._group.first else None
        state = self._group.shared(loaded, self._learner.device.torch)
        if state is None:
            return
        facts = dict(state.facts)
        self._learner.restore(state.arrays, facts.pop("learner"))
        position = Position(**facts)
        where = f"epoch {position.epoch + 1}, batch {position.step} of {self._source.steps}"
        if position.step and position.order != self._source.order:
            self._learner.begin_epoch()
            where = f"the start of epoch {position.epoch + 1}, since the rows come in another order now"
            position.step = 0
        position.order = self._source.order
        self.position = position
        self._run.say(f"Going on from the checkpoint: {where}.")
        for number, told in enumerate(position.history, 1):
            self._tell(number, told)

    def through(self, sampler: Sampler) -> None:
        """Train until the last epoch, or until the valid split has not improved for long enough."""
        position = self.position
        while position.epoch < self._settings.epochs and not self._stale():
            began, before = time.monotonic(), position.step
            for batch in self._source.batches(position.epoch, position.step):
                self._step(batch)
            self._learner.device.wait()
            share = (self._source.steps - before) / self._source.steps
            speed = share * self._source.rows / max(time.monotonic() - began, 1e-9)
            told = {"train_loss": self._learner.loss(self._source.rows), **self._measured(), "rows_per_second": speed}
            told |= sampler.metrics() | {"host_memory_gb": devices.peak_memory() / 1e9}
            told["learning_rate"] = self._rate(position.step - 1)
            self._end_epoch(told)

    def _stale(self) -> bool:
        return self.position.epoch - self.position.best_epoch >= self._settings.patience

    def _rate(self, step: int) -> float:
        steps = self._source.steps
        return rate(self._settings, self.position.epoch * steps + step, self._settings.epochs * steps)

    def _step(self, batch: Rows) -> None:
        position, group = self.position, self._group
        share = batch.each(lambda part: part[group.rank :: group.size]) if group.size > 1 else batch
        seed = mixed(self._run.seed, position.epoch, position.step)
        self._learner.step(share, len(batch), self._rate(position.step), seed)
        position.step += 1
        self._stop_if_asked()
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self._save()

    def _end_epoch(self, told: dict[str, float]) -> None:
        position = self.position
        self._tell(position.epoch + 1, told)
        self._learner.begin_epoch()
        position.epoch, position.step = position.epoch + 1, 0
        position.history.append(told)
        if told["valid_loss"] < position.best:
            position.best, position.best_epoch = told["valid_loss"], position.epoch
            self._learner.keep()
        self._stop_if_asked()
        if time.monotonic() - self._saved >= EPOCH_SECONDS:
            self._save()

    def _tell(self, number: int, told: Mapping[str, float]) -> None:
        metrics = dict(told)
        learning_rate = metrics.pop("learning_rate")
        self._run.epoch(number, metrics, learning_rate)

    def _measured(self) -> dict[str, float]:
        """Loss and metric on the valid split; rank 0 measures, and the loss is every process's."""
        measured = {"valid_loss": 0.0}
        if self._group.first:
            predicted = self._learner.predict(self._valid.rows, self._stop_if_asked)
            measured = {"valid_loss": self._valid.loss(predicted, self._task)}
            if math.isfinite(measured["valid_loss"]):
                measured |= self._valid.metric(predicted, self._task)
        measured["valid_loss"] = self._group.agreed(measured["valid_loss"], self._learner.device.torch)
        return measured

    def _stop_if_asked(self) -> None:
        """Save and leave where SIGTERM has come; others than rank 0 leave when it has gone."""
        if not self._run.interrupt or not self._group.first:
            return
        kept = self._save()
        place = f"epoch {self.position.epoch + 1}, batch {self.position.step} of {self._source.steps}"
        end = "the state is saved: run again to go on from there" if kept else "no state is kept: run again"
        raise Interrupted(f"Training was stopped by SIGTERM in {place}; {end}.")

    def _save(self) -> bool:
        """Save the state; says whether there is a place for it. One that has diverged is not worth it."""
        self._saved = time.monotonic()
        if not self._group.first or isinstance(self._run.checkpoints, NoCheckpoints):
            return False
        if self._learner.diverged():
            self._tell(
                self.position.epoch + 1, {"train_loss": math.nan, "learning_rate": self._rate(self.position.step)}
            )
        facts = asdict(self.position) | {"learner": self._learner.facts()}
        self._run.checkpoints.save(State(self._learner.arrays(), facts))
        return True


Stop = Callable[[], None]


def stop_before_training(run: Run) -> Stop:
    """What is called while rows are being read: SIGTERM ends that at once, nothing is lost."""

    def stop() -> None:
        if run.interrupt:
            raise Interrupted("Training was stopped by SIGTERM while the rows were being read: run again.")

    return stop
