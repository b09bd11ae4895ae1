"""The Keras trainer: a residual network on TensorFlow, with its preprocessing inside the model.

This module is cheap to import; TensorFlow is imported when a fit begins.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.features.schema import Task
from components.train.contract import Data, Run
from serving.schema import Framework

if TYPE_CHECKING:
    import numpy as np

    from components.train.keras.fitted import FittedNetwork

_RANGES = {
    "learning_rate": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "width": (1, 65_536),
    "blocks": (0, 64),
    "dropout": (0.0, 0.95),
    "epochs": (1, 1_000_000),
    "patience": (1, 1_000_000),
    "batch_size": (0, 2**24),
}


@dataclass(frozen=True)
class KerasTrainer:
    """See :class:`components.train.contract.Trainer`."""

    framework: Framework = "tensorflow"

    def parameters(self, task: Task) -> dict[str, Any]:
        """Every hyperparameter with its default; a ``batch_size`` of 0 goes by the rows."""
        own = {
            "learning_rate": 1e-3,
            "weight_decay": 1e-2,
            "width": 128,
            "blocks": 2,
            "dropout": 0.1,
            "epochs": 100,
            "patience": 10,
            "batch_size": 0,
            "precision": "auto",
        }
        return own if task == "regression" else own | {"class_weight": None}

    def space(self, task: Task) -> dict[str, dict[str, Any]]:
        """What a search tries."""
        return {
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "weight_decay": {"low": 1e-4, "high": 1.0, "log": True},
            "width": {"choices": [64, 128, 256]},
            "blocks": {"low": 1, "high": 4},
            "dropout": {"low": 0.0, "high": 0.5},
        }

    def fit(self, data: Data, parameters: Mapping[str, Any], run: Run) -> "FittedNetwork":
        """Fit the network.

        Raises:
            BadInput: a value, the data, the device or the checkpoint cannot be used.
            Interrupted: SIGTERM came; the state is saved.
        """
        _check(parameters)
        from components.train.keras.device import choose

        device = choose(run.device, str(parameters["precision"]))
        from components.train.keras.fit import fit

        return fit(data, parameters, run, device)


def batch_size(rows: int, chosen: int) -> int:
    """Rows per step: what is chosen, or a power of two that makes an epoch about 50 steps, from 32 to 8,192."""
    if chosen:
        return min(chosen, rows)
    return min(8192, max(32, 2 ** round(math.log2(max(1, rows / 50)))))


def class_weights(chosen: Any, target: "np.ndarray[Any, Any]", classes: int) -> "np.ndarray[Any, Any] | None":
    """The weight of each class, float32: ``balanced`` gives every class the same sum, a dict counts from 0."""
    import numpy as np

    if chosen is None:
        return None
    if chosen == "balanced":
        counts = np.bincount(target, minlength=classes)
        return np.asarray(len(target) / (classes * counts), "float32")
    if not isinstance(chosen, dict) or not all(_is_number(value) and value >= 0 for value in chosen.values()):
        raise BadInput(f"class_weight is {chosen!r}; it must be 'balanced', or a weight from 0 up by class.")
    return np.array([chosen.get(index, 1.0) for index in range(classes)], "float32")


def _check(parameters: Mapping[str, Any]) -> None:
    for name, (low, high) in _RANGES.items():
        value = parameters[name]
        whole = isinstance(low, int)
        if not _is_number(value) or (whole and not isinstance(value, int)) or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise BadInput(f"{name} is {value!r}; it must be {kind} from {low:g} to {high:g}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


TRAINER = KerasTrainer()
