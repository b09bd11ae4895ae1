"""Runs, as KFP's API server keeps them. What a cluster would make of them is said by the test: :meth:`Runs.become`."""

import base64
import json
from typing import Any

from tests.kfp_api.experiments import Experiments
from tests.kfp_api.listing import page
from tests.kfp_api.pipelines import Pipelines
from tests.kfp_api.refusals import CONFLICT, INVALID, NOT_FOUND, PRECONDITION, Refusal, internal, upload_body
from tests.kfp_api.store import Store

Plain = dict[str, Any]

FINISHED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
_STOPPABLE = ("PAUSED", "PENDING", "RUNNING", "RUNTIME_STATE_UNSPECIFIED")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "STRING": str,
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}
_FIELDS = {
    name: name
    for name in (
        "run_id",
        "display_name",
        "created_at",
        "finished_at",
        "description",
        "scheduled_at",
        "storage_state",
        "namespace",
        "experiment_id",
        "state",
        "recurring_run_id",
    )
} | {"id": "run_id", "name": "display_name", "status": "state"}


class Runs:
    """Handlers by operation, and what happens to runs."""

    def __init__(self, store: Store, pipelines: Pipelines, experiments: Experiments) -> None:
        """Serve this store."""
        self.store, self.pipelines, self.experiments = store, pipelines, experiments

    def create(self, body: Plain, **_: str) -> Plain:
        """Start a run of a version, of a pipeline's latest, or of a spec that comes along."""
        name = body.get("display_name", "")
        if not name:
            raise internal(Refusal(INVALID, "Run name cannot be empty"), "Failed to convert a API run detail")
        experiment, namespace = self.experiments.where(body.get("experiment_id", ""))
        recurring = body.get("recurring_run_id", "")
        for one in self.store.runs.values():  # the scheduler's replicas may both try
            if recurring and (one.get("recurring_run_id"), one["display_name"]) == (recurring, name):
                return _shown(one)
        source = self.source(body, "Failed to create a run due to error fetching manifest")
        check_parameters(source, body.get("runtime_config", {}).get("parameters", {}), self.store)
        now = self.store.now()
        made = {"run_id": body.get("run_id") or self.store.new_id(), "experiment_id": experiment, "display_name": name}
        made |= source | {
            "namespace": namespace,
            "description": body.get("description", ""),
            "storage_state": "AVAILABLE",
            "runtime_config": body.get("runtime_config"),
            "service_account": body.get("service_account") or "pipeline-runner",
            "created_at": now,
            "scheduled_at": now,
            "finished_at": "1970-01-01T00:00:00Z",
            "state": "PENDING",
            "recurring_run_id": recurring,
            "state_history": [{"update_time": now, "state": "PENDING"}],
        }
        self.store.runs[made["run_id"]] = made
        self.store.experiments[experiment]["last_run_created_at"] = now
        return _shown(made)

    def source(self, body: Plain, doing: str) -> Plain:
        """What is run; what cannot be found is the server's own failure, with status 500, as it is in KFP."""
        given = body.get("pipeline_version_reference") or {}
        version, pipeline = given.get("pipeline_version_id", ""), given.get("pipeline_id", "")
        try:
            if version:
                found = self.store.get(self.store.versions, "PipelineVersion", version)
                if pipeline and found["pipeline_id"] != pipeline:
                    raise Refusal(INVALID, f"Pipeline version {version} belongs to pipeline {found['pipeline_id']}")
            elif pipeline:
                found = self.pipelines.latest(pipeline)
            elif body.get("pipeline_spec"):
                return {"pipeline_spec": body["pipeline_spec"]}
            else:
                raise Refusal(INVALID, "Failed to fetch a template with an empty pipeline spec manifest")
        except Refusal as error:
            raise internal(error, doing) from error
        reference = {"pipeline_id": found["pipeline_id"], "pipeline_version_id": found["pipeline_version_id"]}
        return {"pipeline_version_reference": reference}

    def get(self, run_id: str, **_: str) -> Plain:
        """One by id."""
        return _shown(self._find(run_id))

    def list_all(self, **query: str) -> Plain:
        """Those of an experiment, or of a namespace."""
        experiment, namespace = query.pop("experiment_id", ""), self.store.namespace(query.pop("namespace", ""))
        if experiment:
            _, namespace = self.experiments.where(experiment)
        elif self.store.multi_user and not namespace:
            raise Refusal(INVALID, "A run cannot have an empty namespace in multi-user mode")
        self.store.allow(namespace)
        found = (
            one
            for one in self.store.runs.values()
            if one["namespace"] == namespace and experiment in ("", one["experiment_id"])
        )
        shown, rest = page(found, query, "run_id", _FIELDS)
        return ({"runs": [_shown(one) for one in shown]} if shown else {}) | rest

    def terminate(self, run_id: str, **_: str) -> Plain:
        """Stop one that has not ended."""
        found = self._find(run_id)
        if found["state"] not in _STOPPABLE:
            raise Refusal(INVALID, f"Failed to terminate a run {run_id}. Row not found")
        found["state"] = "CANCELING"  # which the server does not add to the history
        return {}

    def retry(self, run_id: str, **_: str) -> Plain:
        """Run what failed again, under the same id."""
        found = self._find(run_id)
        if found["state"] not in FINISHED:
            raise Refusal(CONFLICT, f"Cannot claim run {run_id} for retry: not in a terminal state")
        if found["state"] not in ("FAILED", "CANCELED"):  # a workflow that was stopped ends as failed
            raise Refusal(CONFLICT, "Workflow must be Failed/Error to retry", f"Failed to retry run {run_id}")
        found |= {"finished_at": "1970-01-01T00:00:00Z"}
        found.pop("error", None)
        self.become(run_id, "RUNNING")
        return {}

    def archive(self, run_id: str, **_: str) -> Plain:
        """Put one away."""
        self._find(run_id)["storage_state"] = "ARCHIVED"
        return {}

    def unarchive(self, run_id: str, **_: str) -> Plain:
        """Bring one back, unless its experiment is away."""
        found = self._find(run_id)
        experiment = self.store.experiments.get(found["experiment_id"], {})
        if experiment.get("storage_state") == "ARCHIVED":
            raise Refusal(
                PRECONDITION,
                f"Failed to unarchive run {run_id} as experiment {found['experiment_id']} must be un-archived first",
            )
        found["storage_state"] = "AVAILABLE"
        return {}

    def delete(self, run_id: str, **_: str) -> Plain:
        """Delete one, whatever its state."""
        self._find(run_id)
        del self.store.runs[run_id]
        return {}

    def log(self, run_id: str, node_id: str) -> bytes:
        """What a pod has said. The status is sent before the log is looked for: it is 200 in any case."""
        text = self.store.logs.get((run_id, node_id))
        if run_id not in self.store.runs or text is None:
            return upload_body(f"Failed to read logs for run {run_id}")
        return text.encode()

    def artifact(self, run_id: str, node_id: str, name: str) -> bytes:
        """What a step has written."""
        self._find(run_id)
        data = self.store.artifacts.get((run_id, node_id, name))
        if data is None:
            raise Refusal(NOT_FOUND, "artifact not found")
        return json.dumps({"data": base64.b64encode(data).decode()}).encode()

    def become(self, run_id: str, state: str, message: str = "", tasks: list[Plain] | None = None) -> None:
        """Have the cluster report a run's state.

        Args:
            run_id: which.
            state: such as "RUNNING" or "FAILED".
            message: why it failed.
            tasks: its tasks, as ``run_details.task_details`` shows them.
        """
        with self.store.lock:
            now, found = self.store.now(), self.store.runs[run_id]
            status: Plain = {"update_time": now, "state": state}
            if message:
                found["error"] = status["error"] = {"code": 2, "message": message}
            found["state"] = state
            found["state_history"] = [*found["state_history"], status]
            if state in FINISHED:
                found["finished_at"] = now
            if tasks is not None:
                found["run_details"] = {"task_details": tasks}

    def _find(self, run_id: str) -> Plain:
        return self.store.get(self.store.runs, "Run", run_id)


def check_parameters(source: Plain, given: Plain, store: Store) -> None:
    """Refuse parameters that the pipeline does not take, and lacking ones."""
    reference = source.get("pipeline_version_reference")
    spec = store.versions[reference["pipeline_version_id"]]["pipeline_spec"] if reference else source["pipeline_spec"]
    spec = spec.get("pipeline_spec", spec)
    known = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    for name, about in known.items():
        if name in given:
            wanted = _TYPES[about["parameterType"]]
            if not isinstance(given[name], wanted) or (wanted is not bool and isinstance(given[name], bool)):
                raise Refusal(INVALID, f"input parameter {name} requires type {about['parameterType']}")
        elif not about.get("isOptional") and "defaultValue" not in about:
            raise Refusal(
                INVALID, f"parameter {name} is not optional, yet has neither default value nor user provided value"
            )
    extra = ", ".join(name for name in given if name not in known)
    if extra:
        raise Refusal(INVALID, f"parameter(s) provided are not required by pipeline: {extra}")


def _shown(one: Plain) -> Plain:
    return {name: value for name, value in one.items() if value and name != "namespace"}
