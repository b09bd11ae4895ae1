"""Optuna's part in a search: what to try next, and which trial falls behind."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from components.evaluate.metrics import HIGHER_IS_BETTER
from components.train.recipe import digest
from components.train.trials import Trial

if TYPE_CHECKING:
    import optuna

STARTUP = 5
"""Finished trials before any is pruned."""
WARM_UP = 3
"""Epochs of each trial in which it is never pruned."""


def propose(
    metric: str,
    distributions: "Mapping[str, optuna.distributions.BaseDistribution]",
    before: Sequence[Trial],
    seed: int,
    number: int,
) -> "optuna.Trial":
    """Propose a trial, by a tree-structured Parzen estimator over the trials before it.

    One that runs elsewhere counts as a bad one, so that two workers do not try the same.

    Args:
        metric: what trials are judged by.
        distributions: the space, by hyperparameter.
        before: every trial known so far.
        seed: of the search.
        number: of the trial; with the seed and the trials before it decides what is proposed.

    Returns:
        The trial, whose ``params`` are to be tried and which can be told of epochs.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "running": TrialState.RUNNING}
    study = optuna.create_study(
        direction="maximize" if HIGHER_IS_BETTER[metric] else "minimize",
        sampler=optuna.samplers.TPESampler(seed=int(digest([seed, number])[:8], 16), constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=WARM_UP),
    )
    for trial in before:
        if trial.state in states:
            study.add_trial(
                optuna.trial.create_trial(
                    state=states[trial.state],
                    params=dict(trial.parameters),
                    distributions=dict(distributions),
                    value=trial.value,
                    intermediate_values={
                        step: _reported(metric, trial.watched, value) for step, value in trial.epochs.items()
                    },
                )
            )
    return study.ask(dict(distributions))


class Watch:
    """A listener that prunes a trial which falls behind the median of the others, or whose time is over.

    It goes by the metric of the search where the trainer reports it per epoch, else by ``valid_loss``.

    Args:
        metric: what trials are judged by.
        asked: the proposed trial.
        ends: by the monotonic clock.

    Attributes:
        name: the metric that it goes by; empty before the first epoch.
        told: its values by epoch.
        reason: why the trial was pruned.
    """

    def __init__(self, metric: str, asked: "optuna.Trial", ends: float) -> None:
        """Nothing was told yet."""
        self._metric, self._asked, self._ends = metric, asked, ends
        self.name = ""
        self.told: dict[int, float] = {}
        self.reason = ""

    def __call__(self, number: int, metrics: Mapping[str, float]) -> None:
        """Take note of an epoch. Raises ``optuna.TrialPruned``."""
        import optuna

        if not self.name:
            self.name = next((name for name in (f"valid_{self._metric}", "valid_loss") if name in metrics), "")
        if time.monotonic() >= self._ends:
            self.reason = f"the time was over at epoch {number}"
            raise optuna.TrialPruned
        value = metrics.get(self.name)
        if value is None or value != value:
            return
        self.told[number] = value
        self._asked.report(_reported(self._metric, self.name, value), number)
        if self._asked.should_prune():
            self.reason = f"behind the others at epoch {number}"
            raise optuna.TrialPruned


def _reported(metric: str, watched: str, value: float) -> float:
    """A watched value in the direction of the search: a loss is better when it is low."""
    return -value if watched.endswith("_loss") and HIGHER_IS_BETTER[metric] else value
