"""Which KFP the server is, and whether we get along with it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from kfp_server_api import ApiClient

from components.errors import BadInput, Refused

OLDEST = (2, 5)
NEWEST = (2, 17)


@dataclass(frozen=True)
class Server:
    """What the server says of itself.

    Attributes:
        version: such as "2.17.0"; empty when it does not say, as development builds do not.
        multi_user: profiles with namespaces of their own.
    """

    version: str
    multi_user: bool


def ask(api: ApiClient) -> Server:
    """Ask the server which it is.

    The API and the UI that passes it on answer in forms of their own, of which kfp's model keeps only some fields.

    Raises:
        BadInput: it is no KFP server, or one without the API that we speak.
    """
    try:
        answer = _healthz(api, "v2beta1")
    except Refused as error:
        if error.status != 404:
            raise
        answer = _old(api)
    tag = str(answer.get("apiServerTagName") or answer.get("tag_name") or "")
    found = re.search(r"\d+\.\d+(\.\d+)?([-.+]\w+)*", tag)
    return Server(found.group() if found else "", bool(answer.get("multi_user") or answer.get("apiServerMultiUser")))


def check(server: Server, say: Callable[[str], None]) -> None:
    """Refuse a server that is too old; say so of one that is newer than we know.

    Raises:
        BadInput: it is too old.
    """
    found = re.match(r"(\d+)\.(\d+)", server.version)
    if not found:
        return
    number = (int(found[1]), int(found[2]))
    if number < OLDEST:
        raise BadInput(
            f"The KFP server is version {server.version}, and Sluiceway needs {_text(OLDEST)} or newer: upgrade it."
        )
    if number > NEWEST:
        say(f"The KFP server is version {server.version}, newer than {_text(NEWEST)}, the newest that Sluiceway knows.")


def _healthz(api: ApiClient, version: str) -> dict[str, object]:
    response = api.call_api(
        f"/apis/{version}/healthz", "GET", auth_settings=["Bearer"], _preload_content=True, _return_http_data_only=False
    )
    del response
    try:
        body = json.loads(api.last_response.data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise BadInput(f"{api.configuration.host} is no KFP server: its healthz is not JSON; check --host.")
    return body


def _old(api: ApiClient) -> dict[str, object]:
    try:
        return _healthz(api, "v1beta1")
    except Refused as error:
        raise BadInput(
            f"{api.configuration.host} is no KFP server: it has no /apis/v2beta1; check --host "
            "(on a multi-user Kubeflow it ends in /pipeline)."
        ) from error


def _text(version: tuple[int, int]) -> str:
    return ".".join(str(part) for part in version)
