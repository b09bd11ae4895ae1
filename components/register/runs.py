"""The MLflow runs of models: training begins one, registration finds it by its recipe and ends it.

KFP's back end may have made a run for this task already (``MLFLOW_RUN_ID``, one per task and not per pipeline run);
then that one is used, and no second one is started.
"""

import os
from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.settings import settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_ID, EXPERIMENT_ID = "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"
LONGEST_PARAMETER = 6000


def of_this_task(mlflow: "MlflowClient") -> "Run | None":
    """The run that KFP's back end made for this task, if it did."""
    given = os.environ.get(RUN_ID)
    return mlflow.get_run(given) if given else None


def experiment(mlflow: "MlflowClient", model_name: str) -> str:
    """The id of the experiment that this task logs to: KFP's, or one named as the model, made where there is none.

    Raises:
        BadInput: the model's experiment was deleted.
    """
    if given := os.environ.get(EXPERIMENT_ID):
        return given
    own = of_this_task(mlflow)
    return str(own.info.experiment_id) if own is not None else _named(mlflow, model_name)


def tagged(mlflow: "MlflowClient", experiment_id: str, tag: str, value: str) -> "Run | None":
    """The first run of an experiment that has this tag."""
    found = mlflow.search_runs(
        [experiment_id], f"tags.`{tag}` = '{value}'", max_results=1, order_by=["attributes.start_time ASC"]
    )
    return found[0] if found else None


def parameters(run: "Run", recipe: dict[str, Any]) -> dict[str, str]:
    """What a run has yet to say about what a model was made with, cut to the length that MLflow takes.

    MLflow refuses to change a parameter, and KFP logs those of its task, some by the same names, in its own way.
    """
    chosen = {"trainer": recipe["trainer"], "seed": recipe["seed"]} | recipe["parameters"]
    return {name: str(value)[:LONGEST_PARAMETER] for name, value in chosen.items() if name not in run.data.params}


def _named(mlflow: "MlflowClient", name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = mlflow.get_experiment_by_name(name)
    if found is None:
        at = settings()
        local = at.tracking_uri.startswith("sqlite:")
        try:
            return str(mlflow.create_experiment(name, (at.home / "mlartifacts").as_uri() if local else None))
        except MlflowException as error:
            found = mlflow.get_experiment_by_name(name)  # another run made it meanwhile
            if found is None:
                raise error
    if found.lifecycle_stage == "deleted":
        raise BadInput(f"The MLflow experiment {name!r} was deleted: restore it, or choose another model name.")
    return str(found.experiment_id)
