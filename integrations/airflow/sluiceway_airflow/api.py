"""The KFP API (v2beta1) over plain HTTP, as far as starting, watching and ending a run needs it.

Airflow and kfp want different versions of protobuf and the Kubernetes client, so kfp's own client stays out of
Airflow's environment. Nothing here imports Airflow.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

_TRIES = 3
_WAIT = 1.0
_PASSING = (408, 429, 500, 502, 503, 504)
_ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
_NOTHING: Mapping[str, Any] = {}


class ApiError(Exception):
    """KFP refused: trying again would not help."""


class Unreachable(Exception):
    """KFP did not answer, or answered that it cannot now."""


@dataclass(frozen=True)
class Server:
    """Where KFP is and who we are to it.

    Attributes:
        url: of the API or of the UI, which passes it on.
        token: sent as a bearer token.
        token_file: holds one that is renewed, such as a projected service account token; read for every request.
        namespace: in multi-user mode, the profile that runs belong to.
    """

    url: str
    token: str = field(default="", repr=False)
    token_file: str = ""
    namespace: str = ""


@dataclass(frozen=True)
class Run:
    """A run as KFP tells of it."""

    run_id: str
    name: str
    state: str
    why: str = ""

    @property
    def ended(self) -> bool:
        """Whether it will change no more."""
        return self.state in _ENDED

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.state in ("SUCCEEDED", "SKIPPED")


class Kfp:
    """A KFP server."""

    def __init__(self, server: Server) -> None:
        """Speak to a server; nothing is sent yet."""
        self._server = server
        self._client = httpx.Client(base_url=server.url.rstrip("/"), timeout=30)

    def address(self, run_id: str) -> str:
        """Where a person sees a run, when the server's address is the UI's."""
        return f"{self._server.url.rstrip('/')}/#/runs/details/{run_id}"

    def run(self, run_id: str) -> Run:
        """How a run stands.

        Raises:
            ApiError: there is no such run, or it may not be seen.
            Unreachable: no answer, after some tries.
        """
        return _run(self._asked("GET", f"/runs/{run_id}"))

    def named(self, part: str) -> list[Run]:
        """The runs whose names hold a text, newest first."""
        predicate = {"key": "display_name", "operation": "IS_SUBSTRING", "string_value": part}
        query = {"filter": json.dumps({"predicates": [predicate]}), "sort_by": "created_at desc", "page_size": 100}
        listed = self._asked("GET", "/runs", query | self._namespace())
        return [_run(one) for one in listed.get("runs", [])]

    def start(self, name: str, pipeline: str, version: str, parameters: Mapping[str, Any], experiment: str) -> Run:
        """Start a run of a pipeline, once: when the answer is lost, the name tells whether it was started.

        Args:
            name: of the run; no other run may have it.
            pipeline: by its name.
            version: by its name; empty takes the newest.
            parameters: those that are not to have their defaults.
            experiment: that the run is filed under; made when it is missing.

        Raises:
            ApiError: there is no such pipeline or version, or KFP refused the parameters.
            Unreachable: no answer, after some tries.
        """
        pipeline_id = self._pipeline(pipeline)
        reference = {"pipeline_id": pipeline_id}
        if version:
            reference["pipeline_version_id"] = self._version(pipeline, pipeline_id, version)
        body = {
            "display_name": name,
            "pipeline_version_reference": reference,
            "runtime_config": {"parameters": dict(parameters)},
            "experiment_id": self._experiment(experiment),
        }
        for remaining in reversed(range(_TRIES)):
            try:
                return _run(self._once("POST", "/runs", body=body))
            except Unreachable:
                if started := [one for one in self.named(name) if one.name == name]:
                    return started[0]
                if not remaining:
                    raise
                time.sleep(_WAIT)
        raise AssertionError("a try returns or raises")

    def terminate(self, run_id: str) -> None:
        """End a run; one that has ended is left as it is.

        Raises:
            ApiError: it may not be ended.
            Unreachable: no answer, after some tries.
        """
        if self._ending(run_id):
            return
        try:
            self._asked("POST", f"/runs/{run_id}:terminate")
        except ApiError:
            if not self._ending(run_id):  # else it has ended meanwhile
                raise

    def _ending(self, run_id: str) -> bool:
        run = self.run(run_id)
        return run.ended or run.state == "CANCELING"

    def _pipeline(self, name: str) -> str:
        try:
            return str(self._asked("GET", f"/pipelines/names/{name}", self._namespace())["pipeline_id"])
        except ApiError as error:
            raise ApiError(
                f"KFP has no pipeline {name!r} here: upload it with `sluiceway upload` ({error})."
            ) from error

    def _version(self, pipeline: str, pipeline_id: str, name: str) -> str:
        predicate = {"key": "display_name", "operation": "EQUALS", "string_value": name}
        query = {"filter": json.dumps({"predicates": [predicate]})}
        found = self._asked("GET", f"/pipelines/{pipeline_id}/versions", query).get("pipeline_versions", [])
        if not found:
            raise ApiError(f"Pipeline {pipeline!r} has no version {name!r} here: upload it with `sluiceway upload`.")
        return str(found[0]["pipeline_version_id"])

    def _experiment(self, name: str) -> str:
        predicate = {"key": "display_name", "operation": "EQUALS", "string_value": name}
        query = {"filter": json.dumps({"predicates": [predicate]})} | self._namespace()
        if found := self._asked("GET", "/experiments", query).get("experiments", []):
            return str(found[0]["experiment_id"])
        return str(
            self._asked("POST", "/experiments", body={"display_name": name, **self._namespace()})["experiment_id"]
        )

    def _namespace(self) -> dict[str, str]:
        return {"namespace": self._server.namespace} if self._server.namespace else {}

    def _asked(
        self, method: str, path: str, query: Mapping[str, Any] = _NOTHING, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """An answer, after some tries: for what may be sent twice."""
        for remaining in reversed(range(_TRIES)):
            try:
                return self._once(method, path, query, body)
            except Unreachable:
                if not remaining:
                    raise
                time.sleep(_WAIT)
        raise AssertionError("a try returns or raises")

    def _once(
        self, method: str, path: str, query: Mapping[str, Any] = _NOTHING, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            answer = self._client.request(
                method, f"/apis/v2beta1{path}", params=dict(query), json=body, headers=self._headers()
            )
        except httpx.TransportError as error:
            raise Unreachable(f"KFP at {self._server.url} does not answer: {error}.") from error
        if answer.status_code in _PASSING:
            raise Unreachable(f"KFP at {self._server.url} answers {answer.status_code} to {method} {path}.")
        if answer.is_error or answer.is_redirect:
            raise ApiError(_refusal(answer, self._server))
        try:
            return dict(answer.json() or {})
        except ValueError as error:
            raise ApiError(f"{self._server.url} is not the KFP API: it answers {path} with a page.") from error

    def _headers(self) -> dict[str, str]:
        path = self._server.token_file
        try:
            token = Path(path).read_text("utf-8").strip() if path else self._server.token
        except OSError as error:
            raise ApiError(f"The token file {path} cannot be read: {error.strerror}.") from error
        return {"Authorization": f"Bearer {token}"} if token else {}


def _refusal(answer: httpx.Response, server: Server) -> str:
    if answer.status_code in (301, 302, 303, 307, 401, 403):
        whose = server.token_file or ("the connection's password" if server.token else "none was given")
        return f"KFP at {server.url} wants another token ({answer.status_code}; {whose})"
    try:
        said = answer.json().get("message") or answer.json().get("error")
    except ValueError:
        said = answer.text[:200]
    return f"KFP refused {answer.request.method} {answer.request.url.path} with {answer.status_code}: {said}"


def _run(answer: Mapping[str, Any]) -> Run:
    state = str(answer.get("state", "PENDING"))
    return Run(str(answer["run_id"]), str(answer.get("display_name", "")), state, _why(answer))


def _why(answer: Mapping[str, Any]) -> str:
    """Which steps failed, and what KFP says of it."""
    tasks = (answer.get("run_details") or {}).get("task_details") or []
    failed = sorted({str(one.get("display_name", "")) for one in tasks if one.get("state") == "FAILED"} - {""})
    said = str((answer.get("error") or {}).get("message", ""))
    return "; ".join(part for part in (f"failed in {', '.join(failed)}" if failed else "", said) if part)
