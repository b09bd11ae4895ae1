"""The Kubernetes API as a training in several pods needs it: which operator is there, submit, look, remove."""

import base64
import binascii
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.errors import BadInput, Unreachable
from components.train.trainjob.manifest import Job, Plain, pytorch_job, tf_job, train_job

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

TRAINER, TRAINING_OPERATOR = "trainer.kubeflow.org/v1alpha1", "kubeflow.org/v1"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECONDS = (10, 60)  # to connect, to answer

State = Literal["waiting", "running", "succeeded", "failed"]


@dataclass(frozen=True)
class Seen:
    """A job as it is now.

    Attributes:
        state: how far it is.
        message: what the operator says of it.
        uid: which object of that name it is.
    """

    state: State
    message: str
    uid: str = ""


def inside() -> "tuple[ApiClient, str, str]":
    """A client of the cluster that this pod runs in, its namespace, and its service account.

    Raises:
        BadInput: this is no pod, or it has no service account.
    """
    from kubernetes import client, config

    try:
        config.load_incluster_config()
        namespace = (_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
        token = (_ACCOUNT / "token").read_text(encoding="utf-8")
    except (config.ConfigException, OSError) as error:
        raise BadInput(
            f"Training in several pods needs a Kubernetes cluster, and this step does not run in one ({error}): set "
            "nodes to 1."
        ) from error
    return client.ApiClient(), namespace, _account(token)


def _account(token: str) -> str:
    """The service account that a token is of; empty where the token does not say."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return str(claims["kubernetes.io"]["serviceaccount"]["name"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return ""


class Cluster:
    """The jobs of one namespace.

    Args:
        api: client of the cluster.
        namespace: where jobs are made.
    """

    def __init__(self, api: "ApiClient", namespace: str) -> None:
        """Ask the API server what it knows.

        Raises:
            Unreachable: it does not answer.
        """
        from kubernetes.client import CoreV1Api
        from kubernetes.dynamic import DynamicClient

        self.namespace = namespace
        with _sentences("be reached"):
            cache = str(Path(tempfile.mkdtemp(prefix="sluiceway-")) / "discovery.json")
            self._client = DynamicClient(api, cache_file=cache)
        self._pods = CoreV1Api(api)

    def render(self, job: Job) -> Plain:
        """The object of a job for the operator that is installed, the newer one where both are.

        Raises:
            BadInput: none is.
        """
        if self._knows(TRAINER, "TrainJob"):
            return train_job(job, self._patches())
        older = {"torch": ("PyTorchJob", pytorch_job), "tensorflow": ("TFJob", tf_job)}
        kind, rendered = older[job.framework]
        if self._knows(TRAINING_OPERATOR, kind):
            return rendered(job)
        raise BadInput(
            f"This cluster has neither TrainJob ({TRAINER}) nor {kind} ({TRAINING_OPERATOR}): install Kubeflow "
            "Trainer, or train in one pod with nodes set to 1."
        )

    def submit(self, body: Plain) -> None:
        """Make a job by server-side apply.

        Raises:
            BadInput: the API server refuses the object, or this step may not make it.
            Unreachable: it does not answer.
        """
        with _sentences(f"make the {body['kind']} {body['metadata']['name']}"):
            self._client.server_side_apply(
                self._resource(body),
                body=body,
                namespace=self.namespace,
                field_manager="sluiceway",
                force_conflicts="true",
            )

    def look(self, body: Plain) -> Seen | None:
        """The job of this object's name as it is now; None where there is none."""
        from kubernetes.dynamic.exceptions import NotFoundError

        name = body["metadata"]["name"]
        with _sentences(f"read the {body['kind']} {name}"):
            try:
                found = self._client.get(
                    self._resource(body), name=name, namespace=self.namespace, _request_timeout=_SECONDS
                )
            except NotFoundError:
                return None
        return seen(found.to_dict())

    def remove(self, body: Plain) -> None:
        """Remove a job and its pods; one that is gone already is removed."""
        from kubernetes.dynamic.exceptions import NotFoundError

        name = body["metadata"]["name"]
        with _sentences(f"remove the {body['kind']} {name}"):
            try:
                self._client.delete(
                    self._resource(body), name=name, namespace=self.namespace, propagation_policy="Background"
                )
            except NotFoundError:
                return

    def log(self, body: Plain, lines: int) -> str:
        """The last lines that the first pod wrote; empty where it has not started or its log cannot be read."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            pods = self._pods.list_namespaced_pod(
                self.namespace, label_selector=_first_pod(body), _request_timeout=_SECONDS
            ).items
            if not pods:
                return ""
            newest = max(pods, key=lambda pod: pod.metadata.creation_timestamp)
            # As bytes: the client would read a log that happens to be JSON, as one line of ours is, and mangle it.
            answer = self._pods.read_namespaced_pod_log(
                newest.metadata.name,
                self.namespace,
                tail_lines=lines,
                _preload_content=False,
                _request_timeout=_SECONDS,
            )
            return bytes(answer.data).decode(errors="replace")
        except (ApiException, HTTPError):
            return ""

    def _knows(self, api_version: str, kind: str) -> bool:
        from kubernetes.dynamic.exceptions import ResourceNotFoundError

        with _sentences("be asked what it knows"):
            try:
                self._client.resources.get(api_version=api_version, kind=kind)
            except ResourceNotFoundError:
                return False
        return True

    def _resource(self, body: Plain) -> Any:
        return self._client.resources.get(api_version=body["apiVersion"], kind=body["kind"])

    def _patches(self) -> Literal["podTemplateOverrides", "runtimePatches"]:
        """What this version of Trainer calls the changes to its pods; every account may read the API's description."""
        with _sentences("be asked which fields a TrainJob has"):
            path = f"/openapi/v3/apis/{TRAINER}"
            described = json.loads(self._client.request("GET", path, serialize=False, _request_timeout=_SECONDS).data)
        fields: set[str] = set()
        for name, schema in described.get("components", {}).get("schemas", {}).items():
            if name.endswith(".TrainJob"):
                fields.update(schema["properties"]["spec"].get("properties", {}))
        if "runtimePatches" in fields:
            return "runtimePatches"
        if "podTemplateOverrides" in fields:
            return "podTemplateOverrides"
        raise BadInput(
            "The Kubeflow Trainer of this cluster is too old: its TrainJob has neither runtimePatches nor "
            "podTemplateOverrides; install version 2.1 or newer, or train in one pod with nodes set to 1."
        )


def seen(found: Plain) -> Seen:
    """What the status of a TrainJob, PyTorchJob or TFJob says."""
    status = found.get("status") or {}
    true = {one["type"]: one for one in status.get("conditions") or [] if one.get("status") == "True"}
    uid = str(found.get("metadata", {}).get("uid", ""))
    for kind, state in (("Failed", "failed"), ("Complete", "succeeded"), ("Succeeded", "succeeded")):
        if kind in true:
            return Seen(state, str(true[kind].get("message") or true[kind].get("reason") or ""), uid)  # type: ignore[arg-type]
    counts = {job["name"]: job for job in status.get("jobsStatus") or []}
    active = int((counts.get("node") or {}).get("active", 0))
    active += sum(int((one or {}).get("active", 0)) for one in (status.get("replicaStatuses") or {}).values())
    if "Suspended" in true:
        return Seen("waiting", f"suspended: {true['Suspended'].get('message', '')}", uid)
    if active or "Running" in true:
        return Seen("running", "the pods are there", uid)
    return Seen("waiting", "waiting for its pods", uid)


def _first_pod(body: Plain) -> str:
    """Labels of the pod whose process has rank 0."""
    name, kind = body["metadata"]["name"], body["kind"]
    if kind == "TrainJob":
        return f"jobset.sigs.k8s.io/jobset-name={name},batch.kubernetes.io/job-completion-index=0"
    replica = "master" if kind == "PyTorchJob" else "worker"
    return (
        f"training.kubeflow.org/job-name={name},training.kubeflow.org/replica-type={replica},"
        "training.kubeflow.org/replica-index=0"
    )


@contextmanager
def _sentences(what: str) -> Iterator[None]:
    from kubernetes.client.exceptions import ApiException
    from kubernetes.dynamic.exceptions import NotFoundError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except NotFoundError:
        raise
    except ApiException as error:
        said = _message(error)
        if error.status in (401, 403):
            raise BadInput(
                f"This step may not {what}: {said}; bind the Role in manifests/base/pipelines/train-jobs.yaml to its "
                "service account."
            ) from error
        if error.status in (400, 404, 409, 422):
            raise BadInput(f"The cluster would not {what}: {said}.") from error
        raise Unreachable(f"The Kubernetes API could not {what}: {said}.") from error
    except HTTPError as error:
        raise Unreachable(f"The Kubernetes API could not {what}: {error}.") from error


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"]).rstrip(".")
    except (KeyError, TypeError, ValueError):
        return f"{error.status} {error.reason}"
