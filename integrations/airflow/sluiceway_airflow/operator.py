"""The operator."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from airflow.sdk import BaseHook, BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowRescheduleException

from sluiceway_airflow.api import ApiError, Kfp, Run
from sluiceway_airflow.attempt import Attempt, attach_or_start
from sluiceway_airflow.connection import connect
from sluiceway_airflow.trigger import RunEnded


class SluicewayRunOperator(BaseOperator):
    """Run a pipeline on Kubeflow Pipelines and wait until it ends; fails when the run does.

    The connection is of type HTTP: host (with scheme and path), the token as its password, and in its extra
    ``{"namespace": "team-a", "token_file": "/var/run/secrets/kfp/token"}`` as needed.

    A restarted worker, and a retry while the run goes on, wait for the run that was started and start no second one.
    Killing the task ends the run; with ``mode="reschedule"`` only while a worker is looking, so prefer
    ``deferrable=True`` where Airflow has a triggerer, or ``mode="poke"``.

    Args:
        pipeline: the pipeline's name in KFP.
        version: its version; empty takes the newest.
        parameters: those that are not to have their defaults; templated.
        experiment: that runs are filed under.
        conn_id: the Airflow connection.
        mode: "poke" keeps the worker while it waits, "reschedule" frees it between looks.
        deferrable: wait in the triggerer.
        poke_interval: seconds between looks.
    """

    template_fields: Sequence[str] = ("pipeline", "version", "parameters", "experiment")
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}
    ui_color = "#d5e8f5"

    def __init__(
        self,
        *,
        pipeline: str,
        version: str = "",
        parameters: Mapping[str, Any] | None = None,
        experiment: str = "airflow",
        conn_id: str = "kfp_default",
        mode: Literal["poke", "reschedule"] = "reschedule",
        deferrable: bool = False,
        poke_interval: float = 30,
        **kwargs: Any,
    ) -> None:
        """See the class."""
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.version = version
        self.parameters = dict(parameters or {})
        self.experiment = experiment
        self.conn_id = conn_id
        self.mode = mode
        self.deferrable = deferrable
        self.poke_interval = poke_interval
        self._run_id = ""

    def execute(self, context: Context) -> dict[str, str]:
        """Start the run, or find it, and wait."""
        kfp = self._kfp()
        try:
            run, found = attach_or_start(
                kfp, _attempt(context), self.pipeline, self.version, self.parameters, self.experiment
            )
        except ApiError as error:
            raise AirflowFailException(str(error)) from error
        self._run_id = run.run_id
        self.log.info("%s run %s: %s", "Waiting for" if found else "Started", run.run_id, kfp.address(run.run_id))
        if self.deferrable and not run.ended:
            self.defer(
                trigger=RunEnded(self.conn_id, run.run_id, self.poke_interval),
                method_name="ended",
            )
        while not run.ended:
            self.log.info("Run %s is %s.", run.run_id, run.state)
            if self.mode == "reschedule":
                raise AirflowRescheduleException(datetime.now(UTC) + timedelta(seconds=self.poke_interval))
            time.sleep(self.poke_interval)
            run = kfp.run(run.run_id)
        return self._result(kfp, run)

    def ended(self, context: Context, event: dict[str, str]) -> dict[str, str]:
        """Go on where the triggerer saw the run end, or could look no longer."""
        run_id = event["run_id"]
        if "error" in event:
            raise AirflowException(f"{event['error']} Run {run_id} may still go on; a retry waits for it.")
        kfp = self._kfp()
        return self._result(kfp, kfp.run(run_id))

    def on_kill(self) -> None:
        """End the run; whoever is waiting for it then sees it end."""
        if self._run_id:
            self.log.info("Ending run %s.", self._run_id)
            self._kfp().terminate(self._run_id)

    def _result(self, kfp: Kfp, run: Run) -> dict[str, str]:
        where = kfp.address(run.run_id)
        if run.state == "CANCELED":
            raise AirflowFailException(f"Somebody ended run {run.run_id} in KFP: {where}")
        if not run.succeeded:
            raise AirflowException(f"Run {run.run_id} {run.why or run.state.lower()}: {where}")
        return {"run_id": run.run_id, "state": run.state, "url": where}

    def _kfp(self) -> Kfp:
        return connect(BaseHook.get_connection(self.conn_id))


def _attempt(context: Context) -> Attempt:
    task = context["ti"]
    index = -1 if task.map_index is None else task.map_index
    return Attempt(task.dag_id, task.task_id, task.run_id, index, task.try_number)
