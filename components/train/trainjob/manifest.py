"""The Kubernetes objects of a training in more than one pod, for each operator that runs such trainings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from components.train.schedule import SHARED_MEMORY

Plain = dict[str, Any]
Framework = Literal["torch", "tensorflow"]

PORT = 2222
_OWN = {"cpu", "memory", "ephemeral-storage"}
_RUNTIMES: dict[Framework, Plain] = {
    "torch": {"kind": "ClusterTrainingRuntime", "name": "torch-distributed"},
    "tensorflow": {"kind": "TrainingRuntime", "name": "sluiceway-tensorflow"},
}


@dataclass(frozen=True)
class Job:
    """A training in several pods.

    Attributes:
        name: a DNS label that follows from what is trained, so that a retry finds the job of the attempt before.
        namespace: of the pods.
        framework: decides the operator's kind and how the pods find each other.
        image: of the pods.
        work: URI of what they do.
        nodes: how many pods.
        seconds: after which Kubernetes ends the job.
        pod: Kubernetes fields by their own names: ``resources``, ``env``, ``volumes``, ``volumeMounts``,
            ``nodeSelector``, ``tolerations``, ``affinity``, ``serviceAccountName``; empty ones are left out.
        owner: the pod that submits, so that the job goes when it goes.
    """

    name: str
    namespace: str
    framework: Framework
    image: str
    work: str
    nodes: int
    seconds: int
    pod: Mapping[str, Any] = field(default_factory=dict)
    owner: Mapping[str, str] | None = None

    @property
    def processes(self) -> int:
        """In each pod: one for each accelerator; TensorFlow drives all of a pod's from one."""
        if self.framework == "tensorflow":
            return 1
        return max(1, sum(int(count) for name, count in self.limits().items() if name not in _OWN))

    def limits(self) -> dict[str, Any]:
        """Of one pod."""
        return dict((self.pod.get("resources") or {}).get("limits") or {})

    def command(self) -> list[str]:
        """What each pod runs; torchrun finds the others through ``PET_`` variables that the operators set."""
        launcher = ["-m", "torch.distributed.run", "--module"] if self.framework == "torch" else ["-m"]
        return ["python", *launcher, "components.train.trainjob.worker", self.work]


def train_job(job: Job, patches: Literal["podTemplateOverrides", "runtimePatches"]) -> Plain:
    """A ``TrainJob`` of Kubeflow Trainer.

    Args:
        job: what to run.
        patches: the field through which this version of Trainer lets a job change its pods: 2.2 renamed it.
    """
    volumes, mounts = _volumes(job)
    spec = _given(
        {
            "serviceAccountName": job.pod.get("serviceAccountName"),
            "nodeSelector": job.pod.get("nodeSelector"),
            "affinity": job.pod.get("affinity"),
            "tolerations": job.pod.get("tolerations"),
            "volumes": volumes,
            "containers": [{"name": "node", "volumeMounts": mounts}],
        }
    )
    if patches == "podTemplateOverrides":
        patch: Plain = {"targetJobs": [{"name": "node"}], "spec": spec}
    else:
        one = {"name": "node", "template": {"spec": {"template": {"spec": spec}}}}
        patch = {
            "manager": "sluiceway.dev/train",
            "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [one]}}},
        }
    trainer = {
        "image": job.image,
        "command": job.command(),
        "env": _env(job),
        "numNodes": job.nodes,
        "numProcPerNode": job.processes,
        "resourcesPerNode": _resources(job),
    }
    runtime = {"apiGroup": "trainer.kubeflow.org", **_RUNTIMES[job.framework]}
    body = {"runtimeRef": runtime, "trainer": _given(trainer), patches: [patch]}
    return _object(job, "trainer.kubeflow.org/v1alpha1", "TrainJob", body)


def pytorch_job(job: Job) -> Plain:
    """A ``PyTorchJob`` of the Training Operator that Trainer replaces."""
    template = _template(job, "pytorch", [{"name": "pytorchjob-port", "containerPort": PORT}])
    replicas = {
        "Master": {"replicas": 1, "restartPolicy": "OnFailure", "template": template},
        "Worker": {"replicas": job.nodes - 1, "restartPolicy": "OnFailure", "template": template},
    }
    body = {
        "runPolicy": _policy(job),
        "nprocPerNode": str(job.processes),
        "pytorchReplicaSpecs": replicas,
    }
    return _object(job, "kubeflow.org/v1", "PyTorchJob", body)


def tf_job(job: Job) -> Plain:
    """A ``TFJob`` of the Training Operator; it sets ``TF_CONFIG``."""
    template = _template(job, "tensorflow", [{"name": "tfjob-port", "containerPort": PORT}])
    replicas = {"Worker": {"replicas": job.nodes, "restartPolicy": "OnFailure", "template": template}}
    return _object(job, "kubeflow.org/v1", "TFJob", {"runPolicy": _policy(job), "tfReplicaSpecs": replicas})


def _object(job: Job, api_version: str, kind: str, spec: Plain) -> Plain:
    metadata: Plain = {
        "name": job.name,
        "namespace": job.namespace,
        "labels": {"app.kubernetes.io/managed-by": "sluiceway", "app.kubernetes.io/component": "train"},
    }
    if job.owner:
        owner = {"apiVersion": "v1", "kind": "Pod", "blockOwnerDeletion": False, "controller": False, **job.owner}
        metadata["ownerReferences"] = [owner]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def _template(job: Job, container: str, ports: list[Plain]) -> Plain:
    volumes, mounts = _volumes(job)
    main = {
        "name": container,
        "image": job.image,
        "command": job.command(),
        "env": _env(job),
        "ports": ports,
        "resources": _resources(job),
        "volumeMounts": mounts,
    }
    names = ("serviceAccountName", "nodeSelector", "tolerations", "affinity")
    return {"spec": _given({**{name: job.pod.get(name) for name in names}, "volumes": volumes, "containers": [main]})}


def _policy(job: Job) -> Plain:
    # Pods stay when the job has ended: their logs say why. They go with the job.
    return {"cleanPodPolicy": "None", "activeDeadlineSeconds": job.seconds, "backoffLimit": 3}


def _env(job: Job) -> list[Plain]:
    own = {"SLUICEWAY_JOB": job.name, "SLUICEWAY_NODES": str(job.nodes), "PYTHONUNBUFFERED": "1"}
    given: Sequence[Plain] = job.pod.get("env") or []
    return [*(entry for entry in given if entry["name"] not in own), *({"name": k, "value": v} for k, v in own.items())]


def _resources(job: Job) -> Plain:
    """Without accelerators of which none are asked for: some clusters put even those pods on their nodes."""
    given = job.pod.get("resources") or {}
    return {
        side: {name: amount for name, amount in (given.get(side) or {}).items() if str(amount) != "0"}
        for side in ("limits", "requests")
        if given.get(side)
    }


def _volumes(job: Job) -> tuple[list[Plain], list[Plain]]:
    memory = {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}}
    mount = {"name": "shared-memory", "mountPath": "/dev/shm"}  # noqa: S108 - a mount, not a file of ours
    return [memory, *(job.pod.get("volumes") or [])], [mount, *(job.pod.get("volumeMounts") or [])]


def _given(fields: Plain) -> Plain:
    return {name: value for name, value in fields.items() if value}
