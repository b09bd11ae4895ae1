"""Who we are to the API server: the pod's service account, or a kubeconfig."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import BadInput

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def client(kubeconfig: str, account: Path = _ACCOUNT) -> "tuple[ApiClient, str]":
    """A client and the namespace that it is in by default.

    Args:
        kubeconfig: path; empty goes by KUBECONFIG, then the pod's service account, then ~/.kube/config.
        account: where a pod finds its service account.

    Raises:
        BadInput: there is none of these, or it cannot be read.
    """
    from kubernetes.client import ApiClient, Configuration

    named = kubeconfig or os.environ.get("KUBECONFIG", "")
    configuration = Configuration()
    if not named and os.environ.get("KUBERNETES_SERVICE_HOST"):
        namespace = _inside(configuration, account)
    else:
        namespace = _by_file(configuration, named or "~/.kube/config")
    return ApiClient(configuration), namespace


def _inside(configuration: "Configuration", account: Path) -> str:
    """Take the pod's service account; its token is read anew for every request.

    The client reads it anew every minute by the wall clock, so that after a clock that went back it would go on with a
    token that has run out.
    """
    from kubernetes.config import ConfigException
    from kubernetes.config.incluster_config import InClusterConfigLoader

    token = account / "token"
    try:
        InClusterConfigLoader(token_filename=str(token), cert_filename=str(account / "ca.crt")).load_and_set(
            configuration
        )
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
    except (ConfigException, OSError) as error:
        raise BadInput(
            f"This pod's service account cannot be used ({error}): run the step under one, with "
            "automountServiceAccountToken left on."
        ) from error

    def read_again(fresh: "Configuration") -> None:
        fresh.api_key["authorization"] = "bearer " + token.read_text(encoding="utf-8").strip()

    configuration.refresh_api_key_hook = read_again
    return namespace


def _by_file(configuration: "Configuration", path: str) -> str:
    from kubernetes.config import ConfigException, list_kube_config_contexts, load_kube_config
    from yaml import YAMLError

    path = os.pathsep.join(os.path.expanduser(part) for part in path.split(os.pathsep))
    try:
        load_kube_config(config_file=path, client_configuration=configuration)
        _, current = list_kube_config_contexts(config_file=path)
    except (ConfigException, YAMLError, OSError, TypeError) as error:  # TypeError: a file that is no mapping
        raise BadInput(
            f"No cluster to talk to: the kubeconfig {path} cannot be used ({error}): name one with KUBECONFIG, or run "
            "the step in a pod with a service account."
        ) from error
    return str(current["context"].get("namespace") or "default")
