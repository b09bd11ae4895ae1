"""What `sluiceway status` knows of the services of this machine."""

from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from serving.local import client
from serving.local.status import STOPPED, SUPERVISOR_GONE

State = Literal["ready", "not ready", "stopped", "dead"]

_WORDS: dict[State, str] = {
    "ready": "[green]ready[/]",
    "not ready": "[yellow]not ready[/]",
    "stopped": "[dim]stopped[/]",
    "dead": "[red]its supervisor has died[/]: sluiceway status --repair",
}


def service(home: Path, name: str) -> dict[str, Any]:
    """One service: name, state, address, model version and who gets how much traffic; empty if there is none."""
    document = client.read(home, name)
    if document is None:
        return {}
    status = document.get("status", {})
    ready: dict[str, Any] = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    state = _state(ready)
    running = state in ("ready", "not ready")
    traffic = status.get("components", {}).get("predictor", {}).get("traffic", []) if running else []
    return {
        "name": name,
        "state": state,
        "message": ready.get("message", ""),
        "url": status.get("url", "") if running else "",
        "model_version": document["metadata"].get("annotations", {}).get("sluiceway.dev/model-version", ""),
        "traffic": [{key: entry[key] for key in ("revisionName", "percent") if key in entry} for entry in traffic],
    }


def _state(ready: dict[str, Any]) -> State:
    if ready.get("status") == "True":
        return "ready"
    if ready.get("reason") == SUPERVISOR_GONE:
        return "dead"
    return "stopped" if ready.get("reason") == STOPPED else "not ready"


def live(home: Path, name: str) -> dict[str, Any]:
    """The service if it runs; empty if it does not."""
    found = service(home, name)
    return found if found and found["state"] in ("ready", "not ready") else {}


def services(home: Path, repair: bool) -> list[dict[str, Any]]:
    """Every service that was ever started here.

    Args:
        home: local state.
        repair: start the supervisors of those again that have died.
    """
    found = []
    for name in client.names(home):
        one = service(home, name)
        if repair and one["state"] == "dead":
            client.repair(home, name)
            generation = int((client.read(home, name) or {})["metadata"]["generation"])
            client.wait(home, name, generation, 60)
            one = service(home, name)
        found.append(one)
    return found


def show(found: list[dict[str, Any]], console: Console) -> None:
    """Print the services as a table."""
    if not found:
        console.print("No service was started here yet. Start one with: sluiceway run train-and-deploy")
        return
    table = Table("service", "state", "model", "traffic", "address", box=None, pad_edge=False)
    for one in found:
        shares = ", ".join(f"{entry['revisionName']} {entry['percent']} %" for entry in one["traffic"])
        state = _WORDS[one["state"]] + (f": {one['message']}" if one["state"] == "not ready" else "")
        version = f"v{one['model_version']}" if one["traffic"] else ""
        table.add_row(one["name"], state, version, shares, one["url"])
    console.print(table)
