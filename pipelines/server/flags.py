"""The flags of every command that talks to a KFP server."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.clear_errors import clear_errors
from pipelines.server.options import read_options

_GROUP = "The KFP server"


def _flag(help_: str, *names: str) -> Any:
    return typer.Option(*names, help=help_, rich_help_panel=_GROUP, show_default=False)


_FLAGS: dict[str, Any] = {
    "host": Annotated[str, _flag("Address of the API or the UI (SLUICEWAY_KFP_HOST); else as kfp's client finds it.")],
    "namespace": Annotated[str, _flag("On a multi-user Kubeflow: the profile's namespace (SLUICEWAY_KFP_NAMESPACE).")],
    "token_file": Annotated[Path | None, _flag("File with a bearer token (SLUICEWAY_KFP_TOKEN_FILE).")],
    "cookie_file": Annotated[Path | None, _flag("File with a session cookie, name=value (SLUICEWAY_KFP_COOKIE_FILE).")],
    "username": Annotated[str, _flag("Log in at Dex; the password: SLUICEWAY_KFP_PASSWORD or --password-file.")],
    "password_file": Annotated[Path | None, _flag("File with the password for Dex.")],
    "iap_client_id": Annotated[str, _flag("OAuth client of Google's Identity-Aware Proxy.")],
    "port_forward": Annotated[bool, _flag("Go through the Kubernetes API to KFP's UI.", "--port-forward")],
    "kube_context": Annotated[str, _flag("Context of the kubeconfig for --port-forward.")],
    "ca_file": Annotated[Path | None, _flag("Certificate authority that signed the server's certificate.")],
}


def takes_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags of the server; its parameter ``server`` gets the :class:`Options`.

    @app.command()
    @takes_server
    def runs(server: Options, limit: int = 10) -> None: ...
    """
    own = inspect.signature(command)
    flags = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default={Path | None: None, bool: False}.get(kind.__origin__, ""),
            annotation=kind,
        )
        for name, kind in _FLAGS.items()
    ]

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        with clear_errors():
            options = read_options(**{name: given.pop(name) for name in _FLAGS})
        return command(server=options, **given)

    rest = [one for name, one in own.parameters.items() if name != "server"]
    run.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in rest] + flags
    )
    run.__annotations__ = {name: kind for name, kind in command.__annotations__.items() if name != "server"} | _FLAGS
    del run.__wrapped__
    return run
