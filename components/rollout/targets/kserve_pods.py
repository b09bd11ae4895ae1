"""Servers of one version: how many can answer, and why the others cannot."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from components.rollout.targets.kserve_fields import at
from components.rollout.targets.target import Copies

Plain = dict[str, Any]

_SERVER = "kserve-container"
_NEVER = (
    *("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"),
    *("CreateContainerError", "RunContainerError", "CrashLoopBackOff"),
)
_LOST = ("DeletionByTaintManager", "NodeLost", "TerminationByKubelet")
_LONGEST = 300


@dataclass(frozen=True)
class Trouble:
    """Why a server cannot answer.

    Attributes:
        text: one sentence without its full stop.
        hopeless: whether it will not pass by itself, as far as can be told.
    """

    text: str
    hopeless: bool = False


def copies(deployment: Plain | None, pods: list[Plain], revision: str, url: str = "") -> Copies:
    """The servers of one version from its Deployment and pods."""
    if deployment is None:
        return Copies(revision, url=url)
    found = trouble(deployment, pods)
    return Copies(
        revision=revision,
        ready=at(deployment, "status.availableReplicas") or 0,
        wanted=deployment["spec"].get("replicas", 1),
        trouble=found.text if found else "",
        restarts=sum(_restarts(pod) for pod in pods),
        url=url,
    )


def _restarts(pod: Plain) -> int:
    return sum(
        one.get("restartCount", 0) for one in at(pod, "status.containerStatuses") or [] if one["name"] == _SERVER
    )


def trouble(deployment: Plain | None, pods: list[Plain]) -> Trouble | None:
    """The worst that a version's pods are in; None when none is in trouble."""
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    found = [one for pod in pods if (one := _lost(pod))]
    found += [one for pod in alive if not _ready(pod) for one in _of_pod(pod)]
    found += list(_of_deployment(deployment))
    return next((one for one in found if one.hopeless), found[0] if found else None)


def _ready(pod: Plain) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in at(pod, "status.conditions") or [])


def _lost(pod: Plain) -> Trouble | None:
    name, node = pod["metadata"]["name"], at(pod, "spec.nodeName") or "its node"
    gone = at(pod, "status.reason") == "NodeLost" or any(
        one["type"] == "DisruptionTarget" and one["status"] == "True" and one.get("reason") in _LOST
        for one in at(pod, "status.conditions") or []
    )
    running = any("running" in one.get("state", {}) and one.get("ready") for one in _statuses(pod))
    # The node's controller takes the pod's readiness away, and nobody is left to say that its container has ended.
    if gone or (running and not _ready(pod) and not pod["metadata"].get("deletionTimestamp")):
        return Trouble(f"node {node} of pod {name} does not answer")
    return None


def _statuses(pod: Plain) -> list[Plain]:
    return [*(at(pod, "status.initContainerStatuses") or []), *(at(pod, "status.containerStatuses") or [])]


def _of_pod(pod: Plain) -> Iterator[Trouble]:
    name = pod["metadata"]["name"]
    for one in at(pod, "status.conditions") or []:
        if one["type"] == "PodScheduled" and one["status"] == "False":
            yield Trouble(f"pod {name} has no node: {_last_line(one.get('message', ''))}")
    if at(pod, "status.phase") == "Failed":
        yield Trouble(f"pod {name} has ended: {at(pod, 'status.reason')} {_last_line(at(pod, 'status.message') or '')}")
    for status in _statuses(pod):
        yield from _of_container(name, status)


def _of_container(pod: str, status: Plain) -> Iterator[Trouble]:
    container = status["name"]
    waiting = at(status, "state.waiting") or {}
    ended = at(status, "state.terminated") or at(status, "lastState.terminated") or {}
    reason, times = waiting.get("reason", ""), status.get("restartCount", 0)
    what = "the model could not be fetched" if container == "storage-initializer" else f"{container} ended"
    words = _last_line(ended.get("message", ""))
    said = f"; it said: {words}" if words else ""
    if ended.get("reason") == "OOMKilled":
        yield Trouble(f"{container} of pod {pod} ran out of memory (OOMKilled, {times} restarts)", hopeless=times > 0)
    elif ended and ended.get("exitCode", 0) != 0:
        looping = f"{reason or ended.get('reason', 'Error')}, exit code {ended['exitCode']}, {times} restarts"
        # Between two waits of a crash loop the container runs for a moment, or has just ended.
        yield Trouble(f"{what} in pod {pod} ({looping}){said}", hopeless=reason == "CrashLoopBackOff" or times > 1)
    elif reason in _NEVER:
        told = _last_line(waiting.get("message", ""))
        yield Trouble(f"{container} of pod {pod} cannot start: {reason}{f', {told}' if told else ''}", hopeless=True)


def _of_deployment(deployment: Plain | None) -> Iterator[Trouble]:
    for one in at(deployment, "status.conditions") or []:
        failed = one["type"] == "ReplicaFailure" and one["status"] == "True"
        late = one["type"] == "Progressing" and one["status"] == "False"
        if failed or late:
            yield Trouble(
                f"Kubernetes says {one.get('reason', one['type'])}: {_last_line(one.get('message', ''))}", late
            )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_LONGEST].rstrip(".") if lines else ""
