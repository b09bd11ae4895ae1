"""The nodes: every pod is a real process with an address of its own, watched, restarted and ended as a kubelet does."""

import copy
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from serving.local.folder import last_line
from serving.local.processes import end
from tests.cluster.kserve.names import new_address
from tests.cluster.kserve.processes import start
from tests.cluster.kserve.things import Plain, mark, now

PORT = 8080
ROOT = Path(__file__).resolve().parents[3]
_MODEL = Path(__file__).with_name("model.py")
_SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"


@dataclass
class Fault:
    """What goes wrong with the pods whose name, image, storage URI or node contains a text.

    Attributes:
        about: the text.
        kind: "image" cannot be pulled; "env" gives the server more environment.
        env: for "env".
    """

    about: str
    kind: str
    env: dict[str, str] = field(default_factory=dict)


class Nodes:
    """Where pods run; one that is lost takes its pods with it."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names, self.lost = names, dict[str, float]()
        self._next = 0

    def pick(self) -> str:
        up = [name for name in self.names if name not in self.lost] or list(self.names)
        self._next += 1
        return up[self._next % len(up)]


@dataclass
class Timing:
    """How long things take, in seconds; a cluster's own are far longer.

    Attributes:
        back_off: first pause before a crashed server is started again; doubles each time.
        most_back_off: longest such pause.
        image: to pull an image.
        notice: until a lost node counts as lost.
        evict: until the pods of a lost node are made anew elsewhere.
        grace: for a server to end by itself.
        route: until the gateway has taken up a changed HTTPRoute.
    """

    back_off: float = 0.3
    most_back_off: float = 3.0
    image: float = 0.0
    notice: float = 0.3
    evict: float = 1.0
    grace: float = 5.0
    route: float = 0.2


class Container:
    """The server of one pod."""

    def __init__(self, pod: Plain, folder: Path, server: str, faults: list[Fault], timing: Timing) -> None:
        self.pod, self.address = pod, new_address()
        self.ready = False
        self.ending = False
        self.unrouted = False
        self.restarts = 0
        self._log = folder / f"{pod['metadata']['name']}.log"
        self._server, self._faults, self._timing = server, faults, timing
        self._process: subprocess.Popen[bytes] | None = None
        self._made = time.monotonic()
        self._next_start = self._made + timing.image
        self._terminated: Plain | None = None
        self._started_at = now()
        self._killed_for = ""
        self._model = ""
        self._misses = 0
        self._probe: Future[bool] | None = None
        self._next_probe = 0.0
        self._told_to_end = 0.0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self, reason: str = "") -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        if self._process is not None and self.running:
            self._killed_for = reason
            self._process.kill()
            self._process.wait()

    def tick(self, pool: ThreadPoolExecutor) -> None:
        """Start, notice an end, ask whether it is ready."""
        if self.ending:
            return
        if self._process is None:
            if time.monotonic() >= self._next_start and not self._has("image"):
                self._start()
        elif self._process.poll() is not None:
            self._ended(self._process.returncode)
        else:
            self._ask(pool)

    def let_go(self) -> bool:
        """End it, now that nobody is sent here any more; gives whether it has ended."""
        if not self.running:
            return True
        assert self._process is not None
        if not self._told_to_end:
            self._process.terminate()
            self._told_to_end = time.monotonic()
        elif time.monotonic() - self._told_to_end > self._timing.grace:
            self._process.kill()
        return False

    def stop(self) -> None:
        if self._process is not None:
            end([self._process], grace_s=0.5)

    def _has(self, kind: str) -> bool:
        return any(fault.kind == kind for fault in self._mine())

    def _mine(self) -> list[Fault]:
        meta = self.pod["metadata"]
        image = self.pod["spec"]["containers"][0].get("image", "")
        text = f"{meta['name']} {image} {meta.get('annotations', {}).get(_SOURCE, '')}"
        return [fault for fault in self._faults if fault.about in text]

    def _start(self) -> None:
        container = self.pod["spec"]["containers"][0]
        env = {one["name"]: self._value(one) for one in container.get("env", [])}
        for fault in self._mine():
            env |= fault.env
        labels = self.pod["metadata"]["labels"]
        revision = labels.get("serving.knative.dev/revision") or labels["app"].removeprefix("isvc.")
        name = labels["serving.kserve.io/inferenceservice"]
        bundle = bundle_folder(self.pod["metadata"].get("annotations", {}).get(_SOURCE, ""))
        args = [f"--name={name}", f"--revision={revision}"]
        args += [re.sub(r"\$\((\w+)\)", lambda m: env.get(m[1], ""), arg) for arg in container.get("args", [])]
        args += ["--bundle", bundle, "--host", self.address, "--port", str(PORT)]
        self._model = [arg.removeprefix("--name=") for arg in args if arg.startswith("--name=")][-1]
        light = env.get("SIMULATION_SERVER", self._server) == "light"
        program = ["-I", "-S", str(_MODEL)] if light else ["-m", "serving.server"]
        base = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        self._process = start([sys.executable, *program, *args], self._log, {**base, **env})
        self._started_at, self._killed_for = now(), ""
        self._next_probe, self._misses = time.monotonic() + 0.05, 0

    def _value(self, entry: Plain) -> str:
        path = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
        if not path:
            return str(entry.get("value", ""))
        meta, named = self.pod["metadata"], re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
        if named:
            return str(meta.get(named[1], {}).get(named[2], ""))
        known = {"metadata.name": meta["name"], "metadata.namespace": meta["namespace"], "status.podIP": self.address}
        return str(known.get(path, ""))

    def _ended(self, code: int) -> None:
        said = last_line(self._log, 0) if self._log.exists() else ""
        code = 128 - code if code < 0 else code
        reason = self._killed_for or ("Completed" if code == 0 else "Error")
        ended = {"exitCode": code, "reason": reason, "startedAt": self._started_at, "finishedAt": now()}
        self._terminated = ended | ({"message": said} if said else {})
        pause = min(self._timing.most_back_off, self._timing.back_off * 2**self.restarts)
        self._next_start = time.monotonic() + pause
        self._process, self.ready = None, False
        self.restarts += 1

    def _ask(self, pool: ThreadPoolExecutor) -> None:
        if self._probe is None:
            if time.monotonic() >= self._next_probe:
                self._probe = pool.submit(_answers, self.address, self._ready_path())
        elif self._probe.done():
            good = self._probe.result()
            self._probe, self._misses = None, 0 if good else self._misses + 1
            self.ready = good or (self.ready and self._misses < 3)
            self._next_probe = time.monotonic() + (0.5 if good else 0.1)

    def _ready_path(self) -> str:
        probe = self.pod["spec"]["containers"][0].get("readinessProbe", {}).get("httpGet", {})
        return str(probe.get("path", f"/v2/models/{self._model}/ready"))

    def status(self) -> Plain:
        """The pod's status as the kubelet reports it."""
        status = copy.deepcopy(self.pod.get("status", {}))
        conditions = [one for one in status.get("conditions", []) if one["type"] != "DisruptionTarget"]
        container = self.pod["spec"]["containers"][0]
        state: Plain
        if self.running:
            state = {"running": {"startedAt": self._started_at}}
        elif self._has("image"):
            early = time.monotonic() - self._made < 0.5
            message = f'Back-off pulling image "{container.get("image", "")}"'
            state = {"waiting": {"reason": "ErrImagePull" if early else "ImagePullBackOff", "message": message}}
        elif self._terminated is None:
            state = {"waiting": {"reason": "ContainerCreating"}}
        elif self.restarts > 1:
            message = f"back-off restarting failed container={container['name']} pod={self.pod['metadata']['name']}"
            state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        else:
            state = {"terminated": self._terminated}
        for name, good in (("PodScheduled", True), ("Initialized", True), ("ContainersReady", self.ready)):
            mark(conditions, name, "True" if good else "False", "" if good else "ContainersNotReady")
        mark(conditions, "Ready", "True" if self.ready else "False", "" if self.ready else "ContainersNotReady")
        one = {
            "name": container["name"],
            "image": container.get("image", ""),
            "imageID": "",
            "ready": self.ready,
            "started": self.running,
            "restartCount": self.restarts,
            "state": state,
            "lastState": {"terminated": self._terminated} if self._terminated else {},
        }
        phase = "Running" if self.running or self.restarts else "Pending"
        shown = {"phase": phase, "conditions": conditions, "containerStatuses": [one], "startTime": self._started_at}
        if phase == "Running":
            shown |= {"podIP": self.address, "podIPs": [{"ip": self.address}]}
        return {**status, **shown, "startTime": status.get("startTime", self._started_at)}


def bundle_folder(uri: str) -> str:
    """Where a storage URI's files lie on this machine; the URI itself when they do not."""
    parsed = urlsplit(uri)
    return unquote(parsed.path) if parsed.scheme == "file" else uri


def _answers(address: str, path: str) -> bool:
    connection = HTTPConnection(address, PORT, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


class Kubelet:
    """All nodes' kubelets in one."""

    def __init__(
        self, view: Any, nodes: Nodes, folder: Path, server: str, timing: Timing, attempt: Callable[..., None]
    ) -> None:
        self.faults: list[Fault] = []
        self._view, self._nodes, self._folder = view, nodes, folder
        self._server, self._timing, self._attempt = server, timing, attempt
        self._containers: dict[str, Container] = {}
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="probe")

    def containers(self) -> list[Container]:
        """Of all pods that were not ended."""
        return list(self._containers.values())

    def reconcile(self) -> None:
        pods = {pod["metadata"]["uid"]: pod for pod in self._view.all("Pod") if pod["metadata"].get("ownerReferences")}
        for uid, pod in pods.items():
            if "serving.kserve.io/inferenceservice" not in pod["metadata"].get("labels", {}):
                continue
            if uid not in self._containers:
                if pod["metadata"].get("deletionTimestamp"):
                    self._attempt(self._view.delete, "Pod", pod, 0)  # it never ran here
                    continue
                self._containers[uid] = Container(pod, self._folder, self._server, self.faults, self._timing)
            self._one(self._containers[uid], pod)
        for uid, container in self._containers.items():
            if uid not in pods:
                container.ending = True

    def _one(self, container: Container, pod: Plain) -> None:
        container.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            container.ending = True
        lost = self._nodes.lost.get(pod["spec"].get("nodeName", ""))
        if lost is not None:
            self._on_a_lost_node(container, pod, time.monotonic() - lost)
            return
        container.tick(self._pool)
        if not container.ending:
            self._attempt(self._view.set_status, "Pod", pod, container.status())

    def _on_a_lost_node(self, container: Container, pod: Plain, seconds: float) -> None:
        container.kill()
        if seconds < self._timing.notice:
            return
        container.ready = False
        status = copy.deepcopy(pod.get("status", {}))
        for name in ("Ready", "ContainersReady"):
            mark(status.setdefault("conditions", []), name, "False", "NodeNotReady", "Node is not ready")
        if not container.ending:
            self._attempt(self._view.set_status, "Pod", pod, status)
        if seconds > self._timing.evict and not container.ending:
            container.ending = True
            self._attempt(self._view.delete, "Pod", pod, 0)  # as the node life-cycle and garbage controllers do

    def let_go(self) -> None:
        """End the servers that no route leads to any more."""
        pods = {pod["metadata"]["uid"]: pod for pod in self._view.all("Pod")}
        for uid, container in list(self._containers.items()):
            if not container.ending:
                continue
            if not container.unrouted:
                container.unrouted = True  # routed around since the tables just applied
            if container.let_go():
                del self._containers[uid]
                if uid in pods:
                    self._attempt(self._view.delete, "Pod", pods[uid], 0)

    def stop(self) -> None:
        for container in self.containers():
            container.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
