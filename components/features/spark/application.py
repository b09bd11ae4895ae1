"""The SparkApplication of a feature job, for the Spark Operator."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import images
from components.cluster.api import Kind
from components.errors import BadInput
from components.features.spark.options import SparkOptions

Plain = dict[str, Any]

SPARK_APPLICATION = Kind("sparkoperator.k8s.io/v1beta2", "SparkApplication")
MAIN = "local:///opt/code/components/features/spark/job.py"
VERSION = "4.3.0"
_KEPT_SECONDS = 3600
_USER = 10001  # of our images
_ENVIRONMENT = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "SLUICEWAY_STORE")


@dataclass(frozen=True)
class Job:
    """A feature job on Kubernetes.

    Attributes:
        name: a DNS label that follows from what is computed, so that a retry finds the job of the attempt before.
        work: URI of what it does.
        options: what it asks for.
        owner: the pod that submits, so that the job goes when it goes; none in another namespace than the job's.
    """

    name: str
    work: str
    options: SparkOptions
    owner: Mapping[str, str] | None = None


def rendered(job: Job, environment: Mapping[str, str] = os.environ) -> Plain:
    """The object.

    Args:
        job: what to run.
        environment: of the step, for the address of the object store.
    """
    options = job.options
    metadata: Plain = {"name": job.name, "labels": {"app.kubernetes.io/managed-by": "sluiceway"}}
    if job.owner:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", **job.owner}]
    conf = {
        **options.conf,
        **store_settings(job.work, options, environment),
        "spark.kubernetes.executor.podNamePrefix": job.name,
        "spark.ui.enabled": "false",
    }
    driver = _pod(options, environment) | {
        "cores": options.driver_cores,
        "memory": options.driver_memory,
        "serviceAccount": options.service_account,
    }
    executor = _pod(options, environment) | {
        "instances": options.executors,
        "cores": options.executor_cores,
        "memory": options.executor_memory,
    }
    spec: Plain = {
        "type": "Python",
        "pythonVersion": "3",
        "mode": "cluster",
        "sparkVersion": VERSION,
        "image": options.image or images.for_features("kubernetes"),
        "mainApplicationFile": MAIN,
        "arguments": [job.work],
        "sparkConf": conf,
        "restartPolicy": {"type": "Never"},
        "timeToLiveSeconds": _KEPT_SECONDS,
        "volumes": list(options.volumes),
        "driver": driver,
        "executor": executor,
    }
    head = {"apiVersion": SPARK_APPLICATION.api_version, "kind": SPARK_APPLICATION.kind}
    return head | {"metadata": metadata, "spec": {key: value for key, value in spec.items() if value != []}}


def _pod(options: SparkOptions, environment: Mapping[str, str]) -> Plain:
    pod: Plain = {
        "env": [{"name": name, "value": environment[name]} for name in _ENVIRONMENT if environment.get(name)],
        "envFrom": [{"secretRef": {"name": options.secret, "optional": True}}] if options.secret else [],
        "nodeSelector": options.node_selector,
        "tolerations": list(options.tolerations),
        "volumeMounts": list(options.volume_mounts),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {key: value for key, value in pod.items() if value}


def store_settings(uri: str, options: SparkOptions, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What Spark must be told to read and write where a URI points.

    Args:
        uri: of a folder that the step has, too.
        options: what all pods mount.
        environment: of the step, for the address of the object store.

    Raises:
        BadInput: executors cannot get there.
    """
    scheme, separator, _ = uri.partition("://")
    if scheme == "gs" and separator:
        return {
            "spark.hadoop.fs.gs.impl": "com.google.cloud.hadoop.fs.gcs.GoogleHadoopFileSystem",
            "spark.hadoop.google.cloud.auth.type": "APPLICATION_DEFAULT",
        }
    if scheme in ("s3", "s3a") and separator:
        endpoint = environment.get("AWS_ENDPOINT_URL", "")
        if not endpoint:
            return {}
        return {
            "spark.hadoop.fs.s3a.endpoint": endpoint,
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.connection.ssl.enabled": str(endpoint.startswith("https://")).lower(),
        }
    if not separator and any(Path(uri).is_relative_to(str(one.get("mountPath", ""))) for one in options.volume_mounts):
        return {}
    raise BadInput(
        f"The pods of a Spark job do not share this step's disk, and cannot use {uri}: set SLUICEWAY_STORE to a "
        'bucket, gs://… or s3://…, mount its volume with volumes and volume_mounts, or take the engine "duckdb".'
    )


def for_spark(uri: str) -> str:
    """A URI as Spark's file systems name it."""
    return "s3a://" + uri.removeprefix("s3://") if uri.startswith("s3://") else uri
