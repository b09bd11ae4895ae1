"""Which KFP server an Airflow connection names."""

from typing import Any, Protocol

from sluiceway_airflow.api import Kfp, Server


class AirflowConnection(Protocol):
    """What is read of a connection of type HTTP."""

    host: str | None
    schema: str | None
    port: int | None
    password: str | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The extra field, read as JSON."""


def connect(connection: AirflowConnection) -> Kfp:
    """The server that an Airflow connection names."""
    return Kfp(server(connection))


def server(connection: AirflowConnection) -> Server:
    """What an Airflow connection says, in our terms."""
    host = connection.host or ""
    url = host if "://" in host else f"{connection.schema or 'http'}://{host}"
    if connection.port:
        scheme, _, rest = url.partition("://")
        name, slash, path = rest.partition("/")
        url = f"{scheme}://{name}:{connection.port}{slash}{path}"
    extra = connection.extra_dejson
    return Server(url, connection.password or "", extra.get("token_file", ""), extra.get("namespace", ""))
