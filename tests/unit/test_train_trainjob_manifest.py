"""The objects that a training in several pods is: what each operator is told."""

import json

import pytest

from components.errors import BadInput
from components.train.schedule import SHARED_MEMORY
from components.train.trainjob.cluster import seen
from components.train.trainjob.manifest import Job, pytorch_job, tf_job, train_job
from components.train.trainjob.run import framework_of
from components.train.trainjob.work import Work
from components.train.trainjob.worker import rank, tf_config

POD = {
    "resources": {
        "limits": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "4"},
        "requests": {"cpu": "2", "memory": "8Gi"},
    },
    "env": [{"name": "SLUICEWAY_STORE", "value": "gs://b/s"}, {"name": "SLUICEWAY_NODES", "value": "9"}],
    "volumes": [{"name": "sluiceway-signing", "secret": {"secretName": "sluiceway-signing"}}],
    "volumeMounts": [{"name": "sluiceway-signing", "mountPath": "/etc/sluiceway/signing"}],
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "affinity": None,
    "serviceAccountName": "pipeline-runner",
}


def job(framework="torch", **changed):
    given = {"image": "image:1", "work": "gs://b/job", "nodes": 3, "seconds": 60, "pod": POD, **changed}
    return Job("job", "ml", framework, **given)


@pytest.fixture(params=["podTemplateOverrides", "runtimePatches"])
def train(request):
    """A TrainJob of one version of Trainer, and the pod that it asks for."""
    made = train_job(job(), request.param)
    (patch,) = made["spec"][request.param]
    if request.param == "podTemplateOverrides":
        assert patch["targetJobs"] == [{"name": "node"}]
        return made, patch["spec"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == "node"
    return made, replicated["template"]["spec"]["template"]["spec"]


def test_a_train_job_runs_one_process_per_accelerator_in_every_pod(train):
    made, _ = train
    trainer = made["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 4)
    assert trainer["resourcesPerNode"] == POD["resources"]
    assert trainer["command"][:3] == ["python", "-m", "torch.distributed.run"]
    assert trainer["command"][-1] == "gs://b/job"
    assert made["spec"]["runtimeRef"]["name"] == "torch-distributed"


def test_its_pods_are_placed_like_the_task_and_have_its_volumes_and_shared_memory(train):
    made, pod = train
    assert (pod["nodeSelector"], pod["tolerations"]) == (POD["nodeSelector"], POD["tolerations"])
    assert pod["serviceAccountName"] == "pipeline-runner"
    assert "affinity" not in pod
    memory, secret = pod["volumes"]
    assert memory["emptyDir"] == {"medium": "Memory", "sizeLimit": SHARED_MEMORY}
    assert secret == POD["volumes"][0]
    (container,) = pod["containers"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/dev/shm", "/etc/sluiceway/signing"]
    assert "env" not in container  # Trainer refuses it there for this container
    environment = {entry["name"]: entry["value"] for entry in made["spec"]["trainer"]["env"]}
    assert environment["SLUICEWAY_STORE"] == "gs://b/s"
    assert environment["SLUICEWAY_NODES"] == "3"


def test_the_older_operator_gets_a_master_and_the_rest_as_workers():
    spec = pytorch_job(job())["spec"]
    assert {kind: one["replicas"] for kind, one in spec["pytorchReplicaSpecs"].items()} == {"Master": 1, "Worker": 2}
    assert spec["nprocPerNode"] == "4"
    pod = spec["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert pod["containers"][0]["name"] == "pytorch"
    assert pod["containers"][0]["ports"][0]["name"] == "pytorchjob-port"
    assert pod["nodeSelector"] == POD["nodeSelector"]


def test_a_tf_job_runs_one_process_per_pod_and_no_torchrun():
    spec = tf_job(job("tensorflow"))["spec"]
    assert spec["tfReplicaSpecs"]["Worker"]["replicas"] == 3
    (container,) = spec["tfReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    assert container["name"] == "tensorflow"
    assert container["command"] == ["python", "-m", "components.train.trainjob.worker", "gs://b/job"]
    assert train_job(job("tensorflow"), "runtimePatches")["spec"]["runtimeRef"]["name"] == "sluiceway-tensorflow"


def test_pods_without_accelerators_ask_for_none_at_all():
    limits = {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "0"}
    made = job(pod={**POD, "resources": {"limits": limits}})
    trainer = train_job(made, "runtimePatches")["spec"]["trainer"]
    assert trainer["resourcesPerNode"] == {"limits": {"cpu": "4", "memory": "8Gi"}}
    assert trainer["numProcPerNode"] == 1


def test_the_same_training_has_the_same_name_and_another_one_another():
    work = Work("torch", {"epochs": 3}, 0, 0.0, "auto", "", [], "churn")
    name = work.name("digest", "image:1", 2)
    assert name == Work("torch", {"epochs": 3}, 0, 0.0, "auto", "", [], "churn").name("digest", "image:1", 2)
    others = {work.name("other", "image:1", 2), work.name("digest", "image:2", 2), work.name("digest", "image:1", 3)}
    assert len(others | {name}) == 4
    assert len(name) < 50
    assert name.replace("-", "").isalnum()


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({}, "waiting"),
        ({"conditions": [{"type": "Suspended", "status": "True"}]}, "waiting"),
        ({"conditions": [{"type": "Created", "status": "True"}]}, "waiting"),
        ({"jobsStatus": [{"name": "node", "active": 1}]}, "running"),
        ({"conditions": [{"type": "Running", "status": "True"}]}, "running"),
        ({"replicaStatuses": {"Worker": {"active": 2}}}, "running"),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, "succeeded"),
        (
            {"conditions": [{"type": "Running", "status": "False"}, {"type": "Succeeded", "status": "True"}]},
            "succeeded",
        ),
        ({"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]}, "failed"),
    ],
)
def test_the_states_of_both_operators_are_understood(status, state):
    assert seen({"metadata": {"uid": "u"}, "status": status}).state == state


def test_tensorflow_pods_of_a_train_job_are_told_of_each_other():
    pod = {"SLUICEWAY_JOB": "job", "SLUICEWAY_NODES": "2", "JOB_COMPLETION_INDEX": "1"}
    made = json.loads(tf_config(pod)["TF_CONFIG"])
    assert made["cluster"]["worker"] == ["job-node-0-0.job:2222", "job-node-0-1.job:2222"]
    assert made["task"] == {"type": "worker", "index": 1}
    assert rank(tf_config(pod)) == 1
    assert not tf_config({**pod, "TF_CONFIG": "{}"})  # a TFJob has set it
    assert not tf_config({**pod, "RANK": "0"})  # torchrun


def test_a_trainer_of_scikit_learn_is_refused_and_an_unknown_one_is_taken_for_pytorch():
    assert framework_of("mine.trainer:make") == "torch"
    assert framework_of("keras") == "tensorflow"
    with pytest.raises(BadInput, match="one pod"):
        framework_of("linear")
