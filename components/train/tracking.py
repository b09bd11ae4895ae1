"""Tells MLflow of every epoch; where no epoch is reported, nothing of MLflow is imported."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import BadInput, SluicewayError, StorageFull, Unreachable
from components.train.interrupt import Interrupted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

EVERY = 10.0
"""Seconds between two batches to MLflow; what a watcher waits at most for the newest epoch."""
LONGEST_PAUSE = 600.0
BATCH = 1000
"""Metrics that MLflow takes in one call."""


@dataclass(frozen=True)
class OpenRun:
    """An MLflow run to send to.

    Attributes:
        mlflow: the client.
        run_id: of the run.
        after: epochs up to this one are there already, from an attempt that was killed.
        ours: whether to end it; KFP ends its own.
    """

    mlflow: "MlflowClient"
    run_id: str
    after: int = 0
    ours: bool = True


class EpochLog:
    """A listener of :class:`components.train.contract.Run` that sends epochs to MLflow and never stops a training.

    While MLflow is away the epochs are kept and sent later; that is said once, and tried ever more rarely.

    Args:
        opening: gives the run; called before the first batch, inside ``reaching``.
        say: tells the person who watches.
        every: seconds between batches.
    """

    def __init__(
        self,
        opening: Callable[[Mapping[str, float]], OpenRun],
        say: Callable[[str], None],
        every: float = EVERY,
    ) -> None:
        """Nothing is opened yet."""
        self._opening, self._say, self._every = opening, say, every
        self._run: OpenRun | None = None
        self._waiting: list[tuple[str, float, int, int]] = []
        self._next, self._pause = 0.0, every
        self._complained = False

    def __call__(self, number: int, metrics: Mapping[str, float]) -> None:
        """Keep an epoch, and send what was kept when it is time."""
        now = int(time.time() * 1000)
        self._waiting += [(name, float(v), now, number) for name, v in metrics.items() if math.isfinite(v)]
        if time.monotonic() >= self._next:
            self.flush()

    def flush(self) -> bool:
        """Send what is kept; False where MLflow is away and something still waits."""
        return not self._waiting or self._reach(self._send)

    def close(self, status: str, *, empty: bool = False) -> None:
        """Send the rest and end the run as ``FINISHED``, ``FAILED`` or ``KILLED``.

        Args:
            status: how it ended.
            empty: open the run even where no epoch was told; without, nothing is opened or imported then.
        """
        if not self.flush():
            self._say(f"{len(self._waiting):,} metrics of epochs were never sent to MLflow: it did not come back.")
        elif self._run is not None or empty:
            self._reach(lambda run: run.mlflow.set_terminated(run.run_id, status) if run.ours else None)

    def _reach(self, call: Callable[[OpenRun], None]) -> bool:
        from components.register.mlflow_client import reaching

        try:
            with reaching():
                if self._run is None:
                    self._run = self._opening({name: value for name, value, *_ in self._waiting})
                call(self._run)
        except (Unreachable, BadInput, StorageFull) as error:
            self._put_off(error)
            return False
        self._pause = self._every
        self._next = time.monotonic() + self._every
        return True

    def _send(self, run: OpenRun) -> None:
        self._waiting = [kept for kept in self._waiting if kept[3] > run.after]
        while self._waiting:
            run.mlflow.log_batch(run.run_id, metrics=_metrics(self._waiting[:BATCH]))
            del self._waiting[:BATCH]

    def _put_off(self, error: SluicewayError) -> None:
        if not self._complained:
            self._say(f"Training goes on without MLflow; what it misses is sent when it is back. {error}")
        self._complained = True
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self._next = time.monotonic() + self._pause


@contextmanager
def tracked(
    model_name: str,
    recipe: Mapping[str, Any],
    recipe_digest: str,
    say: Callable[[str], None],
    run_id: str = "",
) -> Iterator[EpochLog]:
    """A listener that logs a training's epochs to the MLflow run that registration will complete.

    The run is KFP's for this task, or ``run_id``, or the one that an earlier attempt of this recipe began, or new. It
    carries the recipe's parameters and digest. It ends as the block does; an interrupted one is taken up again.

    Args:
        model_name: the registered model, which names the experiment.
        recipe: what decides what the model is; see :func:`components.train.recipe.recipe`.
        recipe_digest: its digest.
        say: tells the person who watches.
        run_id: of the search that found the parameters, so that its trials are children of the model's run; then it
            is opened without an epoch too.
    """
    log = EpochLog(lambda first: _model_run(model_name, dict(recipe), recipe_digest, run_id, first), say)
    status = "FAILED"
    try:
        yield log
        status = "FINISHED"
    except Interrupted:
        status = "KILLED"
        raise
    finally:
        log.close(status, empty=bool(run_id))


def _model_run(
    model_name: str, recipe: dict[str, Any], recipe_digest: str, run_id: str, first: Mapping[str, float]
) -> OpenRun:
    from mlflow.entities import Param, RunTag

    from components.register import runs
    from components.register.mlflow_client import client
    from components.register.registry import RECIPE

    mlflow = client()
    place, own = runs.experiment(mlflow, model_name), runs.of_this_task(mlflow)
    found = own or (mlflow.get_run(run_id) if run_id else runs.tagged(mlflow, place, RECIPE, recipe_digest))
    run = found or mlflow.create_run(place, tags={RECIPE: recipe_digest}, run_name=recipe_digest[:12])
    if found is not None and run.info.status != "RUNNING":
        mlflow.update_run(run.info.run_id, status="RUNNING")
    mlflow.log_batch(
        run.info.run_id,
        params=[Param(name, value) for name, value in runs.parameters(run, recipe).items()],
        tags=[RunTag(RECIPE, recipe_digest)],
    )
    return OpenRun(mlflow, run.info.run_id, after=_last_epoch(mlflow, run, first), ours=own is None)


def _last_epoch(mlflow: "MlflowClient", run: Any, first: Mapping[str, float]) -> int:
    known = [name for name in first if name in run.data.metrics]
    return max(
        (metric.step for name in known[:1] for metric in mlflow.get_metric_history(run.info.run_id, name)), default=0
    )


def _metrics(kept: list[tuple[str, float, int, int]]) -> "list[Metric]":
    from mlflow.entities import Metric

    return [Metric(name, value, at, step) for name, value, at, step in kept]
