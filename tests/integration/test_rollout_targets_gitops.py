"""Manifests go through Git: a real repository, and a stand-in for Argo CD that applies what lies in it."""

import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml

from components.cluster.api import INFERENCE_SERVICE, Cluster, Kind
from components.errors import Changed, NotReady, Unreachable
from components.rollout.deployment import GitOps
from components.rollout.targets.gitops import GitOpsApplier
from tests.cluster.kserve.kubelet import Timing
from tests.cluster.kserve.simulation import kserve
from tests.integration.rollout_targets import SERVICE, Bench

pytest_plugins = ["tests.cluster.fixtures"]

MANIFEST = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": SERVICE},
    "spec": {"predictor": {"model": {"modelFormat": {"name": "mlflow"}, "storageUri": "s3://models/1"}}},
}
FILE = f"models/inferenceservice-{SERVICE}.yaml"


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A bare repository with one commit, on a machine where Git knows nobody."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    bare, work = tmp_path / "origin.git", tmp_path / "person"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git(tmp_path, "clone", "--quiet", str(bare), str(work))
    commit(work, "README.md", "# models\n", "Begin")
    return bare


def commit(work: Path, name: str, text: str, message: str) -> None:
    git(work, "pull", "--quiet", "--rebase", "origin", "main") if git(work, "ls-remote", "--heads", "origin") else None
    (work / name).parent.mkdir(parents=True, exist_ok=True)
    (work / name).write_text(text)
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "-m", message)
    git(work, "push", "--quiet", "origin", "HEAD:main")


def applier(repository: Path, **options) -> GitOpsApplier:
    return GitOpsApplier(
        GitOps(folder="models", repository=str(repository)), options.pop("guard", lambda: None), **options
    )


def with_percent(percent: int) -> dict:
    return {**MANIFEST, "spec": {"predictor": {**MANIFEST["spec"]["predictor"], "canaryTrafficPercent": percent}}}


def test_a_manifest_is_a_commit_and_the_same_one_is_none(repository):
    one = applier(repository)
    for percent in (10, 10, 50):
        one.apply(with_percent(percent))
    assert yaml.safe_load(git(repository, "show", f"main:{FILE}")) == with_percent(50)
    subjects = git(repository, "log", "--format=%an %s", "main").splitlines()
    assert subjects == [f"sluiceway sluiceway: InferenceService {SERVICE}"] * 2 + ["Ada Begin"]
    assert applier(repository).current(INFERENCE_SERVICE, SERVICE) == with_percent(50)
    one.delete(INFERENCE_SERVICE, SERVICE)
    assert FILE not in git(repository, "ls-tree", "-r", "--name-only", "main")


def test_gits_own_name_is_used_where_it_has_one(repository, monkeypatch):
    monkeypatch.setenv("GIT_AUTHOR_NAME", "robot")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "2")
    for number, (key, value) in enumerate((("user.name", "robot"), ("user.email", "robot@example.com"))):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    applier(repository).apply(MANIFEST)
    assert git(repository, "log", "-1", "--format=%an <%ae>", "main") == "robot <robot@example.com>"


def test_somebody_who_pushes_at_the_same_time_is_not_overwritten(repository, tmp_path):
    others = iter(["a", "b"])

    def push_first():
        """Between our fetch and our push."""
        if name := next(others, ""):
            commit(tmp_path / "person", f"{name}.txt", name, f"Add {name}")

    one = applier(repository)
    one.apply(with_percent(10))
    identity = one._identity
    one._identity = lambda: (push_first(), identity())[1]  # called when the file is written and not yet committed
    one.apply(with_percent(50))
    assert yaml.safe_load(git(repository, "show", f"main:{FILE}")) == with_percent(50)
    assert {"a.txt", "b.txt"} <= set(git(repository, "ls-tree", "--name-only", "main").split())


def test_a_manifest_that_a_person_changed_last_is_left_alone(repository, tmp_path):
    one = applier(repository)
    one.apply(with_percent(10))
    commit(tmp_path / "person", FILE, yaml.safe_dump(with_percent(30)), "Thirty is plenty")
    with pytest.raises(Changed, match=r"was changed by Ada \(.*\): Thirty is plenty"):
        one.apply(with_percent(50))
    assert yaml.safe_load(git(repository, "show", f"main:{FILE}")) == with_percent(30)


def test_a_branch_that_is_not_there_is_begun(repository):
    one = GitOpsApplier(GitOps(folder="models", repository=str(repository), branch="rollouts"), lambda: None)
    one.apply(MANIFEST)
    assert yaml.safe_load(git(repository, "show", f"rollouts:{FILE}")) == MANIFEST


def test_a_repository_that_is_empty_is_begun(tmp_path, repository):
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(tmp_path / "empty.git"))
    applier(tmp_path / "empty.git").apply(MANIFEST)
    assert yaml.safe_load(git(tmp_path / "empty.git", "show", f"main:{FILE}")) == MANIFEST


def test_a_repository_that_cannot_be_reached_is_said_in_one_sentence(tmp_path):
    with pytest.raises(Unreachable, match=r"git cannot work with .*nowhere"):
        applier(tmp_path / "nowhere.git").apply(MANIFEST)


def test_without_a_repository_a_folder_is_written(tmp_path):
    one = GitOpsApplier(GitOps(folder=str(tmp_path / "models")), lambda: None)
    one.apply(MANIFEST)
    assert yaml.safe_load((tmp_path / FILE).read_text()) == MANIFEST
    one.delete(Kind("serving.kserve.io/v1beta1", "InferenceService"), SERVICE)
    assert not (tmp_path / FILE).exists()


class Argo(threading.Thread):
    """Applies what lies in the repository now and then, and removes what lies there no more."""

    def __init__(self, repository: Path, cluster: Cluster, every: float) -> None:
        super().__init__(daemon=True)
        self.applied = 0
        self._repository, self._cluster, self._every = repository, cluster, every
        self._over = threading.Event()

    def run(self) -> None:
        seen, known = "", set()
        while not self._over.wait(self._every):
            head = git(self._repository, "rev-parse", "main")
            if head == seen:
                continue
            seen, files = head, git(self._repository, "ls-tree", "-r", "--name-only", "main", "models").split()
            for name in files:
                manifest = yaml.safe_load(git(self._repository, "show", f"{head}:{name}"))
                self._cluster.apply(manifest, force=True)
                known.add((Kind(manifest["apiVersion"], manifest["kind"]), manifest["metadata"]["name"]))
            if not files:
                for kind, name in known:
                    self._cluster.delete(kind, name)
            self.applied += 1

    def stop(self) -> None:
        self._over.set()
        self.join(10)


@pytest.fixture(scope="module")
def simulation(api_server):
    with kserve(api_server, default_mode="Standard", timing=Timing(back_off=0.1)) as running:
        yield running


def test_a_rollout_by_git_waits_for_the_other_tool_and_ends_on_the_new_release(repository, simulation, api_server):
    more = {"gitops": {"folder": "models", "repository": str(repository)}}
    one = Bench(simulation, api_server, "standard", more)
    argo = Argo(repository, one.cluster, 0.5)
    argo.start()
    try:
        stable, candidate = one.release("1"), one.release("2")
        one.target.deploy(stable)
        with one.client(per_second=100) as client:
            one.target.stage(candidate)
            one.target.shift(candidate, 50)
            sight = one.target.look(stable, candidate, 50)
            assert (sight.weight, sight.changed) == (50, "")
            one.target.promote(candidate)
            assert client.failed == []
        assert one.live()["spec"]["predictor"]["name"] == "v2"
        assert argo.applied >= 4
        one.target.remove()
        ends = time.monotonic() + 5
        while one.target.live():
            assert time.monotonic() < ends
            time.sleep(0.05)
    finally:
        argo.stop()


def test_a_tool_that_applies_nothing_is_waited_for_no_longer_than_it_may_take(repository, simulation, api_server):
    more = {"gitops": {"folder": "models", "repository": str(repository)}, "ready_seconds": 0.3}
    one = Bench(simulation, api_server, "standard", more)
    one.target.applier.seconds = 0.3
    began = time.monotonic()
    with pytest.raises(NotReady, match="did not become ready with all traffic"):
        one.target.deploy(one.release("1"))
    assert time.monotonic() - began < 5
