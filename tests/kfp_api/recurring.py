"""Recurring runs, as KFP's API server keeps them; they start nothing by themselves: :meth:`Recurring.fire`."""

from typing import Any

from tests.kfp_api.experiments import Experiments
from tests.kfp_api.listing import page
from tests.kfp_api.refusals import INVALID, Refusal, internal
from tests.kfp_api.runs import Runs, check_parameters
from tests.kfp_api.store import Store

Plain = dict[str, Any]

_FIELDS = {name: name for name in ("recurring_run_id", "display_name", "created_at", "updated_at", "description")} | {
    "id": "recurring_run_id",
    "name": "display_name",
}


class Recurring:
    """Handlers by operation. There is none that changes one: it is deleted and made anew."""

    def __init__(self, store: Store, runs: Runs, experiments: Experiments) -> None:
        """Serve this store."""
        self.store, self.runs, self.experiments = store, runs, experiments

    def create(self, body: Plain, **_: str) -> Plain:
        """Make one; names need not be unique."""
        name = body.get("display_name", "")
        if not name:
            raise internal(Refusal(INVALID, "Recurring run's name cannot be empty"), "Failed to convert recurring run")
        experiment, namespace = self.experiments.where(body.get("experiment_id", ""))
        if body.get("namespace", "") not in ("", namespace):
            raise Refusal(INVALID, f"Experiment {experiment} belongs to namespace '{namespace}'")
        _check_cron(body.get("trigger", {}).get("cron_schedule", {}).get("cron"))
        source = self.runs.source(body, "Failed to create a recurring run with an invalid pipeline spec manifest")
        check_parameters(source, body.get("runtime_config", {}).get("parameters", {}), self.store)
        pinned = (body.get("pipeline_version_reference") or {}).get("pipeline_version_id")
        if "pipeline_version_reference" in source and not pinned:  # takes the latest version each time
            source = {
                "pipeline_version_reference": {"pipeline_id": source["pipeline_version_reference"]["pipeline_id"]}
            }
        now, enabled = self.store.now(), body.get("mode") == "ENABLE"
        made = source | {
            "recurring_run_id": self.store.new_id(),
            "display_name": name,
            "description": body.get("description", ""),
            "runtime_config": body.get("runtime_config"),
            "service_account": body.get("service_account") or "pipeline-runner",
            "max_concurrency": str(body.get("max_concurrency", "")),
            "trigger": body.get("trigger", {}),
            "mode": "ENABLE" if enabled else "DISABLE",
            "status": "ENABLED" if enabled else "DISABLED",
            "created_at": now,
            "updated_at": now,
            "no_catchup": body.get("no_catchup"),
            "namespace": namespace or "kubeflow",
            "experiment_id": experiment,
        }
        self.store.recurring[made["recurring_run_id"]] = made
        return _shown(made)

    def get(self, recurring_run_id: str, **_: str) -> Plain:
        """One by id."""
        return _shown(self._find(recurring_run_id))

    def list_all(self, **query: str) -> Plain:
        """Those of an experiment, or of a namespace."""
        experiment, namespace = query.pop("experiment_id", ""), self.store.namespace(query.pop("namespace", ""))
        if experiment:
            _, namespace = self.experiments.where(experiment)
        elif self.store.multi_user and not namespace:
            raise Refusal(INVALID, "A recurring run cannot have an empty namespace in multi-user mode")
        self.store.allow(namespace)
        found = (
            one
            for one in self.store.recurring.values()
            if namespace in ("", one["namespace"]) and experiment in ("", one["experiment_id"])
        )
        shown, rest = page(found, query, "recurring_run_id", _FIELDS)
        return ({"recurringRuns": [_shown(one) for one in shown]} if shown else {}) | rest

    def enable(self, recurring_run_id: str, **_: str) -> Plain:
        """Let it start runs."""
        self._find(recurring_run_id).update(status="ENABLED", mode="ENABLE", updated_at=self.store.now())
        return {}

    def disable(self, recurring_run_id: str, **_: str) -> Plain:
        """Let it start none."""
        self._find(recurring_run_id).update(status="DISABLED", mode="DISABLE", updated_at=self.store.now())
        return {}

    def delete(self, recurring_run_id: str, **_: str) -> Plain:
        """Delete one; runs that it started stay."""
        self._find(recurring_run_id)
        del self.store.recurring[recurring_run_id]
        return {}

    def fire(self, recurring_run_id: str) -> str:
        """Start a run, as the scheduler would; its id."""
        with self.store.lock:
            found = self.store.recurring[recurring_run_id]
            count = sum(one.get("recurring_run_id") == recurring_run_id for one in self.store.runs.values())
            body = {name: found[name] for name in ("experiment_id", "recurring_run_id", "runtime_config")}
            body |= {name: found[name] for name in ("pipeline_version_reference", "pipeline_spec") if name in found}
            body = {name: value for name, value in body.items() if value}
            made = self.runs.create(body | {"display_name": f"{found['display_name']}-{count + 1}"})
            return str(made["run_id"])

    def _find(self, recurring_run_id: str) -> Plain:
        return self.store.get(self.store.recurring, "Job", recurring_run_id)


def _check_cron(cron: str | None) -> None:
    """Six fields, seconds first, or an @ form: what robfig/cron takes."""
    if cron is None or cron.startswith("@"):
        return
    if len(cron.split()) not in (5, 6):
        raise Refusal(
            INVALID,
            "Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron). "
            f"Error: Expected 5 to 6 fields, found {len(cron.split())}: {cron}",
        )


def _shown(one: Plain) -> Plain:
    return {name: value for name, value in one.items() if value or name == "trigger"}
