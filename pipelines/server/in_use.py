"""Which versions of a pipeline must stay."""

from typing import Any

from pipelines.server.connection import Connection
from pipelines.server.pages import every, where

UNFINISHED = ["RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "CANCELING", "PAUSED"]


def versions_in_use(connection: Connection, pipeline_id: str) -> dict[str, str]:
    """The versions that a recurring run or a run that has not ended uses: id to what uses it.

    On a multi-user server, only the connection's namespace is looked through.
    """
    client = connection.client
    schedules = every(
        client.recurring_runs.recurring_run_service_list_recurring_runs,
        "recurring_runs",
        namespace=connection.namespace,
        page_size=100,
    )
    runs = every(
        client.runs.run_service_list_runs,
        "runs",
        namespace=connection.namespace,
        page_size=100,
        filter=where("state", "IN", UNFINISHED),
    )
    used: dict[str, str] = {}
    for kind, found in (("recurring run", schedules), ("run", runs)):
        for one in found:
            reference: Any = one.pipeline_version_reference
            if reference and reference.pipeline_id == pipeline_id and reference.pipeline_version_id:
                used.setdefault(reference.pipeline_version_id, f"the {kind} {one.display_name}")
    return used
