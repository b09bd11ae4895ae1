"""How to reach a KFP server: flags first, then the environment, then what kfp's own client knows."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from components.errors import BadInput


class Options(BaseSettings):
    """Where the server is, who asks, and how long to wait.

    Every field can be given in the environment: ``host`` is ``SLUICEWAY_KFP_HOST``. With no host, kfp's own client
    chooses: ``KF_PIPELINES_ENDPOINT``, in a pod the service in its cluster, else the kubeconfig's cluster.

    Attributes:
        host: address of the API or of the UI that passes it on, such as ``https://kubeflow.example.com/pipeline``.
        ui: address of the UI for links; the host by default.
        namespace: on a multi-user Kubeflow, the profile's namespace.
        shared: on a multi-user Kubeflow, pipelines are for every namespace.
        token_file: file with a bearer token; read anew for each request, so it may be renewed at any time.
        cookie_file: file with a session cookie, ``name=value``, copied from a browser that is logged in.
        username: who logs in at Dex; the password comes from ``password_file`` or ``SLUICEWAY_KFP_PASSWORD``.
        password_file: file with the password for Dex.
        iap_client_id: OAuth client of Google's Identity-Aware Proxy.
        port_forward: go through the Kubernetes API to the UI's pods, with the kubeconfig's rights.
        kube_context: context of the kubeconfig for ``port_forward``.
        kube_namespace: where KFP is installed, for ``port_forward``.
        ca_file: certificate authority that signed the server's certificate.
        timeout_seconds: longest wait for one answer.
        patience_seconds: how long what passes (5xx, 429, lost connections) is waited out, for each request.
    """

    model_config = SettingsConfigDict(env_prefix="SLUICEWAY_KFP_", extra="ignore")

    host: str = ""
    ui: str = ""
    namespace: str = ""
    shared: bool = False
    token_file: Path | None = None
    cookie_file: Path | None = None
    username: str = ""
    password: SecretStr = SecretStr("")
    password_file: Path | None = None
    iap_client_id: str = ""
    port_forward: bool = False
    kube_context: str = ""
    kube_namespace: str = "kubeflow"
    ca_file: Path | None = None
    timeout_seconds: float = Field(default=30, gt=0)
    patience_seconds: float = Field(default=60, ge=0)


def read_options(**flags: object) -> Options:
    """Options from flags that were given, and from the environment for the rest.

    Raises:
        BadInput: a value that cannot be, or a file that is not there.
    """
    from pydantic import ValidationError

    try:
        options = Options(**{name: value for name, value in flags.items() if value not in (None, "", False)})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "SLUICEWAY_KFP_" + "_".join(str(part) for part in first["loc"]).upper()
        raise BadInput(f"{name} (or its flag) is {first['input']!r}: {first['msg']}.") from error
    for name in ("token_file", "cookie_file", "password_file", "ca_file"):
        path = getattr(options, name)
        if path is not None and not path.is_file():
            raise BadInput(f"There is no file {path}, which --{name.replace('_', '-')} names.")
    return options
