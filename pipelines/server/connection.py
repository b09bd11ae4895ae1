"""A connection to a KFP server, through kfp's own client."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp.client
import kfp_server_api

from components.errors import BadInput
from pipelines.server import versions
from pipelines.server.auth import credentials
from pipelines.server.options import Options
from pipelines.server.retry import Transport

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Client(kfp.client.Client):
    """kfp's client, which asks nothing while it is made: that would be without timeout and login."""

    def get_kfp_healthz(self, sleep_duration: int = 5) -> kfp_server_api.V2beta1GetHealthzResponse:
        """Nothing; :func:`versions.ask` asks."""
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)


@dataclass(frozen=True)
class Connection:
    """A KFP server that answers and knows us.

    Attributes:
        client: kfp's client. Every call on it, and on the generated APIs below it (``client.pipelines``,
            ``client.runs``, ``client.recurring_runs``, …), has a timeout and patience, and raises errors of
            :mod:`components.errors`: Unreachable, Unanswered, Refused (with ``status``).
        server: its version, and whether it is multi-user.
        namespace: where runs and schedules live; empty on a single-user server.
        shared: pipelines are for every namespace.
        patience: seconds, for :func:`pipelines.server.retry.made_once`.
    """

    client: Client
    server: versions.Server
    namespace: str
    shared: bool
    ui: str
    patience: float

    @property
    def pipelines_namespace(self) -> str:
        """Where pipelines live: empty for shared ones and on a single-user server."""
        return "" if self.shared else self.namespace

    def link(self, *parts: str) -> str:
        """A page of the UI, such as ``link("runs", "details", run_id)``."""
        return "/".join((f"{self.ui}/#", *parts))


@contextlib.contextmanager
def connect(options: Options, say: Callable[[str], None] | None = None) -> Iterator[Connection]:
    """Connect, and check that the server answers, knows us, and is neither too old nor something else.

    Args:
        options: where it is, and who asks.
        say: what the user should know that is no failure; standard error by default.

    Raises:
        BadInput: options that contradict each other, or a server that is too old.
        Unreachable: it cannot be reached, or does not let us in.
    """
    say = say or (lambda text: print(text, file=sys.stderr))
    with contextlib.ExitStack() as stack:
        if options.port_forward:
            from pipelines.server.forward import forwarded

            options = options.model_copy(update={"host": stack.enter_context(forwarded(options))})
        client = _client(options)
        api = api_client(client)
        api.rest_client = Transport(
            api.configuration, credentials(options), options.timeout_seconds, options.patience_seconds
        )
        server = versions.ask(api)
        versions.check(server, say)
        yield Connection(
            client,
            server,
            _namespace(options, client, server),
            options.shared,
            (options.ui or api.configuration.host).rstrip("/"),
            options.patience_seconds,
        )


def _client(options: Options) -> Client:
    ca: dict[str, Any] = {"ssl_ca_cert": str(options.ca_file)} if options.ca_file else {}
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # that it needs a v2 server, which is checked here
        client = Client(host=options.host or None, kube_context=options.kube_context or None, **ca)
    named = options.host or os.environ.get("KF_PIPELINES_ENDPOINT")
    if not named and api_client(client).configuration.host == kfp_server_api.Configuration().host:
        raise BadInput("No KFP server is named: give --host, set SLUICEWAY_KFP_HOST, or use --port-forward.")
    return client


def api_client(client: Client) -> kfp_server_api.ApiClient:
    """The layer below a client that sends requests: for those that kfp's client does not know."""
    return client.healthzs.healthz_service_get_healthz.__self__.api_client


def _namespace(options: Options, client: Client, server: versions.Server) -> str:
    if not server.multi_user:
        return ""
    namespace = options.namespace or client.get_user_namespace() or _own_namespace()
    if not namespace:
        raise BadInput(
            "The KFP server is multi-user: say which profile's namespace to use, with --namespace or "
            "SLUICEWAY_KFP_NAMESPACE."
        )
    return namespace


def _own_namespace() -> str:
    try:
        return _OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
