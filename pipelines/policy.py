"""What each task may use and what becomes of it when it fails: one row per component."""

from dataclasses import dataclass
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl import structures

from components import images
from components.rollout.plan import LONGEST_SECONDS

HOUR = 60 * 60
DAY = 24 * HOUR

_SETTINGS = {
    name: name
    for name in (
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",  # of MinIO, SeaweedFS and others that speak S3
        "MLFLOW_TRACKING_URI",
        "SLUICEWAY_HOME",
        "SLUICEWAY_PROMETHEUS",
        "SLUICEWAY_PROMETHEUS_CA",
        "SLUICEWAY_REMOTE",
        "SLUICEWAY_SIGNING_KEY",
        "SLUICEWAY_STORE",
        "SLUICEWAY_UI",
        "SLUICEWAY_VERIFY_KEY",
        "SLUICEWAY_WHERE",
        "STORAGE_EMULATOR_HOST",  # in a cluster without buckets, what stands in for them
    )
}
_SECRETS = {"webhook": "SLUICEWAY_WEBHOOK", "prometheus-token": "SLUICEWAY_PROMETHEUS_TOKEN"}
_SOURCES = {
    "aws-access-key-id": "AWS_ACCESS_KEY_ID",
    "aws-secret-access-key": "AWS_SECRET_ACCESS_KEY",
    "database-password": "SLUICEWAY_DATABASE_PASSWORD",
    "database-user": "SLUICEWAY_DATABASE_USER",
    "hash-key": "SLUICEWAY_HASH_KEY",
    "https-token": "SLUICEWAY_HTTPS_TOKEN",
    "kafka": "SLUICEWAY_KAFKA",
}
_READS_SOURCES = ("resolve", "ingest", "features")


@dataclass(frozen=True)
class Policy:
    """How a component's tasks are run.

    Attributes:
        cached: whether its outputs of an earlier run with the same inputs are taken; never where it acts on the world.
        timeout: seconds after which Kubernetes ends one attempt.
        retries: further attempts, each after twice the pause before, or what ``factor`` says.
        pause: seconds before the second attempt.
        cpu: least and most, as Kubernetes quantities; empty for what the run decides.
        memory: likewise.
        factor: what each pause is multiplied by.
        chooses_images: whether it says what image another pod runs.
    """

    cached: bool
    timeout: int
    retries: int
    pause: int = 10
    cpu: tuple[str, str] | None = None
    memory: tuple[str, str] | None = None
    factor: int = 2
    chooses_images: bool = False


_SMALL, _LARGE = ("250m", "1"), ("1", "4")

# Every step may be killed at any moment and be started again, so each is tried again: what differs is how soon, and how
# long one attempt may take. Memory: see docs/packages.md for what was measured.
POLICIES = {
    "resolve": Policy(False, HOUR, 2, 10, _SMALL, ("512Mi", "2Gi"), chooses_images=True),
    "ingest": Policy(True, 6 * HOUR, 2, 10, _LARGE, ("1Gi", "4Gi")),
    "validate": Policy(True, 6 * HOUR, 2, 10, _LARGE, ("2Gi", "4Gi")),
    "features": Policy(True, 6 * HOUR, 2, 10, _LARGE, ("1Gi", "8Gi")),
    # A reclaimed spot node ends an attempt; the next one goes on from its checkpoint once there is another node.
    "train": Policy(True, 2 * DAY, 5, 10, factor=3),
    "search": Policy(False, 2 * DAY, 5, 10, factor=3),
    "train-job": Policy(True, 2 * DAY, 5, 10, factor=3),
    "evaluate": Policy(True, 6 * HOUR, 2, 10, _LARGE, ("1Gi", "8Gi")),
    "register": Policy(False, HOUR, 2, 10, _SMALL, ("512Mi", "2Gi")),
    # It may wait for another rollout of the service; the server that it starts has a pod of its own.
    "stage": Policy(False, DAY, 2, 30, _SMALL, ("512Mi", "4Gi"), chooses_images=True),
    # A rollout whose pod was lost goes on where it was. An attempt outlasts any plan.
    "rollout": Policy(False, LONGEST_SECONDS + DAY, 3, 30, _SMALL, ("1Gi", "4Gi")),
    # The last that can put the service on a good release: more patient than what it follows.
    "settle": Policy(False, HOUR, 5, 10, _SMALL, ("512Mi", "2Gi")),
}


def governed(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give a task its component's policy, and the cluster's settings.

    The settings come from a ConfigMap; on one machine they are in the environment.
    """
    policy = POLICIES[task.component_spec.name]
    task.set_caching_options(policy.cached)
    if policy.cpu and policy.memory:
        (cpu_request, cpu_limit), (memory_request, memory_limit) = policy.cpu, policy.memory
        needs(
            task,
            cpu_request=cpu_request,
            cpu_limit=cpu_limit,
            memory_request=memory_request,
            memory_limit=memory_limit,
        )
    if policy.chooses_images:
        task.set_env_variable(images.VARIABLE, images.chosen_by_runs())
    kubernetes.use_config_map_as_env(task, "sluiceway", _SETTINGS, optional=True)
    if task.component_spec.name in _READS_SOURCES:
        kubernetes.use_secret_as_env(task, "sluiceway-sources", _SOURCES, optional=True)
    kubernetes.use_config_map_as_volume(task, "sluiceway-verify", "/etc/sluiceway/verify", optional=True)
    kubernetes.set_timeout(task, policy.timeout)
    # Argo counts this from the start of the first attempt, not of the last: all of them must fit.
    window = (policy.retries + 1) * policy.timeout
    return task.set_retry(policy.retries, f"{policy.pause}s", policy.factor, f"{window}s")


def needs(task: dsl.PipelineTask, **asked: Any) -> None:
    """Say what a task's pod needs, as KFP's setters would, by the names of its ``ResourceSpec``.

    Each of the setters looks through the source of the whole call stack: 60 calls of them take most of a compilation.

    Args:
        task: whose.
        asked: quantities, or outputs of other tasks.
    """
    assert task.container_spec is not None
    task.container_spec.resources = structures.ResourceSpec(**{name: str(value) for name, value in asked.items()})


def with_webhook(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give a rollout the address to tell people at and the token of Prometheus, both secrets."""
    return kubernetes.use_secret_as_env(task, "sluiceway-rollout", _SECRETS, optional=True)
