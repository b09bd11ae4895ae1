"""The Keras trainer: a residual network on TensorFlow, raw columns in, prediction out.

This module is cheap to import; TensorFlow is imported when a fit begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.features.schema import Task
from components.train.contract import Data, Run
from components.train.keras.settings import Settings
from serving.schema import Framework

if TYPE_CHECKING:
    from components.train.keras.fitted import FittedNetwork


@dataclass(frozen=True)
class KerasTrainer:
    """See :class:`components.train.contract.Trainer`."""

    framework: Framework = "tensorflow"

    def parameters(self, task: Task) -> dict[str, Any]:
        """Every hyperparameter with its default; :class:`components.train.keras.settings.Settings` says more."""
        return Settings().model_dump(exclude={"class_weight"} if task == "regression" else None)

    def space(self, task: Task) -> dict[str, dict[str, Any]]:
        """What a search tries."""
        return {
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "weight_decay": {"low": 1e-5, "high": 1e-1, "log": True},
            "width": {"choices": [64, 128, 256]},
            "blocks": {"low": 1, "high": 4},
            "dropout": {"low": 0.0, "high": 0.5},
        }

    def fit(self, data: Data, parameters: Mapping[str, Any], run: Run) -> "FittedNetwork":
        """Fit the network, on the device that is there.

        Raises:
            BadInput: a value, the device, the data or the checkpoint cannot be used, or the fit diverged.
            Interrupted: SIGTERM came; the state is saved.
        """
        settings = Settings.checked(parameters)
        from components.train.keras.device import choose

        device = choose(run.device, settings.precision)
        run.used, run.gpus = device.used, sum(name.startswith("GPU") for name in device.names)
        from components.train.keras.fit import fit

        return fit(data, settings, run, device)


TRAINER = KerasTrainer()
