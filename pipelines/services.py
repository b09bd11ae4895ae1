"""What `sluiceway status` knows of the services of this machine."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.result import live_service
from serving.local import client


def services(home: Path, repair: bool) -> list[dict[str, Any]]:
    """Every service that was started here and not stopped.

    Args:
        home: local state.
        repair: start the supervisors of those again that have died.
    """
    found = []
    for name in client.names(home):
        alive = client.alive(home, name)
        if not alive and repair:
            client.repair(home, name)
            alive = True
        live = live_service(name)
        found.append({"name": name, "ready": False, **live, "supervisor": "running" if alive else "dead"})
    return found


def show(found: list[dict[str, Any]], console: Console) -> None:
    """Print the services as a table."""
    if not found:
        console.print("No service is running here. Start one with: sluiceway run train-and-deploy")
        return
    table = Table("service", "state", "model", "traffic", "address", box=None, pad_edge=False)
    for service in found:
        if service["supervisor"] == "dead":
            state = "[red]its supervisor has died[/]: sluiceway status --repair"
        else:
            state = "[green]ready[/]" if service["ready"] else "[yellow]not ready[/]"
        shares = ", ".join(f"{e['revisionName']} {e['percent']} %" for e in service.get("traffic", []))
        version = service.get("model_version", "")
        table.add_row(service["name"], state, f"v{version}" if version else "", shares, service.get("url", ""))
    console.print(table)
