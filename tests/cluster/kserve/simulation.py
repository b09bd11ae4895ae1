"""A cluster's KServe in this process: controllers, nodes and gateway around a real API, real servers, real Envoy."""

import copy
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tests.cluster.kserve import admission, names
from tests.cluster.kserve.activator import Activator
from tests.cluster.kserve.api import RESOURCES, Api, View, ensure
from tests.cluster.kserve.client import Client
from tests.cluster.kserve.controller import Controller
from tests.cluster.kserve.deployments import Deployments
from tests.cluster.kserve.gateway import Gateway
from tests.cluster.kserve.hub import Hub
from tests.cluster.kserve.kubelet import PORT, Container, Fault, Kubelet, Nodes, Timing
from tests.cluster.kserve.network import Network
from tests.cluster.kserve.things import Plain, key, mark

_TICK = 0.1
CONTROLLER_NAMESPACE = "kserve"


@dataclass
class Options:
    """What kind of cluster it is.

    Attributes:
        default_mode: of InferenceServices without the annotation: Knative or Standard.
        gateway_api: whether KServe is set to use Gateway API.
        splits: whether this version of KServe gives an HTTPRoute weights for ``spec.canary``; v0.20 does not.
        version: of KServe, as its controller's image says.
        gateway: "namespace/name" of the Gateway.
        server: "light" for the little model server, "bundle" for the project's own.
        deadline: seconds in which a Deployment must make progress.
        nodes: their names.
        timing: of the nodes.
    """

    default_mode: Literal["Knative", "Standard"] = "Knative"
    gateway_api: bool = True
    splits: bool = True
    version: str = "v0.21.0"
    gateway: str = "kserve/kserve-ingress-gateway"
    server: Literal["light", "bundle"] = "light"
    deadline: float = 600
    nodes: tuple[str, ...] = ("node-a", "node-b")
    timing: Timing = field(default_factory=Timing)


class Faults:
    """What a test makes go wrong; ``about`` is part of a pod's name, image or storage URI."""

    def __init__(
        self, kubelet: Kubelet, nodes: Nodes, changed: threading.Event, mark_node: Callable[..., None]
    ) -> None:
        self._kubelet, self._nodes, self._changed, self._mark_node = kubelet, nodes, changed, mark_node

    def image_cannot_be_pulled(self, about: str) -> None:
        self._add(Fault(about, "image"))

    def refuses_to_load(self, about: str) -> None:
        self._add(Fault(about, "env", {"MODEL_REFUSE": "1"}))

    def crashes_after(self, about: str, requests: int) -> None:
        self._add(Fault(about, "env", {"MODEL_CRASH_AFTER": str(requests)}))

    def never_ready(self, about: str) -> None:
        self._add(Fault(about, "env", {"MODEL_NEVER_READY": "1"}))

    def slow_to_start(self, about: str, seconds: float) -> None:
        self._add(Fault(about, "env", {"MODEL_START_MS": str(seconds * 1000)}))

    def busy(self, about: str, seconds: float, start: float = 0) -> None:
        """Servers that take so long for each request, one after the other, and to start; overloaded they answer 503."""
        self._add(Fault(about, "env", {"MODEL_WORK_MS": str(seconds * 1000), "MODEL_START_MS": str(start * 1000)}))

    def worse(self, about: str, errors: float = 0, delay_ms: float = 0, shift: float = 0) -> None:
        env = {"MODEL_ERRORS": str(errors), "MODEL_DELAY_MS": str(delay_ms), "MODEL_SHIFT": str(shift)}
        self._add(Fault(about, "env", env))

    def clear(self) -> None:
        """Pods started from now on are well."""
        self._kubelet.faults.clear()
        self._changed.set()

    def out_of_memory(self, about: str) -> int:
        """Kill the servers of some pods now, as the kernel does; gives how many."""
        return self._kill(about, "OOMKilled")

    def kill(self, about: str) -> int:
        """Kill the servers of some pods now; gives how many."""
        return self._kill(about, "")

    def lose_node(self, name: str) -> None:
        """Everything on a node is gone at once."""
        self._nodes.lost[name] = time.monotonic()
        for container in self._kubelet.containers():
            if container.pod["spec"]["nodeName"] == name:
                container.kill()
        self._mark_node(name, "Unknown")
        self._changed.set()

    def bring_node_back(self, name: str) -> None:
        self._nodes.lost.pop(name, None)
        self._mark_node(name, "True")
        self._changed.set()

    def _add(self, fault: Fault) -> None:
        self._kubelet.faults.append(fault)

    def _kill(self, about: str, reason: str) -> int:
        hit = [one for one in self._kubelet.containers() if about in _text(one) and one.running]
        for container in hit:
            container.kill(reason)
        self._changed.set()
        return len(hit)


class Simulation:
    """The running cluster; see :func:`kserve`."""

    def __init__(self, client: ApiClient, options: Options, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.api = Api(client)
        self.view = View(self.api)
        self.gateway = Gateway(folder / "gateway")
        self.troubles: list[str] = []
        nodes = Nodes(options.nodes)
        self.kubelet = Kubelet(self.view, nodes, folder / "pods", options.server, options.timing, self._attempt)
        self.hub = Hub(self.kubelet.containers)
        self.faults = Faults(self.kubelet, nodes, self.view.changed, self._mark_node)
        self._deployments = Deployments(self.view, nodes, self._attempt)
        self._network = Network(self.view, options.gateway, options.timing.route)
        self._activator = Activator(lambda: self._network.ready)
        self._network.activator = self._activator.address
        self._controller = Controller(self.view, options, self._attempt, lambda host: self.gateway.shares.get(host))
        self._over = threading.Event()
        self._paused = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kserve-simulation", daemon=True)

    def client(self, service: str, namespace: str = "default", host: str = "", **more: Any) -> Client:
        """A client of a service by its status.url, or of any other host name."""
        if not host:
            isvc = self.wait("InferenceService", service, lambda one: one.get("status", {}).get("url"), namespace)
            host = urlsplit(isvc["status"]["url"]).netloc
        return Client(self.gateway.address, host, service, **more)

    def get(self, kind: str, name: str, namespace: str = "default") -> Plain | None:
        """An object as the simulation last saw it."""
        return copy.deepcopy(self.view.get(kind, namespace, name))

    def wait(
        self, kind: str, name: str, done: Callable[[Plain], Any], namespace: str = "default", seconds: float = 20
    ) -> Plain:
        """The object, once it is as asked."""
        ends = time.monotonic() + seconds
        while True:
            found = self.get(kind, name, namespace)
            if found is not None and done(found):
                return found
            if time.monotonic() > ends:
                raise AssertionError(f"{kind} {name} is not as expected after {seconds} s: {json.dumps(found)[:4000]}")
            time.sleep(0.02)

    def pods(self, about: str = "", namespace: str = "default") -> list[Plain]:
        """The pods whose name contains a text."""
        found = [pod for pod in self.view.all("Pod") if key(pod)[0] == namespace and about in key(pod)[1]]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def prometheus_targets(self) -> list[dict[str, Any]]:
        """Targets and labels, as Prometheus' ``file_sd_configs`` reads them."""
        answer = []
        for container in self.kubelet.containers():
            if container.running:
                meta = container.pod["metadata"]
                labels = {"namespace": meta["namespace"], "pod": meta["name"], "container": "kserve-container"}
                labels["revision"] = meta["labels"].get("serving.knative.dev/revision", "")
                labels["workload"] = meta["labels"].get("app", "").removeprefix("isvc.")
                labels = {name: value for name, value in labels.items() if value}
                answer.append({"targets": [f"{container.address}:{PORT}"], "labels": labels})
        return answer

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Controllers stand still: what is served goes on, nothing is reconciled."""
        self._paused.set()
        try:
            yield
        finally:
            self._paused.clear()

    def start(self) -> None:
        self._install()
        self.hub.start()
        self._activator.start()
        self.gateway.start()
        self.view.start()
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self.view.changed.set()
        self._thread.join(15)
        self.view.stop()
        self.hub.stop()
        self.kubelet.stop()
        self.gateway.stop()
        self._activator.stop()

    def _run(self) -> None:
        while not self._over.is_set():
            self.view.changed.wait(_TICK)
            self.view.changed.clear()
            if not self._paused.is_set():
                self._pass()
            self._over.wait(0.01)  # what changes together is looked at together

    def _pass(self) -> None:
        self._controller.reconcile()
        self._deployments.reconcile()
        self.kubelet.reconcile()
        if self.gateway.apply(*self._network.tables(self.kubelet.containers())):
            self.view.changed.set()
        self._network.statuses(self._attempt)
        self.kubelet.let_go()

    def _attempt(self, step: Callable[..., Any], *given: Any) -> None:
        """Do a step; what the API refuses or fails to answer is left for the next pass."""
        try:
            step(*given)
        except ApiException as error:
            if error.status not in (404, 409):
                self.troubles.append(f"{error.status} {error.reason} {(error.body or b'')[:500]!r}")
        except (HTTPError, OSError) as error:
            self.troubles.append(repr(error))

    def _install(self) -> None:
        """What a KServe installation has besides: its configuration, its controller's Deployment, a Gateway, nodes."""
        options = self.options
        self.namespace(CONTROLLER_NAMESPACE)
        where, _, name = options.gateway.partition("/")
        self.namespace(where)
        ingress = {"enableGatewayApi": options.gateway_api, "kserveIngressGateway": options.gateway}
        ingress |= {
            "ingressDomain": "example.com",
            "domainTemplate": "{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}",
        }
        mode = {"defaultDeploymentMode": options.default_mode}
        config = {"ingress": json.dumps(ingress), "deploy": json.dumps(mode)}
        meta = {"name": "inferenceservice-config", "namespace": CONTROLLER_NAMESPACE}
        ensure(self.api, "ConfigMap", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": config})
        ensure(self.api, "Deployment", _manager(options.version))
        if options.gateway_api:
            spec = {"gatewayClassName": "envoy", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
            kind = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway"}
            made = {**kind, "metadata": {"name": name, "namespace": where}, "spec": spec}
            ensure(self.api, "Gateway", made)
            self._attempt(self._accept_gateway, made)
        for node in options.nodes:
            ensure(self.api, "Node", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
            self._mark_node(node, "True")

    def namespace(self, name: str) -> None:
        """Make a namespace unless it is there."""
        ensure(self.api, "Namespace", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def _accept_gateway(self, gateway: Plain) -> None:
        found = next(one for one in self.api.list(RESOURCES["Gateway"])[0] if key(one) == key(gateway))
        conditions: list[Plain] = []
        for kind in ("Accepted", "Programmed"):
            mark(conditions, kind, "True", kind, "the simulation serves it")
        found["status"] = {"conditions": conditions, "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}]}
        self.api.update(RESOURCES["Gateway"], found, "status")

    def _mark_node(self, name: str, status: str) -> None:
        self._attempt(self._set_node, name, status)

    def _set_node(self, name: str, status: str) -> None:
        for node in self.api.list(RESOURCES["Node"])[0]:
            if node["metadata"]["name"] == name:
                conditions = list(node.get("status", {}).get("conditions", []))
                mark(conditions, "Ready", status, "KubeletReady" if status == "True" else "NodeStatusUnknown", "")
                self.api.update(RESOURCES["Node"], {**node, "status": {"conditions": conditions}}, "status")


@contextmanager
def kserve(server: Any, **options: Any) -> Iterator[Simulation]:
    """Run a cluster's KServe while the block runs.

    Args:
        server: the Kubernetes API of tests.cluster.fixtures, fake or real; the fake gets KServe's webhooks.
        options: fields of :class:`Options`; ``default_mode="Standard"``.

    The cluster's names, as they stand in statuses, lead to its gateway meanwhile, as from inside the cluster; a child
    process does the same once it has called ``names.install()``.
    """
    with tempfile.TemporaryDirectory(prefix="kserve-") as folder:
        simulation = Simulation(server.client(), Options(**options), Path(folder))
        if hasattr(server, "objects"):
            admission.install(server.objects, simulation.options.default_mode)
        try:
            simulation.start()
            with names.resolved(simulation.gateway.host, simulation.gateway.port):
                yield simulation
        finally:
            simulation.stop()


def _text(container: Container) -> str:
    meta = container.pod["metadata"]
    return f"{meta['name']} {json.dumps(meta.get('annotations', {}))}"


def _manager(version: str) -> Plain:
    labels = {"control-plane": "kserve-controller-manager", "app.kubernetes.io/name": "kserve-controller-manager"}
    container = {"name": "manager", "image": f"kserve/kserve-controller:{version}"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kserve-controller-manager", "namespace": CONTROLLER_NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
