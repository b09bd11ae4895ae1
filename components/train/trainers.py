"""The trainers by name, and a user's own by ``package.module:callable``; each is imported only when it is asked for."""

import importlib
from typing import cast

from components.errors import BadInput
from components.train.contract import Trainer
from components.train.hyperparameters import near

TRAINERS = {
    "hist_gradient_boosting": "components.train.sklearn.boosting:TRAINER",
    "keras": "components.train.keras.trainer:TRAINER",
    "linear": "components.train.sklearn.linear:TRAINER",
    "random_forest": "components.train.sklearn.forest:TRAINER",
    "torch": "components.train.torch.trainer:TRAINER",
}


def find(name: str) -> Trainer:
    """The trainer of this name.

    Raises:
        BadInput: there is none; the message lists the names, near matches first.
    """
    if ":" in name:
        from components.train.own import load

        return load(name)
    if name not in TRAINERS:
        raise BadInput(f"There is no trainer {name!r}{near(name, list(TRAINERS))}.")
    module, _, attribute = TRAINERS[name].partition(":")
    return cast(Trainer, getattr(importlib.import_module(module), attribute))
