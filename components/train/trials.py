"""Keeps the trials of a search as MLflow runs, from which other workers and a retry read them.

MLflow is the only thing that workers on different machines share: each trial is a run of its own, a child of the
search's run, and carries as one tag what another worker needs to learn from it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from components.errors import BadInput, StorageFull, Unreachable
from components.train.tracking import EpochLog, OpenRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SEARCH = "sluiceway.search"
"""Tag of the search's own run; its value is the search's key."""
TRIAL_OF = "sluiceway.trial_of"
"""Tag of each trial; its value is the search's key."""
TRIAL = "sluiceway.trial"
"""Tag of each trial: number, parameters and outcome as JSON."""
VALUE = "search_value"
LONGEST_REASON = 500

State = Literal["running", "finished", "pruned", "failed"]
_STATUS: dict[State, str] = {"running": "RUNNING", "finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True)
class Trial:
    """One set of hyperparameters that was tried.

    Attributes:
        number: in the whole search, from 0.
        parameters: what was proposed, by name.
        state: ``running`` until it has an outcome.
        value: the primary metric on the valid split; None unless finished.
        watched: name of the metric that decided about pruning; empty where no epoch was reported.
        epochs: that metric by epoch.
        seconds: how long it took.
        reason: why it failed or was pruned.
    """

    number: int
    parameters: Mapping[str, Any]
    state: State = "running"
    value: float | None = None
    watched: str = ""
    epochs: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""

    def tag(self) -> str:
        """What other workers read, as JSON; the epochs are the run's metrics already."""
        facts = {name: value for name, value in asdict(self).items() if name != "epochs"}
        return json.dumps(facts | {"reason": self.reason[:LONGEST_REASON]})


class TrialRuns:
    """The trials of one search in MLflow.

    Args:
        model_name: the registered model, which names the experiment.
        key: says which search; equal for the workers of one and for a retry.
        say: tells the person who watches.
        required: whether the search is worth nothing without MLflow, as it is with several workers. Otherwise it goes
            on without: the trials are this process's to remember.
    """

    def __init__(
        self,
        model_name: str,
        key: str,
        say: Callable[[str], None] = lambda _message: None,
        *,
        required: bool = True,
    ) -> None:
        """Nothing is read or made yet."""
        self._model_name, self._key, self._say, self._required = model_name, key, say, required
        self._off = False
        self._parent = ""
        self._finished: dict[str, Trial] = {}
        self._open: dict[int, str] = {}

    def parent(self) -> str:
        """Id of the search's run, made where there is none yet; empty where MLflow is away and not required.

        Raises:
            Unreachable: MLflow is away and required.
        """
        with self._reaching():
            if not self._parent and not self._off:
                self._parent = self._find_parent()
        return self._parent

    def read(self) -> list[Trial]:
        """Every trial of the search so far, by number; of those with one number, one that has an outcome.

        Raises:
            Unreachable: MLflow is away and required.
        """
        known: dict[int, Trial] = {}
        with self._reaching():
            for run in [] if self._off else self._runs():
                trial = self._read(run)
                if trial is None:
                    continue
                if trial.number not in known or known[trial.number].state == "running":
                    known[trial.number] = trial
        return [known[number] for number in sorted(known)]

    def begin(self, trial: Trial) -> "TrialRun | None":
        """Make the trial's run; None where MLflow is away and not required.

        Raises:
            Unreachable: MLflow is away and required.
        """
        parent = self.parent()
        with self._reaching():
            if self._off:
                return None
            mlflow = _client()
            if left := self._open.pop(trial.number, ""):  # by an attempt that was killed
                mlflow.set_terminated(left, "KILLED")
            run = mlflow.create_run(
                self._experiment(mlflow),
                tags={"mlflow.parentRunId": parent, TRIAL_OF: self._key, TRIAL: trial.tag()},
                run_name=f"trial {trial.number}",
            )
            made = TrialRun(mlflow, run.info.run_id, self._say)
            made.log_parameters(trial)
            return made
        return None

    def end(self, run: "TrialRun | None", trial: Trial) -> None:
        """Write the trial's outcome.

        Raises:
            Unreachable: MLflow is away and required.
        """
        with self._reaching():
            if run is not None and not self._off:
                run.end(trial)

    def close(self) -> None:
        """Say that the search is over; a run that KFP has made is KFP's to end.

        Raises:
            Unreachable: MLflow is away and required.
        """
        from components.register import runs

        parent = self.parent()
        with self._reaching():
            if not self._off and runs.of_this_task(_client()) is None:
                _client().set_terminated(parent, "FINISHED")

    def _find_parent(self) -> str:
        """The first run that bears the key; else KFP's run for this task, else a new one, bears it from now on."""
        from components.register import runs

        mlflow = _client()
        place = self._experiment(mlflow)
        found = runs.tagged(mlflow, place, SEARCH, self._key)
        if found is None:
            own = runs.of_this_task(mlflow)
            made = own or mlflow.create_run(place, run_name=f"search {self._key[:12]}")
            mlflow.set_tag(made.info.run_id, SEARCH, self._key)
            found = runs.tagged(mlflow, place, SEARCH, self._key) or made  # another worker's may be first
        return str(found.info.run_id)

    def _experiment(self, mlflow: "MlflowClient") -> str:
        from components.register import runs

        return runs.experiment(mlflow, self._model_name)

    def _runs(self) -> "Iterator[Run]":
        mlflow = _client()
        page: str | None = ""
        place, wanted = self._experiment(mlflow), f"tags.`{TRIAL_OF}` = '{self._key}'"
        while page is not None:
            found = mlflow.search_runs([place], wanted, order_by=["attributes.start_time ASC"], page_token=page or None)
            yield from found
            page = found.token or None

    def _read(self, run: "Run") -> Trial | None:
        """A run as a trial; None for one that was interrupted."""
        run_id = run.info.run_id
        if run_id not in self._finished:
            facts = json.loads(run.data.tags[TRIAL])
            trial = Trial(**facts)
            if trial.state == "running":
                if run.info.status != "RUNNING":
                    return None
                self._open[trial.number] = run_id
                return trial
            history = _client().get_metric_history(run_id, trial.watched) if trial.watched else []
            epochs = {metric.step: metric.value for metric in history}
            self._finished[run_id] = Trial(**{**facts, "epochs": epochs})
        return self._finished[run_id]

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        from components.register.mlflow_client import reaching

        try:
            with reaching():
                yield
        except (Unreachable, BadInput, StorageFull) as error:
            if self._required:
                raise
            if not self._off:
                self._say(f"The search goes on without MLflow, and its trials are not kept. {error}")
            self._off = True


class TrialRun:
    """The run of one trial, while it is tried; :attr:`epochs` is a listener."""

    def __init__(self, mlflow: "MlflowClient", run_id: str, say: Callable[[str], None]) -> None:
        """Keep the run; :meth:`TrialRuns.begin` makes it."""
        self._mlflow, self._run_id = mlflow, run_id
        self.epochs = EpochLog(lambda _first: OpenRun(mlflow, run_id), say)

    def log_parameters(self, trial: Trial) -> None:
        """Write what is tried, for the table in MLflow's UI."""
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in trial.parameters.items()]
        self._mlflow.log_batch(self._run_id, params=params)

    def end(self, trial: Trial) -> None:
        """Write the outcome and close the run; one that stays ``running`` was interrupted and is to be tried again."""
        import time

        from mlflow.entities import Metric, RunTag

        self.epochs.flush()
        found = [] if trial.value is None else [Metric(VALUE, trial.value, int(time.time() * 1000), 0)]
        self._mlflow.log_batch(self._run_id, metrics=found, tags=[RunTag(TRIAL, trial.tag())])
        self._mlflow.set_terminated(self._run_id, "KILLED" if trial.state == "running" else _STATUS[trial.state])


def _client() -> "MlflowClient":
    from components.register.mlflow_client import client

    return client()
