"""A training in several pods, from submission to bundle, against a server that speaks the Kubernetes API."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from components.errors import BadInput, Unreachable
from components.exchange import Exchange
from components.step import emit
from components.train.interrupt import Interrupted
from components.train.trainjob import run
from components.train.trainjob.cluster import Cluster, inside
from components.train.trainjob.manifest import Job
from components.train.trainjob.run import JobFailed, Outputs, train
from components.train.trainjob.work import RESULT, Work
from tests.feature_sets import feature_set, sklearn_frame
from tests.kubernetes_api import PYTORCH, TENSORFLOW, TRAINER_2_1, TRAINER_2_2, Api, serving

TRAINER, OPERATOR = "trainer.kubeflow.org/v1alpha1", "kubeflow.org/v1"
NEW = {TRAINER: {"TrainJob": TRAINER_2_2}}
OLD = {OPERATOR: {"PyTorchJob": PYTORCH, "TFJob": TENSORFLOW}}
WORK = Work("torch", {"epochs": 2}, 0, 0.0, "cpu", "", [], "")
COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}
POD = {"nodeSelector": {"a": "b"}, "resources": {"limits": {"cpu": "1"}}, "serviceAccountName": "x"}


class Launch:
    """A launcher's surroundings: a server, a store and a feature set."""

    def __init__(self, folder: Path, api: Api, address: str) -> None:
        self.folder, self.api, self.address = folder, api, address
        self.exchange = Exchange(str(folder / "store" / "job"))
        self.outputs = Outputs(folder / "bundle", folder / "logs", folder / "report.html")
        self.said: list[str] = []

    def cluster(self) -> Cluster:
        from kubernetes import client

        configuration = client.Configuration(host=self.address)
        configuration.retries = False
        return Cluster(client.ApiClient(configuration), "ml")

    def job(self, framework="torch") -> Job:
        return Job("job", "ml", framework, "image:1", self.exchange.uri, 2, 60, POD)

    def train(self, framework="torch"):
        features = self.folder / "features"
        if not features.exists():
            features.mkdir(parents=True)
            (features / "features.json").write_text("{}")
        return train(
            self.cluster(),
            self.job(framework),
            WORK,
            features,
            self.outputs,
            exchange=self.exchange,
            say=self.said.append,
            every=0.05,
        )

    def ends(self, made: dict, status: dict) -> None:
        """What a real operator and its pods leave when they have ended."""
        if status is COMPLETE:
            out = self.folder / "made"
            (out / "bundle").mkdir(parents=True, exist_ok=True)
            (out / "bundle" / "bundle.json").write_text("{}")
            (out / "report.html").write_text("<p>")
            self.exchange.put(out, "out")
            result = {"metrics": {"valid_roc_auc": 0.9}, "metadata": {}, "fact": "good", "recipe_digest": "d"}
            self.exchange.write(RESULT, result)
        made["status"] = status


@pytest.fixture
def launch(tmp_path):
    """Starts a server with an operator that ends every job well at once."""
    started = []

    def start(kinds, status=COMPLETE):
        api = Api(kinds)
        context = serving(api)
        made = Launch(tmp_path, api, context.__enter__())
        started.append(context)
        api.operator = lambda body: made.ends(body, status)
        return made

    yield start
    for context in started:
        context.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("kinds", "framework", "kind"),
    [
        ({TRAINER: {"TrainJob": TRAINER_2_1}}, "torch", "TrainJob"),
        (NEW, "torch", "TrainJob"),
        (NEW, "tensorflow", "TrainJob"),
        ({**NEW, **OLD}, "torch", "TrainJob"),
        (OLD, "torch", "PyTorchJob"),
        (OLD, "tensorflow", "TFJob"),
    ],
    ids=["Trainer 2.1", "Trainer 2.2", "TensorFlow on Trainer", "both operators", "only the older", "TFJob"],
)
def test_the_installed_operators_own_object_is_made_followed_and_removed(launch, kinds, framework, kind):
    started = launch(kinds)
    result = started.train(framework)
    assert result.metrics == {"valid_roc_auc": 0.9}
    assert (started.outputs.bundle / "bundle.json").exists()
    assert started.outputs.report.read_text() == "<p>"
    assert started.said[0].startswith(f"{kind} job: 2 pods")
    assert started.api.removed == ["job"]
    assert not (started.folder / "store" / "job").exists()


def test_a_cluster_without_an_operator_is_told_what_to_install(launch):
    with pytest.raises(BadInput, match=r"neither TrainJob .* nor PyTorchJob .*: install Kubeflow Trainer"):
        launch({}).train()


def test_a_trainer_too_old_to_place_pods_is_named(launch):
    with pytest.raises(BadInput, match=r"install version 2\.1 or newer"):
        launch({TRAINER: {"TrainJob": {"runtimeRef": None, "trainer": None}}}).train()


def test_outside_a_cluster_several_pods_are_refused():
    with pytest.raises(BadInput, match="set nodes to 1"):
        inside()


def test_a_refused_object_and_a_missing_right_are_said_as_the_server_says_them(launch):
    started = launch({TRAINER: {"TrainJob": {**TRAINER_2_2, "trainer": {"image": None}}}})
    with pytest.raises(BadInput, match=r"would not make the TrainJob job: unknown fields .*spec\.trainer\.numNodes"):
        started.train()
    started = launch(NEW)
    started.api.forbidden.add("patch")
    with pytest.raises(
        BadInput, match=r"may not make the TrainJob job: .*cannot patch.*manifests/base/pipelines/train-jobs\.yaml"
    ):
        started.train()


def test_a_retry_follows_the_job_that_the_attempt_before_left(launch):
    started = launch(NEW)
    started.cluster().submit(started.cluster().render(started.job()))
    started.train()
    assert started.api.made == 1
    assert "is there already" in started.said[0]


def test_a_job_that_failed_is_made_anew(launch):
    started = launch(NEW, {"conditions": [{"type": "Failed", "status": "True", "message": "x"}]})
    started.cluster().submit(started.cluster().render(started.job()))
    started.api.operator = lambda body: started.ends(body, COMPLETE)
    started.train()
    assert (started.api.made, started.api.removed) == (2, ["job", "job"])


def test_a_failure_is_what_the_first_pod_said_last_and_leaves_no_job(launch, capsys):
    started = launch(NEW, {"conditions": [{"type": "Failed", "status": "True", "message": "Pod failed"}]})
    emit("train", "failed", kind="BadInput", message="Training diverged: train_loss is nan in epoch 3.", exit_code=1)
    started.api.log = "noise\n" + capsys.readouterr().out
    with pytest.raises(JobFailed, match=r"The TrainJob job failed: Training diverged: train_loss is nan in epoch 3\."):
        started.train()
    assert "job" not in started.api.objects
    assert "noise" in capsys.readouterr().out
    assert any("jobset-name=job" in selector for selector in started.api.selectors)


def test_progress_of_the_first_pod_is_passed_on_once(launch, capsys):
    started = launch(NEW, {"jobsStatus": [{"name": "node", "active": 1}]})
    emit("train", "progress", message="epoch 3 of 10")
    started.api.log = capsys.readouterr().out
    threading.Timer(0.5, lambda: started.ends(started.api.objects["job"], COMPLETE)).start()
    started.train()
    assert started.said.count("epoch 3 of 10") == 1


def test_a_server_that_is_away_for_a_moment_is_waited_for(launch, monkeypatch):
    started = launch(NEW, {})
    started.api.operator = lambda body: (started.ends(body, COMPLETE), setattr(started.api, "broken", 3))
    assert started.train().fact == "good"
    monkeypatch.setattr(run, "TRIES", 2)
    started.api.operator = lambda body: setattr(started.api, "broken", 50)
    with pytest.raises(Unreachable, match="currently unable"):
        started.train()


def test_a_job_that_somebody_removes_ends_the_step(launch):
    started = launch(NEW, {})
    threading.Timer(0.5, lambda: started.api.objects.pop("job")).start()
    with pytest.raises(JobFailed, match="was removed while it ran"):
        started.train()


def test_a_cancelled_step_removes_its_job(launch):
    started = launch(NEW, {})
    cancel = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    cancel.start()
    try:
        with pytest.raises(Interrupted):
            started.train()
    finally:
        cancel.cancel()  # it would end the tests
    assert "job" not in started.api.objects


def test_two_pods_train_one_pytorch_model_and_bring_its_bundle_back(launch, tmp_path):
    pytest.importorskip("torch")
    from serving.bundle import verify

    started = launch(NEW)
    feature_set(tmp_path / "features", sklearn_frame("breast_cancer"), "binary")
    pods: list[subprocess.Popen] = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def operate(body: dict) -> None:
        trainer = body["spec"]["trainer"]
        for index in range(trainer["numNodes"]):
            folder = tmp_path / f"pod-{index}"
            folder.mkdir()
            given = {entry["name"]: entry["value"] for entry in trainer["env"]}
            own = {
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(index),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": port,
                "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
                "TMPDIR": str(folder),
                "SLUICEWAY_HOME": str(tmp_path / "home"),
            }
            log = (folder / "log").open("w")
            command = [sys.executable, *trainer["command"][1:]]
            pods.append(subprocess.Popen(command, env={**os.environ, **given, **own}, stdout=log, stderr=log))
        threading.Thread(target=finish, args=(body,), daemon=True).start()

    def finish(body: dict) -> None:
        failed = [code for code in [pod.wait() for pod in pods] if code]
        started.api.log = (tmp_path / "pod-0" / "log").read_text()
        kind = "Failed" if failed else "Complete"
        body["status"] = {"conditions": [{"type": kind, "status": "True", "message": started.api.log[-3000:]}]}

    started.api.operator = operate
    try:
        result = started.train()
    finally:
        for pod in pods:
            pod.kill()
    manifest = verify(started.outputs.bundle)
    assert manifest.framework == "torch"
    assert manifest.recipe_digest == result.recipe_digest
    assert result.metrics["valid_roc_auc"] > 0.9
    assert "2 processes train together." in started.api.log
    assert '"step": "train"' not in (tmp_path / "pod-1" / "log").read_text()  # only the first speaks
