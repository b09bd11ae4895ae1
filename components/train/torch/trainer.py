"""The PyTorch trainer: a residual tabular network, raw columns in, prediction out; see :mod:`serving.torch_net`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.features.schema import Task
from components.train.contract import Data, Run
from components.train.torch.settings import Settings
from serving.schema import Framework

if TYPE_CHECKING:
    from components.train.torch.fitted import FittedNetwork


@dataclass(frozen=True)
class TorchTrainer:
    """See :class:`components.train.contract.Trainer`."""

    framework: Framework = "torch"

    def parameters(self, task: Task) -> dict[str, Any]:
        """Every hyperparameter with its default; :class:`components.train.torch.settings.Settings` says what they do.

        The defaults hold for every task.
        """
        return Settings().model_dump()

    def space(self, task: Task) -> dict[str, dict[str, Any]]:
        """What a search tries."""
        return {
            "learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
            "weight_decay": {"low": 1e-5, "high": 1e-1, "log": True},
            "width": {"choices": [64, 128, 256]},
            "blocks": {"low": 1, "high": 4},
            "dropout": {"low": 0.0, "high": 0.5},
            "numeric_embedding": {"choices": ["none", "piecewise", "periodic"]},
        }

    def fit(self, data: Data, parameters: Mapping[str, Any], run: Run) -> "FittedNetwork":
        """Fit the network, on the device that is there.

        Raises:
            BadInput: a value, the device, the data or the checkpoint cannot be used, or the fit diverged.
            Interrupted: SIGTERM came; the state is saved.
        """
        settings = Settings.checked(parameters)
        from components.train.torch.fit import fit

        return fit(data, settings, run)


TRAINER = TorchTrainer()
