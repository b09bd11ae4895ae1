"""A client of the MLflow server or database that the settings name, and its failures in our words."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from components.errors import BadInput, StorageFull, Unreachable
from components.files import is_full
from components.settings import Settings, settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow's own defaults keep a step waiting for minutes on a server that is not there, report usage to its makers and
# print progress bars into the log.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_OUR_FAULT = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST"}


def client() -> "MlflowClient":
    """A client of the tracking server or database in the settings; call it inside :func:`reaching`."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    at = settings()
    if at.tracking_uri.startswith("sqlite:///"):
        os.makedirs(os.path.dirname(at.tracking_uri.removeprefix("sqlite:///")) or ".", exist_ok=True)
    return MlflowClient(at.tracking_uri, at.tracking_uri)


def database_exists(at: Settings) -> bool:
    """Whether there can be anything to find: false only for a SQLite file that is not there yet."""
    path = at.tracking_uri.removeprefix("sqlite:///")
    return path == at.tracking_uri or os.path.exists(path)


@contextmanager
def reaching() -> Iterator[None]:
    """Say in one sentence why MLflow could not be used.

    Raises:
        Unreachable: it is down, refuses access or fails.
        BadInput: it does not accept what it was asked.
        StorageFull: its database or artifact folder has no space left.
    """
    import mlflow.exceptions
    from sqlalchemy.exc import SQLAlchemyError

    where = settings().tracking_uri
    try:
        yield
    except mlflow.exceptions.MlflowException as error:
        _full(error, where)
        said = _first_sentence(error)
        if error.error_code in _OUR_FAULT:
            raise BadInput(f"MLflow at {_safe(where)} did not accept the request: {said}") from error
        raise Unreachable(_unreachable(where, said)) from error
    except (SQLAlchemyError, OSError) as error:
        _full(error, where)
        raise Unreachable(_unreachable(where, _first_sentence(error))) from error


def _unreachable(where: str, said: str) -> str:
    return f"MLflow at {_safe(where)} cannot be used ({said}): check MLFLOW_TRACKING_URI and that the server runs."


def _full(error: Exception, where: str) -> None:
    if is_full(error) or "database or disk is full" in str(error):
        raise StorageFull(f"No space left for MLflow at {_safe(where)}: free some space and run again.") from error


def _safe(uri: str) -> str:
    """The URI without user and password."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else uri


def _first_sentence(error: Exception) -> str:
    """What an error says; of a failed request only what first went wrong, such as "Connection refused"."""
    first: BaseException = error
    if "failed with exception" in str(error):
        while first.__cause__ or first.__context__:
            first = first.__cause__ or first.__context__ or first
    text = re.sub(r"^\[Errno -?\d+\] ", "", " ".join(str(first).split()))
    return text if len(text) <= 300 else text[:297] + "..."
