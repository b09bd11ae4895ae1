"""What the tests of the targets on KServe share: a service on the simulated cluster, and verbs that are killed."""

import itertools
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from components.cluster.api import INFERENCE_SERVICE, Cluster
from components.rollout.deployment import Deployment
from components.rollout.document import inference_service
from components.rollout.release import Release
from components.rollout.targets.choose import target_for
from components.rollout.targets.kserve import KServe
from components.rollout.targets.kserve_applier import Direct
from tests.cluster.kserve.client import Client

SERVICE = "churn"


class Killed(BaseException):
    """The process has ended: no handler of the code under test may catch it."""


class Dying(Direct):
    """Applies, and dies with the process right after the n-th write."""

    def __init__(self, cluster: Cluster, writes: int) -> None:
        super().__init__(cluster, lambda: None)
        self._left = writes

    def apply(self, manifest: dict[str, Any]) -> None:
        super().apply(manifest)
        self._count()

    def delete(self, kind: Any, name: str) -> None:
        super().delete(kind, name)
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed


@dataclass
class Bench:
    """One service in a namespace of its own.

    Attributes:
        simulation: the cluster.
        server: its API.
        where: the mechanism.
        more: further fields of the deployment.
        guard: asked before every write.
    """

    simulation: Any
    server: Any
    where: str
    more: dict[str, Any] = field(default_factory=dict)
    guard: Callable[[], None] = lambda: None
    namespace: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.server.client(), self.namespace, patience_seconds=5)
        self.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        given = {"where": self.where, "namespace": self.namespace, "ready_seconds": 10}
        self.deployment = Deployment.model_validate(given | self.more)
        self.target = self.new()

    def new(self, dies_after: int = 0) -> Any:
        """The target as a new process has it; one that dies after some writes."""
        target = target_for(self.deployment, SERVICE, self.guard, self.cluster)
        assert isinstance(target, KServe)
        target.tick, target.hopeless_seconds = 0.1, 0.6
        if hasattr(self, "target"):
            target._schema = self.target._schema  # the same for every process, and slow to read
        if dies_after:
            target.applier = Dying(self.cluster, dies_after)
        return target

    def release(self, number: str, **options: Any) -> Release:
        uri = options.pop("uri", f"file:///models/{self.namespace}/{number}")
        document = inference_service(SERVICE, uri, number, options.pop("env", {}), deployment=self.deployment)
        return Release(version=number, uri=uri, document=document)

    def killed_at_every_write(self, verb: str, *given: Any) -> None:
        """Call a verb again and again; the n-th time it lives to make n writes."""
        for writes in itertools.count(1):
            try:
                getattr(self.new(writes), verb)(*given)
            except Killed:
                continue
            return

    def live(self, name: str = SERVICE) -> dict[str, Any]:
        found = self.cluster.get(INFERENCE_SERVICE, name)
        assert found is not None
        return found

    def client(self, **more: Any) -> Client:
        """Clients of the service by the address that the target gives."""
        host = self.target.url().removeprefix("http://")
        assert host
        return Client(self.simulation.gateway.address, host, SERVICE, **more)

    def pods(self, number: str) -> list[dict[str, Any]]:
        """The pods of a version."""
        mark = f"/models/{self.namespace}/{number}"
        uri = "internal.serving.kserve.io/storage-initializer-sourceuri"
        pods = self.simulation.pods(namespace=self.namespace)
        return [pod for pod in pods if pod["metadata"].get("annotations", {}).get(uri, "").endswith(mark)]

    def person(
        self,
        change: Callable[[dict[str, Any]], None],
        name: str = SERVICE,
        manager: str = "kubectl-edit",
        kind: str = "InferenceService",
    ) -> None:
        """Somebody edits an object by hand."""
        from kubernetes.client.exceptions import ApiException

        from tests.cluster.kserve.api import RESOURCES, Api

        hand = Api(self.server.client(), manager)
        for _ in range(20):
            now = hand.get(RESOURCES[kind], self.namespace, name)
            change(now)
            try:
                hand.update(RESOURCES[kind], now)
            except ApiException as error:
                if error.status != 409:
                    raise
            else:
                return
        raise AssertionError("always in conflict")


class Capacity(threading.Thread):
    """Watches how many servers could answer at the least, all versions together."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(daemon=True)
        self.least = 1000
        self._bench, self._over = bench, threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            self.least = min(self.least, self.now())
            time.sleep(0.02)

    def now(self) -> int:
        """How many servers could answer."""
        deployments = self._bench.simulation.view.all("Deployment")
        ours = [one for one in deployments if one["metadata"]["namespace"] == self._bench.namespace]
        return sum(min(one["spec"]["replicas"], one.get("status", {}).get("availableReplicas", 0)) for one in ours)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(5)


def eventually(check: Callable[[], Any], seconds: float = 10) -> Any:
    """What a check gives once it gives something."""
    ends = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < ends, f"not so within {seconds} s"
        time.sleep(0.05)
    return found
