"""A rollout on the simulated cluster, from a staged challenger to its end, with clients counted meanwhile."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from kubernetes.client import ApiClient, Configuration

from components.cluster.api import Cluster
from components.evaluate.columns import PREDICTION
from components.rollout.deployment import Deployment
from components.rollout.ledger import Ledger, Phase
from components.rollout.place import Guard, Place
from components.rollout.plan import parse_plan
from components.rollout.release import Release
from components.rollout.releases import release
from components.rollout.run import Request, Result, roll_out
from components.rollout.signals.prometheus import PrometheusSource
from components.rollout.stores.kubernetes import KubernetesStore
from components.rollout.targets.choose import target_for
from components.rollout.traffic import Rows
from components.stage import run as stage
from components.stage.load import Load
from tests.cluster.kserve.client import Client
from tests.cluster.kserve.model import Model

SERVICE = "churn"
ROOT = Path(__file__).resolve().parents[3]
QUICK: dict[str, Any] = {
    "steps": [50, 100],
    "min_requests": 40,
    "max_seconds": 40,
    "max_down_seconds": 1,
    # So that little evidence is enough, on a busy machine too: these tests are not about the judge.
    "slo": {"false_rollback_rate": 0.2, "error_rate_margin": 0.05, "slow_share_margin": 0.01, "latency_slack_ms": 200},
}


@dataclass(frozen=True)
class Address:
    """An API server by its address."""

    url: str

    def client(self) -> ApiClient:
        return ApiClient(Configuration(host=self.url))


def rows() -> Rows:
    """Held-out rows with what the little server predicts for them, for both versions."""
    instances = tuple({"a": number / 7, "b": number % 5} for number in range(100))
    model = Model(SERVICE, "offline")
    scores = tuple((1 - p, p) for p in map(model.predict, instances))
    return Rows(instances, scores, scores)


@dataclass
class Rollout:
    """One service in a namespace of its own.

    Attributes:
        simulation: the cluster.
        server: its API.
        prometheus: address.
        where: the mechanism.
        replicas: of the champion.
        patience: of the client of the API, in seconds.
    """

    simulation: Any
    server: Any
    prometheus: str
    where: str
    replicas: int = 1
    patience: float = 20.0
    ready_seconds: float = 8.0
    namespace: str = field(default_factory=lambda: f"r-{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.server.client(), self.namespace, patience_seconds=self.patience)
        if self.simulation is not None:
            self.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        given = {"where": self.where, "namespace": self.namespace, "ready_seconds": self.ready_seconds}
        scaling = {"min_replicas": self.replicas}
        self.deployment = Deployment.model_validate(given | {"autoscaling": scaling})
        self.stable, self.candidate = (self.version(number) for number in ("1", "2"))
        self.place = self.new_place()

    def version(self, number: str, **env: str) -> Release:
        return release(SERVICE, number, f"file:///models/{self.namespace}/{number}", self.deployment, env)

    def process(self) -> subprocess.Popen[bytes]:
        """The rollout step in a process of its own, that can be killed."""
        given = (self.server.url, self.prometheus, self.where, self.namespace, self.replicas)
        code = "from tests.cluster.kserve import names; names.install(); "
        code += f"from tests.cluster.kserve.rollouts import Rollout; Rollout.again{given!r}.go()"
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})

    @classmethod
    def again(cls, url: str, prometheus: str, where: str, namespace: str, replicas: int) -> Self:
        """The rollout of another process, by the addresses that it uses."""
        return cls(None, Address(url), prometheus, where, replicas, namespace=namespace)

    def until(self, check: Callable[[Ledger], Any], seconds: float = 30) -> Ledger:
        """The record, once it is as asked."""
        ends = time.monotonic() + seconds
        while not check(ledger := self.ledger()):
            assert time.monotonic() < ends, f"the record is {ledger.phase} after {seconds} s: {self.events()}"
            time.sleep(0.05)
        return ledger

    def new_place(self) -> Place:
        """As a new process has it."""
        guard = Guard()
        target = target_for(self.deployment, SERVICE, guard, self.cluster)
        target.tick, target.hopeless_seconds = 0.1, 1.0
        source = PrometheusSource(self.prometheus, self.namespace, SERVICE, None, 0.25)
        store = KubernetesStore(self.cluster, SERVICE, lease_seconds=4)
        return Place(target, store, source, self.deployment, guard=guard)

    def about(self, number: str) -> str:
        """What the pods of a version are known by to the simulation's faults."""
        return f"/models/{self.namespace}/{number}"

    def deploy(self) -> None:
        """The champion serves."""
        self.place.target.deploy(self.stable)

    def stage(self) -> None:
        """The challenger is ready beside it without traffic, as the stage step leaves it."""
        store = self.place.store
        with store.owned("run-1"):
            ledger = store.load()
            ledger.stable, ledger.candidate, ledger.run_id, ledger.outcome = self.stable, self.candidate, "run-1", None
            ledger.events, ledger.phase, ledger.deployment = [], Phase.STAGED, self.deployment
            ledger.revision = self.place.target.stage(self.candidate).revision
            store.save(ledger)

    def stage_step(self, folder: Path) -> None:
        """The stage step as the pipeline runs it, up to its own checks."""
        predictions = folder / "predictions.parquet"
        given = rows()
        table = [
            {**row, PREDICTION: list(score)} for row, score in zip(given.instances, given.predictions, strict=True)
        ]
        pq.write_table(pa.Table.from_pylist(table), predictions)
        load = Load(requests_per_second=20, seconds=1)
        asked = stage.Request("run-1", self.candidate, self.stable, predictions, (), 1e-4, load)
        stage.run(self.place, asked, lambda _text: None)

    def client(self, **more: Any) -> Client:
        """Clients of the service, by the address that it says."""
        ends = time.monotonic() + 10
        while not (url := self.place.target.url()):
            assert time.monotonic() < ends, f"{self.where}: the service has no address"
            time.sleep(0.05)
        host = url.removeprefix("http://")
        return Client(self.simulation.gateway.address, host, SERVICE, rows=list(rows().instances), **more)

    def request(self, **plan: Any) -> Request:
        return Request("run-1", parse_plan({**QUICK, **plan}), rows(), replay_per_second=0)

    def go(self, **plan: Any) -> Result:
        return roll_out(self.place, self.request(**plan), lambda _text: None)

    def ledger(self) -> Ledger:
        return KubernetesStore(self.cluster, SERVICE).load()

    def events(self) -> list[str]:
        return [event.what for event in self.ledger().events if event.what != "sample"]


class Beside(threading.Thread):
    """A rollout in a thread, for a test that breaks something meanwhile."""

    def __init__(self, rollout: Rollout, **plan: Any) -> None:
        super().__init__(daemon=True)
        self.result: Result | None = None
        self.error: Exception | None = None
        self._rollout, self._plan = rollout, plan

    def run(self) -> None:
        try:
            self.result = self._rollout.go(**self._plan)
        except Exception as error:  # noqa: BLE001 - handed to the test
            self.error = error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join(60)

    def ended(self, seconds: float = 60) -> Result:
        self.join(seconds)
        assert not self.is_alive(), "the rollout goes on"
        if self.error:
            raise self.error
        assert self.result is not None
        return self.result
