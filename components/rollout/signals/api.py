"""Prometheus' HTTP API, as far as it is needed: its clock, raw samples, and single values."""

import math
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.errors import BadInput, SignalsLost
from components.rollout.signals.increases import Series
from components.settings import settings


class Api:
    """One Prometheus, or what speaks like it (Thanos, Mimir, VictoriaMetrics, a managed one).

    The bearer token and the certificate authority are settings: ``SLUICEWAY_PROMETHEUS_TOKEN`` is the token or a file
    that holds it, read again for each request since Kubernetes renews it.
    """

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        """Prepare the client; nothing is asked yet.

        Args:
            url: with the path that the API lies under, if any.
            timeout_s: longest wait for one answer.

        Raises:
            BadInput: the address or the certificate authority's file is wrong.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput("The address of Prometheus must be http://host:port or https://host:port; set it so.")
        import httpx

        self._url = url.rstrip("/")
        self.name = f"Prometheus at {parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self._client = httpx.Client(timeout=timeout_s, verify=_trust(), trust_env=False)

    def now(self) -> float:
        """Prometheus' own time in Unix seconds.

        Raises:
            SignalsLost: it does not answer.
        """
        return float(self._query("time()", None)["result"][1])

    def values(self, query: str, at: float) -> list[Series]:
        """What an instant query gives, each with one sample.

        Args:
            query: PromQL.
            at: Unix seconds.

        Raises:
            SignalsLost: it does not answer, or refuses the query.
        """
        data = self._query(query, at)
        if data["resultType"] == "scalar":
            return [Series({}, _samples([data["result"]]))]
        return [Series(one["metric"], _samples([one["value"]])) for one in data["result"] if "value" in one]

    def samples(self, selector: str, seconds: float, at: float) -> list[Series]:
        """Raw samples of the last seconds before a moment.

        Raises:
            SignalsLost: it does not answer, or only in part.
        """
        data = self._query(f"{selector}[{duration(seconds)}]", at)
        return [Series(one["metric"], _samples(one["values"])) for one in data["result"] if one.get("values")]

    def _query(self, query: str, at: float | None) -> dict[str, Any]:
        form = {"query": query} if at is None else {"query": query, "time": f"{at:.3f}"}
        body = self._post("/api/v1/query", form)
        if body.get("warnings"):
            raise SignalsLost(f"{self.name} answers in part only: {body['warnings'][0]}")
        data = body.get("data")
        if not isinstance(data, dict) or "result" not in data:
            raise SignalsLost(f"{self.name} does not answer as Prometheus does; look whether the address is right.")
        return data

    def _post(self, path: str, form: Mapping[str, str]) -> dict[str, Any]:
        import httpx

        try:
            answer = self._client.post(self._url + path, data=dict(form), headers=_authorization())
        except (httpx.HTTPError, OSError) as error:
            raise SignalsLost(f"{self.name} does not answer: {type(error).__name__} {error}".rstrip() + ".") from error
        if answer.status_code in (401, 403):
            raise SignalsLost(
                f"{self.name} refuses access with {answer.status_code}; set SLUICEWAY_PROMETHEUS_TOKEN to a token that "
                "may query it."
            )
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or body.get("status") != "success":
            said = body.get("error", "") if isinstance(body, dict) else answer.text
            raise SignalsLost(f"{self.name} refuses a query with {answer.status_code}: {said[:300]}")
        return body


def duration(seconds: float) -> str:
    """Seconds as a PromQL duration."""
    return f"{max(1, math.ceil(seconds * 1000))}ms"


def _trust() -> ssl.SSLContext | bool:
    authority = settings().prometheus_ca
    if not authority:
        return True
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise BadInput(
            f"The certificate authority of Prometheus cannot be read from {authority} (SLUICEWAY_PROMETHEUS_CA): "
            f"{error.strerror or error}."
        ) from error


def _authorization() -> dict[str, str]:
    token = settings().prometheus_token.get_secret_value().strip()
    if token.startswith("/"):
        token = Path(token).read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _samples(pairs: list[Any]) -> tuple[tuple[float, float], ...]:
    return tuple((float(time), float(value)) for time, value in pairs)
