"""Experiments, as KFP's API server keeps them."""

from typing import Any

from tests.kfp_api.listing import page
from tests.kfp_api.refusals import EXISTS, INVALID, Refusal, internal
from tests.kfp_api.store import Store

Plain = dict[str, Any]

_FIELDS = {
    "id": "experiment_id",
    "experiment_id": "experiment_id",
    "name": "display_name",
    "display_name": "display_name",
    "created_at": "created_at",
    "last_run_created_at": "last_run_created_at",
    "description": "description",
    "namespace": "namespace",
    "storage_state": "storage_state",
}


class Experiments:
    """Handlers by operation."""

    def __init__(self, store: Store) -> None:
        """Serve this store."""
        self.store = store

    def create(self, body: Plain, **_: str) -> Plain:
        """Make one; names are unique in a namespace."""
        name = body.get("display_name", "")
        if not name:
            raise internal(Refusal(INVALID, "Experiment must have a non-empty name"), "Failed to convert experiment")
        namespace = self.store.need_namespace(body.get("namespace", ""), "An experiment")
        held = self.store.experiments.values()
        if any((one["display_name"], one["namespace"]) == (name, namespace) for one in held):
            raise Refusal(
                EXISTS, f"Failed to create a new experiment. The name {name} already exists. Please specify a new name"
            )
        made = {"experiment_id": self.store.new_id(), "display_name": name, "namespace": namespace}
        made |= {"description": body.get("description", ""), "created_at": self.store.now()}
        made |= {"storage_state": "AVAILABLE", "last_run_created_at": "1970-01-01T00:00:00Z"}
        self.store.experiments[made["experiment_id"]] = made
        return _shown(made)

    def get(self, experiment_id: str, **_: str) -> Plain:
        """One by id."""
        return _shown(self._find(experiment_id))

    def list_all(self, **query: str) -> Plain:
        """Those of a namespace."""
        namespace = self.store.need_namespace(query.pop("namespace", ""), "An experiment")
        found = (one for one in self.store.experiments.values() if one["namespace"] == namespace)
        shown, rest = page(found, query, "experiment_id", _FIELDS)
        return ({"experiments": [_shown(one) for one in shown]} if shown else {}) | rest

    def delete(self, experiment_id: str, **_: str) -> Plain:
        """Delete one; its runs stay."""
        self._find(experiment_id)
        del self.store.experiments[experiment_id]
        return {}

    def archive(self, experiment_id: str, **_: str) -> Plain:
        """Put one away, with its runs, and stop its recurring runs."""
        self._find(experiment_id)["storage_state"] = "ARCHIVED"
        for one in self.store.runs.values():
            if one["experiment_id"] == experiment_id:
                one["storage_state"] = "ARCHIVED"
        for one in self.store.recurring.values():
            if one["experiment_id"] == experiment_id:
                one |= {"status": "DISABLED", "mode": "DISABLE"}
        return {}

    def unarchive(self, experiment_id: str, **_: str) -> Plain:
        """Bring one back; its runs stay away."""
        self._find(experiment_id)["storage_state"] = "AVAILABLE"
        return {}

    def where(self, experiment_id: str) -> tuple[str, str]:
        """The experiment and namespace of a new run; without one, the default experiment."""
        if experiment_id:
            return experiment_id, self._find(experiment_id)["namespace"]
        if self.store.multi_user:
            raise Refusal(INVALID, "Experiment id can not be empty in multi-user mode")
        for one in self.store.experiments.values():
            if one["display_name"] == "Default":
                return one["experiment_id"], ""
        about = "All runs created without specifying an experiment will be grouped here"
        return self.create({"display_name": "Default", "description": about})["experiment_id"], ""

    def _find(self, experiment_id: str) -> Plain:
        return self.store.get(self.store.experiments, "Experiment", experiment_id)


def _shown(one: Plain) -> Plain:
    return {name: value for name, value in one.items() if value}
