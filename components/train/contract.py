"""The trainer contract: what a trainer is given, and what it returns.

A trainer learns from the train split, may look at the valid split to decide when to stop, and returns a
:class:`Fitted`: a native model with its preprocessing inside, so that raw columns go in and probabilities or values
come out. Whatever happens per epoch it reports to its :class:`Run`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from components.errors import BadInput
from components.features.schema import FeatureSchema, Task
from components.train.checkpoints import Checkpoints, NoCheckpoints
from components.train.feature_set import Split, read_schema, read_split
from components.train.interrupt import Interrupt
from serving.schema import Framework

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import pandas as pd

DeviceWish = Literal["auto", "gpu", "cpu"]
"""``auto`` takes a GPU where there is one and says so where there is none; ``gpu`` fails without one."""


MEASURED_ROWS = 2_000_000
"""Of a longer split that no trainer holds in memory, metrics are measured on a sample of this many rows."""


class NoGraph(Exception):
    """A model that has no ONNX graph; the message says which part of it, for the bundle's parity record."""


@dataclass(frozen=True)
class Data:
    """A feature set, read when it is asked for.

    Attributes:
        folder: holds ``train.parquet``, ``valid.parquet`` and ``features.json``, for a trainer that streams.
        schema: what the columns are.
    """

    folder: Path
    schema: FeatureSchema

    @classmethod
    def read(cls, folder: Path) -> "Data":
        """Open a feature set.

        Raises:
            BadInput: it has no valid ``features.json``.
        """
        return cls(folder, read_schema(folder))

    @cached_property
    def train(self) -> Split:
        """The rows to learn from. Raises BadInput where they cannot be learnt from."""
        return read_split(self.folder, "train", self.schema)

    @cached_property
    def valid(self) -> Split:
        """The rows that may decide when to stop. Raises BadInput where they cannot."""
        return read_split(self.folder, "valid", self.schema)

    def sample(self, name: str) -> Split:
        """A split to measure on: all of it, or of one too long to hold, every n-th row group of its file."""
        if name in self.__dict__ or self.schema.rows.get(name, 0) <= MEASURED_ROWS:
            return cast(Split, getattr(self, name))
        return read_split(self.folder, name, self.schema, at_most=MEASURED_ROWS)

    def columns(self, kind: str) -> list[str]:
        """The features that are ``numeric`` or ``categorical``, in the schema's order."""
        return [feature.name for feature in self.schema.features if feature.kind == kind]


Listener = Callable[[int, Mapping[str, float]], None]


@dataclass
class Run:
    """The run around a trainer: its seed, its device, and whom to tell.

    Attributes:
        seed: every random choice follows from it.
        device: what the user wants to train on.
        checkpoints: where a trainer of many epochs saves its state, and finds that of a killed attempt.
        interrupt: says when the machine is about to be taken away.
        listeners: told of every epoch, in order; one of them may raise to stop a trial.
        say: tells the person who watches one sentence.
        used: the trainer sets it to the device that it uses, for the bundle's record.
        gpus: how many GPUs that are.
    """

    seed: int
    device: DeviceWish = "auto"
    checkpoints: Checkpoints = field(default_factory=NoCheckpoints)
    interrupt: Interrupt = field(default_factory=Interrupt)
    listeners: tuple[Listener, ...] = ()
    say: Callable[[str], None] = lambda _message: None
    used: str = "cpu"
    gpus: int = 0

    def epoch(self, number: int, metrics: Mapping[str, float], learning_rate: float | None = None) -> None:
        """Report an epoch (or boosting round), counted from 1.

        Args:
            number: which one has ended.
            metrics: by name with ``train_`` or ``valid_`` in front, ``train_loss`` among them; others are free.
            learning_rate: in use during the epoch.

        Raises:
            BadInput: a loss is not a number: the fit has diverged.
        """
        for name, value in metrics.items():
            if name.endswith("loss") and not math.isfinite(value):
                rate = "" if learning_rate is None else f" at learning rate {learning_rate:g}"
                raise BadInput(
                    f"Training diverged: {name} is {value} in epoch {number}{rate}. Choose a lower learning_rate, "
                    "or look for extreme values in the features or the target."
                )
        told = dict(metrics) if learning_rate is None else {**metrics, "learning_rate": learning_rate}
        for listener in self.listeners:
            listener(number, told)


@dataclass(frozen=True)
class Flavor:
    """How MLflow finds the native model in the bundle.

    Attributes:
        name: MLflow's name of the flavor, such as ``sklearn``.
        entry: what stands under that name in ``MLmodel``; empty where MLflow has no flavor for this format.
        pyfunc: what ``python_function`` needs: ``loader_module`` and the rest.
        requirements: the distributions that loading needs; their installed versions are written down.
    """

    name: str
    entry: Mapping[str, Any]
    pyfunc: Mapping[str, Any]
    requirements: tuple[str, ...]


class Fitted(Protocol):
    """A fitted model. ``facts`` says what the fit ended with, by name, for instance ``epochs``."""

    @property
    def facts(self) -> Mapping[str, float]:
        """What the fit ended with."""

    def predict(self, frame: "pd.DataFrame") -> "np.ndarray[Any, Any]":
        """Native predictions of a model frame: float64 probabilities ``(rows, classes)``, or values ``(rows,)``."""

    def save(self, folder: Path) -> Flavor:
        """Write the native model, never as a pickle, under the names of ``serving.schema.NATIVE_FILES``."""

    def graph(self, schema: FeatureSchema) -> "onnx.ModelProto":
        """The ONNX graph; see :mod:`components.train.graph` for its inputs and outputs. Raises NoGraph."""

    def edges(self) -> "Mapping[str, np.ndarray[Any, Any]]":
        """By numeric feature, the values next to which the prediction jumps; parity is probed there."""


class Trainer(Protocol):
    """A way to make a model."""

    @property
    def framework(self) -> Framework:
        """Which library makes the native model."""

    def parameters(self, task: Task) -> dict[str, Any]:
        """Every hyperparameter that the user may set, with its default for the task."""

    def space(self, task: Task) -> dict[str, dict[str, Any]]:
        """What a search tries when the user names no space of their own; see :mod:`components.train.search`."""

    def fit(self, data: Data, parameters: Mapping[str, Any], run: Run) -> Fitted:
        """Fit on ``data.train``.

        Args:
            data: the feature set.
            parameters: a value for every key of :meth:`parameters`.
            run: the seed, the device and whom to tell.

        Raises:
            BadInput: a value or the data cannot be used.
        """
