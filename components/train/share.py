"""One worker's share of a hyperparameter search that several do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from components.train.contract import Data, DeviceWish, Run
from components.train.schedule import budget
from components.train.search import Sought, search_worker
from components.train.space import plan
from components.train.trainers import find
from components.train.trials import TrialRuns


def share(
    features: Path,
    *,
    trainer: str,
    hyperparameters: dict[str, Any],
    search: dict[str, Any],
    seed: int,
    device: str,
    model_name: str,
    worker: tuple[int, int],
    say: Callable[[str], None],
) -> int:
    """Do the share of a worker, or what is left of it.

    Args:
        features: a feature set.
        trainer: its name.
        hyperparameters: what is set, and so not searched.
        search: budget and space.
        seed: every random choice follows from it.
        device: what to train on.
        model_name: names the MLflow experiment.
        worker: which one, from 0, and of how many.
        say: told of every trial.

    Returns:
        How many trials of the search are done.

    Raises:
        BadInput: the plan, a hyperparameter or the data cannot be used.
        Unreachable: MLflow is away.
        Interrupted: SIGTERM came; run again to go on.
    """
    data, maker = Data.read(features), find(trainer)
    chosen = plan(budget(search), trainer, maker, data.schema.task, hyperparameters)
    sought = Sought(data, trainer, maker, hyperparameters, chosen)
    run = Run(seed, cast(DeviceWish, device), say=say)  # the resolve step has checked it
    with run.interrupt.listening():
        return search_worker(sought, run, TrialRuns(model_name, sought.key(seed), say), *worker)
