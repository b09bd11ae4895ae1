"""Searches hyperparameters with Optuna, within a budget of trials, of minutes, or both.

A trial is proposed from the trials whose outcome is known, by a sampler that is seeded with the search's seed and the
trial's number: one worker with one budget of trials proposes the same ones every time, and a retry goes on where the
killed attempt was. Workers on several machines share nothing but MLflow: worker ``i`` of ``n`` does the trials ``i``,
``i + n``, …, and before each reads what the others have found meanwhile.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.evaluate.metrics import HIGHER_IS_BETTER, PRIMARY, measure
from components.train.checkpoints import NoCheckpoints
from components.train.contract import Data, Run, Trainer
from components.train.hyperparameters import checked
from components.train.interrupt import Interrupted
from components.train.recipe import digest, recipe
from components.train.space import SearchPlan
from components.train.study import Watch, propose
from components.train.trials import Trial, TrialRun, TrialRuns

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Sought:
    """What is searched.

    Attributes:
        data: the feature set; trials learn from train and are judged on valid.
        name: of the trainer.
        trainer: makes the models.
        chosen: hyperparameters that the user has set; they stay.
        plan: the space and the budget; see :func:`components.train.space.plan`.
    """

    data: Data
    name: str
    trainer: Trainer
    chosen: Mapping[str, Any]
    plan: SearchPlan

    @property
    def metric(self) -> str:
        """The primary metric of the task, measured on the valid split."""
        return PRIMARY[self.data.schema.task]

    @cached_property
    def distributions(self) -> "dict[str, optuna.distributions.BaseDistribution]":
        """The space in Optuna's terms."""
        return {name: dimension.distribution() for name, dimension in sorted(self.plan.space.items())}

    def key(self, seed: int) -> str:
        """Which search this is: data, trainer, versions, what is set, space and seed, but not the budget.

        A search with a larger budget goes on from the trials of a smaller one.
        """
        given = self.parameters({})
        made_of = recipe(self.data.schema, self.name, self.trainer.framework, given, seed, 0.0)
        space = {name: dimension.model_dump() for name, dimension in self.plan.space.items()}
        return digest({"recipe": made_of, "space": space})

    def parameters(self, proposed: Mapping[str, Any]) -> dict[str, Any]:
        """The trainer's full parameters. Raises BadInput where one cannot be used."""
        return checked(self.name, self.trainer, self.data.schema, {**self.chosen, **proposed})


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        parameters: the best trial's, complete: what to train with.
        value: the best trial's metric on the valid split.
        metric: its name.
        number: of the best trial.
        trials: all of them, by number.
        run_id: the search's MLflow run, whose children the trials are; empty where MLflow was away.
    """

    parameters: dict[str, Any]
    value: float
    metric: str
    number: int
    trials: tuple[Trial, ...]
    run_id: str

    def facts(self) -> dict[str, Any]:
        """For the bundle's record of where it was made."""
        states = Counter(trial.state for trial in self.trials)
        return {
            "trials": len(self.trials),
            **{state: states[state] for state in ("finished", "pruned", "failed")},
            "best_trial": self.number,
            f"best_valid_{self.metric}": self.value,
            "seconds": round(sum(trial.seconds for trial in self.trials), 3),
        }

    def fact(self) -> str:
        """The one thing worth knowing."""
        best = next(trial for trial in self.trials if trial.number == self.number)
        chosen = ", ".join(f"{name} {_short(value)}" for name, value in best.parameters.items())
        return (
            f"trial {self.number + 1} of {len(self.trials)} is the best: {self.metric} {self.value:.4g} with {chosen}"
        )

    def values(self) -> list[float]:
        """The metric of each finished trial, in order."""
        return [trial.value for trial in self.trials if trial.value is not None]


def search(sought: Sought, run: Run, store: TrialRuns) -> Found:
    """Search in this process.

    Args:
        sought: what to search.
        run: its seed, device and interrupt are the trials' too; told of each trial.
        store: where the trials are kept, not ``required``.

    Raises:
        BadInput: no trial reached a result.
        Interrupted: SIGTERM came.
    """
    trials = _work(sought, run, store, 0, 1)
    store.close()
    return _best(sought, trials, store.parent())


def search_worker(sought: Sought, run: Run, store: TrialRuns, index: int, of: int) -> int:
    """Do one worker's share of a search; a retry does what is left of it.

    Args:
        sought: what to search, the same for all workers.
        run: as for :func:`search`.
        store: where the workers find each other's trials, ``required``.
        index: which worker, from 0.
        of: how many there are.

    Returns:
        How many trials of the search have an outcome as far as this worker knows.

    Raises:
        Unreachable: MLflow is away.
        Interrupted: SIGTERM came.
    """
    if not 0 <= index < of:
        raise BadInput(f"There is no search worker {index} of {of}: count from 0.")
    return sum(trial.state != "running" for trial in _work(sought, run, store, index, of))


def best(sought: Sought, store: TrialRuns) -> Found:
    """The best of the trials that all workers have done; the search is over with it.

    Raises:
        BadInput: no trial reached a result.
        Unreachable: MLflow is away.
    """
    trials = store.read()
    store.close()
    return _best(sought, trials, store.parent())


def _work(sought: Sought, run: Run, store: TrialRuns, index: int, of: int) -> list[Trial]:
    plan = sought.plan
    known = _known(plan, store, index, of)
    ends = _deadline(plan, sum(trial.seconds for trial in known.values() if trial.number % of == index))
    with run.interrupt.listening():
        for number in itertools.count(index, of) if plan.trials is None else range(index, plan.trials, of):
            if number in known:
                continue
            if time.monotonic() >= ends and known:
                run.say(f"{plan.minutes:g} minutes are over: the search ends.")
                break
            if of > 1:
                known = _known(plan, store, index, of)
            known[number] = _try(sought, run, store, number, (list(known.values()), ends))
            run.say(_told(sought, known, number))
    return [known[number] for number in sorted(known)]


def _known(plan: SearchPlan, store: TrialRuns, index: int, of: int) -> dict[int, Trial]:
    """The trials within the budget, less those that a killed attempt of this worker has left without an outcome."""
    return {
        trial.number: trial
        for trial in store.read()
        if (plan.trials is None or trial.number < plan.trials)
        and not (trial.state == "running" and trial.number % of == index)
    }


def _deadline(plan: SearchPlan, spent: float) -> float:
    return float("inf") if plan.minutes is None else time.monotonic() + plan.minutes * 60 - spent


def _try(sought: Sought, run: Run, store: TrialRuns, number: int, so_far: tuple[list[Trial], float]) -> Trial:
    """Propose a trial from those before it, fit it and keep its outcome."""
    import optuna

    before, ends = so_far
    asked = propose(sought.metric, sought.distributions, before, run.seed, number)
    trial = Trial(number, asked.params)
    kept = store.begin(trial)
    watch = Watch(sought.metric, asked, ends if any(one.state == "finished" for one in before) else float("inf"))
    began = time.monotonic()

    def outcome(**fields: Any) -> Trial:
        seconds = round(time.monotonic() - began, 3)
        done = replace(trial, watched=watch.name, epochs=watch.told, seconds=seconds, **fields)
        store.end(kept, done)
        return done

    try:
        value = _fit(sought, run, trial, _listeners(watch, kept))
    except optuna.TrialPruned:
        return outcome(state="pruned", reason=watch.reason)
    except BadInput as error:
        return outcome(state="failed", reason=str(error))
    except Interrupted:
        outcome()
        raise
    return outcome(state="finished", value=value)


def _listeners(watch: Watch, kept: TrialRun | None) -> tuple[Callable[[int, Mapping[str, float]], None], ...]:
    return (watch,) if kept is None else (kept.epochs, watch)


def _fit(sought: Sought, run: Run, trial: Trial, listeners: tuple[Any, ...]) -> float:
    quiet = replace(run, checkpoints=NoCheckpoints(), listeners=listeners, say=lambda _message: None)
    fitted = sought.trainer.fit(sought.data, sought.parameters(trial.parameters), quiet)
    valid = sought.data.sample("valid")
    value = measure(sought.data.schema.task, valid.target, fitted.predict(valid.inputs))[sought.metric]
    if value != value:
        raise BadInput(f"{sought.metric} is not a number on the valid split.")
    return value


def _best(sought: Sought, trials: Sequence[Trial], run_id: str) -> Found:
    finished = [trial for trial in trials if trial.value is not None]
    if not finished:
        reasons = [trial.reason for trial in trials if trial.reason]
        raise BadInput(
            f"None of the {len(trials)} trials reached a result; the first says: {reasons[0]}"
            if reasons
            else "No trial was done: give the search a larger budget."
        )
    sign = -1 if HIGHER_IS_BETTER[sought.metric] else 1
    winner = min(finished, key=lambda trial: (sign * _value(trial), trial.number))
    parameters = sought.parameters(winner.parameters)
    return Found(parameters, _value(winner), sought.metric, winner.number, tuple(trials), run_id)


def _value(trial: Trial) -> float:
    assert trial.value is not None
    return trial.value


def _told(sought: Sought, known: Mapping[int, Trial], number: int) -> str:
    trial, plan = known[number], sought.plan
    which = f"trial {number + 1}" + (f" of {plan.trials}" if plan.trials is not None else "")
    values = [one.value for one in known.values() if one.value is not None]
    top = (max if HIGHER_IS_BETTER[sought.metric] else min)(values, default=None)
    so_far = "none finished yet" if top is None else f"best {top:.4g}"
    if trial.value is not None:
        return f"{which}: {sought.metric} {trial.value:.4g} ({so_far})"
    return f"{which}: {trial.state}, {trial.reason.rstrip('.')} ({so_far})"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
