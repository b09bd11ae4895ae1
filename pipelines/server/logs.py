"""What the steps of a run say: the logs of their pods, through the Kubernetes API.

KFP's own API does not do: it serves logs by the pod's name, which it does not tell, at an address that the UI does not
pass on, and it does not follow them. The pods of a run carry its id as a label, and Argo writes the path of each in the
run's graph into an annotation. They are gone when KFP has removed the run's workflow, by default a day after its end.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import BadInput, Unreachable
from components.step import MARK
from pipelines.record import component

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

_RUN = "pipeline/runid"
_NODE = "workflows.argoproj.io/node-name"
_STEP = re.compile(r"\.([^.()]+)(?:\(\d+[^)]*\))?\.executor(?:\((\d+)\))?$")
_CHATTER = re.compile(r"[IW]\d{4} \d\d:\d\d:\d\d\.\d+\s|time=\S+ level=info")
_SIGNS = {"started": "▶", "progress": " ", "finished": "✓", "failed": "✗"}
_TIMES = (10.0, 60.0)


@dataclass(frozen=True)
class Pod:
    """A step's pod.

    Attributes:
        name: the pod's.
        task: the task of the pipeline.
        attempt: 0 for the first.
        created: RFC 3339.
        phase: such as Running.
    """

    name: str
    task: str
    attempt: int
    created: str
    phase: str

    @property
    def step(self) -> str:
        """The component's name."""
        return component(self.task)

    @property
    def over(self) -> bool:
        """Whether it will say no more."""
        return self.phase in ("Succeeded", "Failed")


class Pods:
    """The pods of a run."""

    def __init__(self, api: "CoreV1Api", namespace: str, run_id: str) -> None:
        """Look there for them; nothing is asked yet."""
        self.api, self.namespace, self.run_id = api, namespace, run_id

    def all(self) -> list[Pod]:
        """Those of its steps, oldest first.

        Raises:
            Unreachable: the cluster cannot be reached, or does not let us look.
        """
        found = self._ask(
            "list the run's pods",
            lambda: self.api.list_namespaced_pod(
                self.namespace, label_selector=f"{_RUN}={self.run_id}", _request_timeout=_TIMES
            ),
        )
        pods = []
        for one in found.items:
            node = _STEP.search((one.metadata.annotations or {}).get(_NODE, ""))
            if node:
                created = one.metadata.creation_timestamp
                when = created.isoformat() if created else ""
                pods.append(Pod(one.metadata.name, node[1], int(node[2] or 0), when, one.status.phase or "Pending"))
        return sorted(pods, key=lambda one: (one.created, one.attempt, one.name))

    def lines(self, pod: Pod, follow: bool = False) -> Iterator[str]:
        """What a pod says; when the connection drops, it goes on after the last line.

        Raises:
            Unreachable: the cluster cannot be reached, or does not let us read.
        """
        from kubernetes.watch.watch import iter_resp_lines
        from urllib3.exceptions import HTTPError

        told = 0
        while True:
            answer = self._ask(
                f"read the log of the pod {pod.name}",
                lambda: self.api.read_namespaced_pod_log(
                    pod.name,
                    self.namespace,
                    container="main",
                    follow=follow or None,
                    _preload_content=False,
                    _request_timeout=_TIMES,
                ),
            )
            try:
                for number, line in enumerate(iter_resp_lines(answer)):
                    if number >= told:
                        told += 1
                        yield line
                return
            except HTTPError:  # nothing for a minute, or the connection dropped
                if not follow:
                    raise Unreachable(f"The log of the pod {pod.name} broke off: try again.") from None
            finally:
                answer.release_conn()

    def _ask(self, what: str, call: Callable[[], Any]) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ApiException as error:
            raise Unreachable(
                f"Cannot {what} in namespace {self.namespace}: {error.reason} ({error.status}); it needs list on pods "
                "and get on pods/log there."
            ) from error
        except HTTPError as error:
            raise Unreachable(f"Cannot {what}: the Kubernetes API does not answer ({type(error).__name__}).") from error


def pods_of(run_id: str, namespace: str, context: str = "") -> Pods:
    """The pods of a run.

    Args:
        run_id: the run's.
        namespace: where its pods are.
        context: of the kubeconfig; by default the current one, or in a pod its own service account.

    Raises:
        BadInput: there is no cluster to ask.
    """
    from kubernetes import client, config

    from components.cluster import credentials

    if not context:
        return Pods(client.CoreV1Api(credentials.client("")[0]), namespace, run_id)
    try:
        return Pods(client.CoreV1Api(config.new_client_from_config(context=context)), namespace, run_id)
    except config.ConfigException as error:
        raise BadInput(f"There is no context {context!r} in the kubeconfig: {error}.") from error


def told(
    pods: Pods, step: str = "", follow: Callable[[], bool] | None = None, every: float = 2.0
) -> Iterator[tuple[Pod, str]]:
    """Each line of the steps, with its pod: pod after pod in the order in which they began.

    Args:
        pods: the run's.
        step: only this step, by its task's or component's name.
        follow: says whether the run has ended; lines are then waited for until it has.
        every: seconds between two looks for new pods.

    Raises:
        BadInput: there are no pods, or none of this step.
        Unreachable: the cluster cannot be reached, or does not let us look.
    """
    done: set[str] = set()
    while True:
        ended = follow is None or follow()
        found = pods.all()
        fit = [one for one in found if step in ("", one.task, one.step)]
        for pod in fit:
            if pod.name not in done and pod.phase != "Pending":
                done.add(pod.name)
                yield from ((pod, line) for line in pods.lines(pod, follow is not None and not pod.over))
        if ended:
            break
        time.sleep(every)
    if not done:
        steps = ", ".join(dict.fromkeys(one.task for one in found))
        raise BadInput(
            f"The step {step!r} has no pod: those of the run are of {steps}; a step that was cached has none."
            if found
            else f"The run has no pods in namespace {pods.namespace}: it has not begun, or KFP has removed them since; "
            "what the cluster's log store has of them, docs/monitoring.md tells how to find."
        )


def events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """What a step says about itself among its lines, see :mod:`components.step`."""
    for line in lines:
        if (event := _event(line)) is not None:
            yield event


def readable(pod: Pod, line: str) -> str:
    """A line for people; empty for what only KFP's developers want to read."""
    event = _event(line)
    if event is None:
        return "" if _CHATTER.match(line) else f"         {pod.task:<12}  {line}"
    clock = time.strftime("%H:%M:%S", time.localtime(float(event.get("time", 0))))
    text = event.get("message") or event.get("fact") or ""
    tail = f" ({float(event['seconds']):.1f} s)" if "seconds" in event else ""
    again = f" attempt {pod.attempt + 1}" if pod.attempt and event[MARK] == "started" else ""
    return f"{clock} {pod.task:<12} {_SIGNS.get(event[MARK], ' ')} {text}{again}{tail}".rstrip()


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith(f'{{"{MARK}"'):
        return None
    try:
        event, _ = json.JSONDecoder().raw_decode(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None
