"""Drives everything of the suite that calls the Kubernetes API, as the accounts that it runs under on a cluster."""

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from components.cluster.api import HTTP_ROUTE, INFERENCE_SERVICE, Cluster
from components.exchange import Exchange
from components.features.spark.application import Job as SparkJob
from components.features.spark.launch import JobFailed, computed
from components.features.spark.options import SparkOptions
from components.rollout.deployment import Deployment, GitOps
from components.rollout.place import Guard, Place
from components.rollout.releases import release
from components.rollout.store import Command
from components.rollout.stores.kubernetes import KubernetesStore
from components.rollout.targets.choose import target_for
from components.rollout.targets.kserve import KServe
from components.train.trainjob.cluster import Cluster as Jobs
from components.train.trainjob.manifest import Job
from tests.cluster.kinds import KINDS
from tests.cluster.objects import Request
from tests.cluster.server import ApiServer

Plain = dict[str, Any]

RUNS, MODELS, STAGING = "kubeflow", "models", "models-staging"
MECHANISMS = ("knative", "standard", "two-services")


class Driver:
    """Does what the steps do, as one account."""

    def __init__(self, server: ApiServer, account: str) -> None:
        """Name the account."""
        self._server, self._account = server, f"{RUNS}/{account}"

    def cluster(self, namespace: str) -> Cluster:
        """The API as the account sees it."""
        return Cluster(self._server.client(self._account), namespace, patience_seconds=5)

    def rollouts(self, folder: Path) -> None:
        """A service's life by every mechanism, directly and by way of files that another tool applies, all at once."""
        jobs: list[Callable[[], None]] = [lambda one=one: self._life(one, f"by-{one}") for one in MECHANISMS]  # type: ignore[misc]
        jobs += [lambda: self._by_files(folder), self._in_staging]
        with ThreadPoolExecutor(len(jobs)) as pool:
            for done in [pool.submit(job) for job in jobs]:
                done.result()

    def _place(self, where: str, namespace: str, service: str, **more: Any) -> tuple[Place, Deployment]:
        deployment = Deployment.model_validate({"where": where, "namespace": namespace, "ready_seconds": 20} | more)
        cluster, guard = self.cluster(namespace), Guard()
        target = target_for(deployment, service, guard, cluster)
        assert isinstance(target, KServe)
        target.tick, target._schema = 0.1, {}  # the schema that we ship is checked faster
        store = KubernetesStore(cluster, service, lease_seconds=5)
        return Place(target, store, None, deployment, guard=guard), deployment

    def _life(self, where: str, service: str) -> None:
        """Deployed; a challenger staged and given traffic; taken back or promoted; what people and Events are told."""
        place, deployment = self._place(where, MODELS, service)
        one, two = (release(service, number, f"file:///models/{service}/{number}", deployment, {}) for number in "12")
        place.target.check()
        self._commanded(place)
        with place.store.owned("run-1") as held:
            place.guard.ownership = held
            for _ in range(2):
                place.store.save(place.store.load())
            place.target.deploy(one)
            place.target.stage(two)
            place.target.shift(two, 50)
            place.target.look(one, two, 50)
            if service == "by-knative":
                place.target.roll_back(one, two)
            else:
                place.target.promote(two)
            for _ in range(2):
                place.target.tell("Ended", "as a test", warning=True)
            held.hand_over(1)
        place.target.remove()

    @staticmethod
    def _commanded(place: Place) -> None:
        """What `sluiceway rollout pause` and its kin do, and the answer to them."""
        for _ in range(2):
            place.store.send(Command(what="pause", by="ada", time=1))
        assert place.store.command() is not None
        place.store.clear()
        place.store.owner()

    def _in_staging(self) -> None:
        """A bundle alone in the staging namespace, as the stage step has it there first."""
        place, deployment = self._place("auto", STAGING, "staged")
        place.target.check()
        place.target.deploy(release("staged", "1", "file:///models/staged/1", deployment, {}))
        place.target.url()
        place.target.remove()

    def _by_files(self, folder: Path) -> None:
        given = {"gitops": GitOps(folder=str(folder))}
        with applied_by_another_tool(Cluster(self._server.client(), MODELS, patience_seconds=5), folder):
            place, deployment = self._place("two-services", MODELS, "by-files", **given)
            place.target.check()
            place.target.deploy(release("by-files", "1", "file:///models/by-files/1", deployment, {}))
            place.target.remove()

    def trainings(self) -> None:
        """A training in several pods by each operator."""
        for hidden, framework in ((set(), "torch"), ({"trainer.kubeflow.org"}, "torch"), (None, "tensorflow")):
            if hidden is not None:
                self._server.discovery.hidden = hidden
            jobs = Jobs(self._server.client(self._account), RUNS)
            name = f"{self._account.rpartition('/')[2]}-{framework}"
            job = Job(name, RUNS, framework, "trainer:1", "gs://b/work", 2, 60)  # type: ignore[arg-type]
            body = jobs.render(job)
            jobs.submit(body)
            self._first_pod(body)
            assert jobs.look(body) is not None
            assert jobs.log(body, 10) == "epoch 1\n"
            jobs.remove(body)
        self._server.discovery.hidden = set()

    def spark(self) -> None:
        """A feature job that has ended without a result, found and replaced by the next attempt."""
        name = self._account.rpartition("/")[2]
        job = SparkJob(f"{name}-features", "gs://b/work", SparkOptions())
        with tempfile.TemporaryDirectory() as folder:
            exchange = Exchange(folder)
            for _ in range(2):
                threading.Timer(0.3, self._ended, [job.name]).start()
                with contextlib.suppress(JobFailed):
                    computed(self.cluster(RUNS), job, lambda: None, exchange=exchange, say=print, every=0.1)

    def _ended(self, name: str) -> None:
        (kind,) = (one for one in KINDS if one.kind == "SparkApplication")
        status = {"applicationState": {"state": "COMPLETED"}, "driverInfo": {}}
        self._server.objects.merge(Request(kind, RUNS, name, "operator", subresource="status"), {"status": status})

    def _first_pod(self, body: Plain) -> None:
        """What the operator makes of a job, as far as its log is asked for."""
        from components.train.trainjob.cluster import _first_pod

        name = f"{body['metadata']['name']}-{body['kind'].lower()}-0"
        labels = dict(one.split("=") for one in _first_pod(body).split(","))
        pod = {"containers": [{"name": "node", "image": "trainer:1"}]}
        head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}}
        Cluster(self._server.client(), RUNS, patience_seconds=5).create(head | {"spec": pod})
        self._server.logs[(RUNS, name)] = "epoch 1\n"


class applied_by_another_tool:  # noqa: N801 - read as what happens in the block
    """Something like Argo CD: applies what lies in a folder, and removes what lies there no longer."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        """Name the namespace and the folder."""
        self._cluster, self._folder, self._over = cluster, folder, threading.Event()
        self._applied: dict[Path, tuple[str, Plain]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._over.is_set():
            self._pass()
            time.sleep(0.05)

    def _pass(self) -> None:
        there = set(self._folder.glob("*.yaml"))
        for path in there:
            text = path.read_text(encoding="utf-8")
            if self._applied.get(path, ("", {}))[0] != text:
                manifest = yaml.safe_load(text)
                self._cluster.apply(manifest, force=True)
                self._applied[path] = text, manifest
        for path in set(self._applied) - there:
            _, gone = self._applied.pop(path)
            kind = INFERENCE_SERVICE if gone["kind"] == INFERENCE_SERVICE.kind else HTTP_ROUTE
            self._cluster.delete(kind, gone["metadata"]["name"])
