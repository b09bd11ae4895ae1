"""Manifests through a real Git repository, and a rollout whose manifests something like Argo CD applies."""

import stat
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.cluster.api import HTTP_ROUTE, INFERENCE_SERVICE, Cluster
from components.errors import BadInput, Changed, Lost
from components.rollout.deployment import Deployment, GitOps
from components.rollout.releases import release
from components.rollout.targets.choose import target_for
from components.rollout.targets.gitops import GitOpsApplier
from components.rollout.targets.kserve_fields import at
from tests.cluster.kserve.kubelet import Timing
from tests.cluster.kserve.simulation import kserve

pytest_plugins = ["tests.cluster.fixtures"]

Plain = dict[str, Any]
SERVICE = "churn"
FILE = "inferenceservice-churn.yaml"
PERCENT = "spec.predictor.canaryTrafficPercent"


def git(*arguments: str, at: Path) -> str:
    done = subprocess.run(["git", "-C", str(at), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def nobodys_settings(monkeypatch, tmp_path):
    """Git as in a pod: nobody's name, nobody's settings."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def repository(tmp_path) -> Path:
    folder = tmp_path / "origin.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(folder)], check=True)
    return folder


@pytest.fixture
def ana(repository, tmp_path) -> Callable[..., None]:
    """A person who works in the same repository."""
    folder = tmp_path / "ana"

    def commits(name: str, text: str, subject: str = "Tune it") -> None:
        if not folder.exists():
            subprocess.run(["git", "clone", "--quiet", str(repository), str(folder)], check=True)
        git("pull", "--quiet", "origin", "main", at=folder) if _has(repository, "main") else None
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        git("add", "--all", at=folder)
        who = ("-c", "user.name=Ana", "-c", "user.email=ana@example.com")
        git(*who, "commit", "--quiet", "--message", subject, at=folder)
        git("push", "--quiet", "--no-verify", "origin", "HEAD:main", at=folder)

    return commits


def _has(repository: Path, branch: str) -> bool:
    return bool(git("for-each-ref", f"refs/heads/{branch}", at=repository))


def applier(repository: Path, **more: Any) -> GitOpsApplier:
    return GitOpsApplier(GitOps(folder="live", repository=str(repository), **more), lambda: None, seconds=10)


def manifest(percent: int | None = None) -> Plain:
    predictor: Plain = {"model": {"storageUri": "s3://m/1"}}
    if percent is not None:
        predictor["canaryTrafficPercent"] = percent
    head = {"apiVersion": INFERENCE_SERVICE.api_version, "kind": INFERENCE_SERVICE.kind}
    return {**head, "metadata": {"name": SERVICE}, "spec": {"predictor": predictor}}


def lies(repository: Path, branch: str = "main") -> Plain | None:
    """Our manifest as the branch has it."""
    names = git("ls-tree", "-r", "--name-only", branch, at=repository).splitlines()
    found: Plain | None = None
    if f"live/{FILE}" in names:
        found = yaml.safe_load(git("show", f"{branch}:live/{FILE}", at=repository))
    return found


def log(repository: Path, branch: str = "main") -> list[str]:
    return git("log", "--format=%an: %s", branch, at=repository).splitlines()


@pytest.fixture
def in_between(tmp_path) -> Callable[[Callable[[], None]], Iterator[None]]:
    """Has something happen once between our fetch and our push, by a hook of Git's own."""
    hooks, marks = tmp_path / "hooks", tmp_path / "marks"
    hooks.mkdir()
    marks.mkdir()
    hook = hooks / "pre-push"
    wait = f"touch {marks}/asked; for i in $(seq 200); do test -e {marks}/done && exit 0; sleep 0.05; done; exit 1"
    hook.write_text(f"#!/bin/sh\n{wait}\n")
    hook.chmod(hook.stat().st_mode | stat.S_IEXEC)
    (tmp_path / "gitconfig").write_text(f"[core]\nhooksPath = {hooks}\n")

    def happens(what: Callable[[], None]) -> threading.Thread:
        def wait_for_the_push() -> None:
            ends = time.monotonic() + 20
            while not (marks / "asked").exists() and time.monotonic() < ends:
                time.sleep(0.01)
            what()
            (marks / "done").touch()

        thread = threading.Thread(target=wait_for_the_push, daemon=True)
        thread.start()
        return thread

    return happens


def test_a_push_that_comes_first_is_built_upon(repository, ana, in_between):
    ours = applier(repository)
    thread = in_between(lambda: ana("other.yaml", "theirs: 1"))
    ours.apply(manifest(10))
    thread.join(20)
    assert lies(repository) == manifest(10)
    assert log(repository) == ["sluiceway: sluiceway: InferenceService churn", "Ana: Tune it"]
    assert git("show", "main:other.yaml", at=repository) == "theirs: 1"


def test_a_push_to_our_own_file_that_comes_first_is_not_overwritten(repository, ana, in_between):
    ours = applier(repository)
    theirs = yaml.safe_dump(manifest(60))
    thread = in_between(lambda: ana(f"live/{FILE}", theirs, "Send it 60 %"))
    with pytest.raises(Changed, match=r"live/inferenceservice-churn.yaml was changed by Ana .*: Send it 60 %"):
        ours.apply(manifest(10))
    thread.join(20)
    assert lies(repository) == manifest(60)


def test_a_person_s_change_of_our_file_is_left_until_it_is_handed_over(repository, ana):
    ours = applier(repository)
    ours.apply(manifest(10))
    ana(f"live/{FILE}", yaml.safe_dump(manifest(0)), "Stop: too slow")
    with pytest.raises(Changed, match=r"changed by Ana \(.*Stop: too slow; it is left as it is"):
        ours.apply(manifest(50))
    with pytest.raises(Changed, match="Ana"):
        ours.delete(INFERENCE_SERVICE, SERVICE)
    assert lies(repository) == manifest(0)
    ana(f"live/{FILE}", yaml.safe_dump(manifest(1)), "sluiceway: go on")
    ours.apply(manifest(50))
    assert lies(repository) == manifest(50)


def test_who_has_lost_the_service_pushes_nothing(repository):
    def lost() -> None:
        raise Lost("another rollout owns it now")

    ours = GitOpsApplier(GitOps(folder="live", repository=str(repository)), lost)
    with pytest.raises(Lost):
        ours.apply(manifest())
    assert not _has(repository, "main")


class Argo(threading.Thread):
    """What Argo CD does, as far as it matters: applies what a folder of the branch says, and prunes what is gone."""

    def __init__(self, client: Any, namespace: str, repository: Path | None, folder: Path) -> None:
        super().__init__(daemon=True)
        self._client, self._namespace, self._repository, self._folder = client, namespace, repository, folder
        self._applied: dict[str, Plain] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.1):
            self._sync()

    def stop(self) -> None:
        self._over.set()
        self.join(10)

    def _sync(self) -> None:
        folder = self._folder
        if self._repository is not None:
            if not _has(self._repository, "main"):
                return
            if not folder.exists():
                subprocess.run(["git", "clone", "--quiet", str(self._repository), str(folder)], check=True)
            git("fetch", "--quiet", "origin", "main", at=folder)
            git("reset", "--quiet", "--hard", "FETCH_HEAD", at=folder)
            folder = folder / "live"
        try:
            there = {path.name: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}
        except FileNotFoundError:
            return  # taken away between the two: the next look sees it
        for name, one in there.items():
            if self._applied.get(name) != one:
                self._call("PATCH", one)
                self._applied[name] = one
        for name in set(self._applied) - set(there):
            self._call("DELETE", self._applied.pop(name))

    def _call(self, method: str, one: Plain) -> None:
        plural = {"InferenceService": "inferenceservices", "HTTPRoute": "httproutes"}[one["kind"]]
        name = one["metadata"]["name"]
        path = f"/apis/{one['apiVersion']}/namespaces/{self._namespace}/{plural}/{name}"
        patching = method == "PATCH"
        self._client.call_api(
            path,
            method,
            query_params=[("fieldManager", "argocd-controller"), ("force", "true")] if patching else [],
            header_params={"Content-Type": "application/apply-patch+yaml" if patching else "application/json"},
            body=one if patching else None,
            _preload_content=False,
            _request_timeout=10,
        )


@pytest.fixture(scope="module")
def simulation(api_server):
    with kserve(api_server, timing=Timing(route=0.05)) as running:
        yield running


def in_namespace(api_server, where: str, gitops: GitOps) -> tuple[Cluster, Deployment]:
    namespace = f"g-{uuid.uuid4().hex[:8]}"
    cluster = Cluster(api_server.client(), namespace, patience_seconds=5)
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    return cluster, Deployment(where=where, namespace=namespace, ready_seconds=15, gitops=gitops)


def test_a_rollout_runs_through_while_another_tool_applies(simulation, api_server, repository, tmp_path):
    folder = tmp_path / "manifests"
    gitops = GitOps(folder="live", repository=str(repository))
    cluster, deployment = in_namespace(api_server, "knative", gitops)
    argo = Argo(api_server.client(), cluster.namespace, repository, folder)
    argo.start()
    target: Any = target_for(deployment, SERVICE, lambda: None, cluster)
    target.tick = 0.05
    one, two, three = (
        release(SERVICE, number, f"file:///m/{cluster.namespace}/{number}", deployment, {}) for number in "123"
    )
    try:
        target.deploy(one)
        staged = target.stage(two)
        assert staged.revision == "churn-predictor-00002"
        target.shift(two, 10)
        assert target.look(one, two, 10).weight == 10
        assert target.look(one, two, 10).changed == ""
        target.promote(two)
        assert served(cluster) == (two.uri, None, {"churn-predictor-00002": 100})
        target.shift(two, 10)  # a step that is tried again
        assert served(cluster) == (two.uri, None, {"churn-predictor-00002": 100})

        target.stage(three)
        target.shift(three, 50)
        target.roll_back(two, three)
        uri, percent, traffic = served(cluster)
        assert (uri, percent) == (two.uri, None)
        assert traffic == {"churn-predictor-00004": 100}
        managers = {one["manager"] for one in live(cluster)["metadata"]["managedFields"]}
        assert "argocd-controller" in managers
        assert "sluiceway" not in managers
        target.remove()
        ends = time.monotonic() + 10
        while cluster.get(INFERENCE_SERVICE, SERVICE) is not None:
            assert time.monotonic() < ends
            time.sleep(0.05)
        assert cluster.list(HTTP_ROUTE) == []
    finally:
        argo.stop()
    assert all(line == "sluiceway: sluiceway: InferenceService churn" for line in log(repository)[1:])


def test_two_services_run_through_a_folder_whose_tool_prunes_late(simulation, api_server, tmp_path):
    folder = tmp_path / "manifests"
    cluster, deployment = in_namespace(api_server, "two-services", GitOps(folder=str(folder)))
    argo = Argo(api_server.client(), cluster.namespace, None, folder)
    argo.start()
    target: Any = target_for(deployment, SERVICE, lambda: None, cluster)
    target.tick = 0.05
    one, two = (release(SERVICE, number, f"file:///m/{cluster.namespace}/{number}", deployment, {}) for number in "12")
    try:
        target.deploy(one)
        target.stage(two)
        target.shift(two, 50)
        assert (target.look(one, two, 50).weight, target.look(one, two, 50).changed) == (50, "")
        target.promote(two)
        assert target.look(None, two, 100).weight == 100
        target.roll_back(one, two)
        served = {at(isvc, "spec.predictor.model.storageUri") for isvc in cluster.list(INFERENCE_SERVICE)}
        assert one.uri in served
        assert target.look(one, two, 0).weight == 0
    finally:
        argo.stop()


def live(cluster: Cluster) -> Plain:
    found = cluster.get(INFERENCE_SERVICE, SERVICE)
    assert found is not None
    return found


def served(cluster: Cluster) -> tuple[str, int | None, dict[str, int]]:
    isvc = live(cluster)
    shares: dict[str, int] = {}
    for target in at(isvc, "status.components.predictor.traffic"):
        shares[target["revisionName"]] = shares.get(target["revisionName"], 0) + target["percent"]
    return at(isvc, "spec.predictor.model.storageUri"), at(isvc, PERCENT), shares


def test_git_that_is_not_installed_is_one_sentence(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="needs the program git"):
        applier(repository).apply(manifest())
