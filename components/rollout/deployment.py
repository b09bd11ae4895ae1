"""Where a model is served and with what: frozen, checked at the edge."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.parameters import parsed

Where = Literal["auto", "single-machine", "knative", "standard", "two-services"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Autoscaling(_Frozen):
    """How many servers the champion has; the challenger's number follows from its share of the traffic.

    Attributes:
        min_replicas: least number; 0 scales to zero where the cluster can (Knative mode).
        max_replicas: greatest number; 0 does not scale.
        metric: what is scaled by, as KServe names it.
        target: value of that metric per server; 0 leaves it to KServe.
    """

    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=0, ge=0)
    metric: Literal["concurrency", "rps", "cpu", "memory"] = "concurrency"
    target: int = Field(default=0, ge=0)


class Logger(_Frozen):
    """Where requests and answers are sent, as CloudEvents."""

    url: str
    mode: Literal["all", "request", "response"] = "all"


class GitOps(_Frozen):
    """Write the manifests for Argo CD or Flux to apply, instead of applying them.

    Attributes:
        folder: where the manifests go: in the repository's working tree, or any folder when no repository is named.
        repository: what to clone and push to; empty only writes the folder. Credentials come from git's own settings.
        branch: the branch that is committed to.
    """

    folder: str
    repository: str = ""
    branch: str = "main"


class Deployment(_Frozen):
    """Where and how a model is served.

    Attributes:
        where: "auto" goes by the settings: this machine, or KServe by the mechanism that the cluster can do.
        namespace: of the service; empty takes the pipeline's own.
        staging_namespace: where a challenger is proved first; empty stages it beside the live service, without traffic.
        runtime: "sluiceway" for our server, or one of KServe's own by its model format: "mlflow", "onnx", "triton",
            "tensorflow", "sklearn" and so on.
        image: our server's image, by digest; empty takes the one of this release of Sluiceway.
        resources: {"requests": {…}, "limits": {…}} of a server, as Kubernetes writes them.
        accelerators: how many a server has.
        accelerator_type: the resource that one is.
        autoscaling: how many servers there are.
        service_account: that servers run under: it carries the credentials for the storage.
        storage: KServe's ``storage`` block, for instance {"key": "my-bucket"}; empty goes by the bundle's URI.
        logger: where requests and answers are logged; None logs nowhere.
        gateway: "namespace/name" of the Gateway that routes hang on (two-services), and for the cluster's checks.
        hostname: under which clients reach the service (two-services); empty builds it from name and namespace.
        annotations: more annotations for the service.
        labels: more labels.
        ready_seconds: how long a server may take to become ready.
        gitops: write manifests for another tool to apply; None applies them.
    """

    where: Where = "auto"
    namespace: str = ""
    staging_namespace: str = ""
    runtime: str = "sluiceway"
    image: str = ""
    resources: dict[str, dict[str, str]] = {}
    accelerators: int = Field(default=0, ge=0)
    accelerator_type: str = "nvidia.com/gpu"
    autoscaling: Autoscaling = Autoscaling()
    service_account: str = ""
    storage: dict[str, Any] = {}
    logger: Logger | None = None
    gateway: str = ""
    hostname: str = ""
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}
    ready_seconds: float = Field(default=600, gt=0)
    gitops: GitOps | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        scaling = self.autoscaling
        if scaling.max_replicas and scaling.max_replicas < max(scaling.min_replicas, 1):
            raise ValueError(f"max_replicas ({scaling.max_replicas}) is below min_replicas ({scaling.min_replicas})")
        if self.gateway and self.gateway.count("/") != 1:
            raise ValueError(f'gateway must be "namespace/name"; got {self.gateway!r}')
        return self


def parse_deployment(deployment: dict[str, Any]) -> Deployment:
    """Read a deployment given as a parameter.

    Raises:
        BadInput: a field is out of range or unknown; names it.
    """
    return parsed(Deployment, deployment, "The deployment", whole="deployment")
