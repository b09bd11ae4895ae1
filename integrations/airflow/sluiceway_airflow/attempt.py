"""One try of an Airflow task at one KFP run: which run is its own, whatever happened to the worker.

Nothing here imports Airflow.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sluiceway_airflow.api import Kfp, Run


@dataclass(frozen=True)
class Attempt:
    """What names a try of a task.

    Attributes:
        dag_id: of the DAG.
        task_id: of the task.
        dag_run: the DAG run's id.
        map_index: of a mapped task; -1 otherwise.
        number: which try it is.
    """

    dag_id: str
    task_id: str
    dag_run: str
    map_index: int
    number: int

    @property
    def key(self) -> str:
        """The same for all tries of the task in this DAG run, on every worker."""
        whole = "\n".join((self.dag_id, self.task_id, self.dag_run, str(self.map_index)))
        return f"airflow-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"

    @property
    def name(self) -> str:
        """Of its KFP run; a person reads the DAG and task in it."""
        return f"{self.dag_id[:40]}.{self.task_id[:40]} {self.key} try {self.number}"


def attach_or_start(
    kfp: Kfp, attempt: Attempt, pipeline: str, version: str, parameters: Mapping[str, Any], experiment: str
) -> tuple[Run, bool]:
    """The run of this try, and whether it was there already.

    A worker that comes back finds the run that it started. So does the next try, while that run is still going on: it
    was the worker that failed, or KFP that could not be reached. A run that has ended belongs to its own try alone, so
    that a task that failed, or was cleared, runs anew.

    Raises:
        ApiError: KFP refused.
        Unreachable: no answer.
    """
    mine = [one for one in kfp.named(attempt.key) if one.name == attempt.name or not one.ended]
    if mine:
        return mine[0], True
    return kfp.start(attempt.name, pipeline, version, parameters, experiment), False
