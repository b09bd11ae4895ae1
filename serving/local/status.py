"""The status of the InferenceService, in KServe's shape, from what the supervisor sees."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from serving.local.processes import HOST
from serving.local.revisions import Memory

if TYPE_CHECKING:
    from serving.local.servers import Server

REVISION_FAILED = "RevisionFailed"
PORT_TAKEN = "PortTaken"
PROXY_FAILED = "ProxyFailed"
STOPPED = "Stopped"
SUPERVISOR_GONE = "SupervisorGone"
HOPELESS = frozenset({REVISION_FAILED, PORT_TAKEN, PROXY_FAILED})
"""Reasons of a false condition that waiting does not mend."""


@dataclass(frozen=True)
class Finding:
    """One condition: ``True``, ``False`` or ``Unknown`` (on the way), and why."""

    status: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class View:
    """What the supervisor sees at one moment.

    Attributes:
        generation: of the document that was read last.
        memory: the revisions.
        goal: percent per revision that the document asks for.
        in_force: percent per revision that Envoy has confirmed; None before the first time.
        servers: all servers, those on their way out too.
        unhealthy: revisions whose server does not answer Envoy's health checks, though its process runs.
        ingress: state of Envoy and its listener.
        local: process ids and addresses of the supervisor and Envoy.
    """

    generation: int
    memory: Memory
    goal: dict[str, int]
    in_force: dict[str, int] | None
    servers: "dict[str, Server]"
    unhealthy: frozenset[str]
    ingress: Finding
    local: dict[str, Any]


def render(view: View, before: dict[str, Any]) -> dict[str, Any]:
    """The status document; ``before`` is the one written last, whose transition times are kept."""
    predictor = _predictor(view)
    routed = _routed(view)
    conditions = {"IngressReady": routed, "PredictorReady": predictor, "Ready": _first_bad(predictor, routed)}
    url = f"http://{HOST}:{view.memory.port}"
    memory = view.memory
    revisions = {
        "url": url,
        "latestCreatedRevision": memory.created,
        "latestReadyRevision": memory.ready,
        "latestRolledoutRevision": memory.rolledout,
        "previousRolledoutRevision": memory.previous,
        "traffic": _traffic(view),
    }
    return {
        "observedGeneration": view.generation,
        "url": url,
        "address": {"url": url},
        "conditions": with_times(conditions, before),
        "components": {"predictor": {key: value for key, value in revisions.items() if value}},
        "modelStatus": _model_status(view),
        "local": {**view.local, "servers": [_server(server) for server in view.servers.values()]},
    }


def with_times(findings: dict[str, Finding], before: dict[str, Any]) -> list[dict[str, str]]:
    """Conditions as Kubernetes writes them; the time changes only when the status does."""
    earlier = {condition["type"]: condition for condition in before.get("conditions", [])}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = []
    for kind, finding in findings.items():
        same = earlier.get(kind, {}).get("status") == finding.status
        condition = {"type": kind, "status": finding.status, "reason": finding.reason, "message": finding.message}
        condition["lastTransitionTime"] = earlier[kind]["lastTransitionTime"] if same else now
        conditions.append({key: value for key, value in condition.items() if value})
    return conditions


def stopped(before: dict[str, Any], message: str) -> dict[str, Any]:
    """A status without anything that runs."""
    return _without_processes(before, Finding("False", STOPPED, message))


def gone(before: dict[str, Any], message: str) -> dict[str, Any]:
    """A status whose writer died: nobody stopped the service, and it can be repaired."""
    return _without_processes(before, Finding("False", SUPERVISOR_GONE, message))


def starting(before: dict[str, Any], message: str) -> dict[str, Any]:
    """A status whose writer is gone while another supervisor has not written yet."""
    return _without_processes(before, Finding("Unknown", "Starting", message))


def _without_processes(before: dict[str, Any], finding: Finding) -> dict[str, Any]:
    conditions = with_times(dict.fromkeys(("IngressReady", "PredictorReady", "Ready"), finding), before)
    local = {"supervisor": {"pid": None}, "envoy": {"pid": None, "admin": None}, "servers": []}
    return {**before, "conditions": conditions, "local": local}


def _predictor(view: View) -> Finding:
    latest = view.servers.get(view.memory.created)
    if latest is None:
        return Finding("Unknown", "RevisionStarting", "The latest revision has no server yet.")
    if not latest.was_ready:
        if latest.failure:
            return Finding("False", REVISION_FAILED, latest.failure)
        return Finding("Unknown", "RevisionStarting", f"The server of {latest.revision} is not ready yet.")
    for name, server in view.servers.items():
        if name in view.goal and not server.ready:
            return Finding("False", "ServerRestarting", server.failure or f"The server of {name} is not ready yet.")
        if name in view.goal and name in view.unhealthy:
            return Finding("False", "ServerUnhealthy", f"The server of {name} does not answer its health checks.")
    return Finding("True")


def _routed(view: View) -> Finding:
    if view.ingress.status != "True":
        return view.ingress
    if view.in_force != {name: percent for name, percent in view.goal.items() if percent}:
        return Finding("Unknown", "TrafficShifting", "The proxy does not split the traffic as asked yet.")
    return Finding("True")


def _first_bad(*findings: Finding) -> Finding:
    for wanted in ("False", "Unknown"):
        for finding in findings:
            if finding.status == wanted:
                return finding
    return Finding("True")


def _traffic(view: View) -> list[dict[str, Any]]:
    """Who gets what now; the latest revision is listed without traffic too, once its own address answers."""
    shares = dict(view.in_force or {})
    latest = view.servers.get(view.memory.created)
    if latest is not None and latest.was_ready:
        shares.setdefault(latest.revision, 0)
    traffic = []
    for name, percent in shares.items():
        entry: dict[str, Any] = {
            "revisionName": name,
            "percent": percent,
            "latestRevision": name == view.memory.created,
            "tag": "latest" if name == view.memory.created else "prev",
        }
        if name in view.servers:
            entry["url"] = f"http://{HOST}:{view.servers[name].port}"
        traffic.append(entry)
    return traffic


def _model_status(view: View) -> dict[str, Any]:
    latest = view.servers.get(view.memory.created)
    active = view.servers.get(view.memory.rolledout)
    if latest is not None and latest.failure and not latest.was_ready:
        target, transition = "FailedToLoad", "BlockedByFailedLoad"
    elif latest is not None and latest.ready:
        target, transition = "Loaded", "UpToDate"
    else:
        target, transition = "Loading", "InProgress"
    status: dict[str, Any] = {"transitionStatus": transition, "states": {"targetModelState": target}}
    status["states"]["activeModelState"] = "Loaded" if active is not None and active.ready else ""
    if target == "FailedToLoad" and latest is not None:
        status["lastFailureInfo"] = {"reason": "ModelLoadFailed", "message": latest.failure}
    return status


def _server(server: "Server") -> dict[str, Any]:
    return {
        "revision": server.revision,
        "pid": server.process.pid if server.process else None,
        "port": server.port,
        "url": f"http://{HOST}:{server.port}",
        "ready": server.ready,
        "restarts": server.restarts,
        "storageUri": server.storage_uri,
    }
