"""A run is started, once, however often it is asked for under one key."""

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.errors import BadInput
from pipelines.packages import digest, parameters_of, read_values
from pipelines.server import found, runs
from pipelines.server.connection import Connection
from pipelines.server.retry import made_once
from pipelines.server.runs import Run
from pipelines.server.upload import read_package

_LONGEST_KEY = 60


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        what: a pipeline that was uploaded, or the path of a package.
        given: parameters as text, as ``--set`` takes them.
        version: of the pipeline, by its name; "newest" takes the newest that Sluiceway has uploaded.
        experiment: that the run is filed under; made when it is missing.
        service_account: that its steps have in the cluster; empty takes KFP's default.
        cache: whether steps may take the outputs of an earlier run.
        key: what the run is known by; asked for again under the same key, it is the same run. Empty makes one up.
    """

    what: str
    given: dict[str, str]
    version: str = found.NEWEST
    experiment: str = "Default"
    service_account: str = ""
    cache: bool = True
    key: str = ""


@dataclass(frozen=True)
class Source:
    """What a run is made from: a version on the server, or a spec that is sent along.

    Attributes:
        pipeline: the pipeline's name.
        spec: the pipeline spec.
        sent: the fields of the request that say which.
        about: which it is, for people.
    """

    pipeline: str
    spec: dict[str, Any]
    sent: dict[str, Any]
    about: str


def submit(connection: Connection, request: Request) -> tuple[Run, bool]:
    """Start a run, and say whether it is new: a lost answer makes no second one, nor does the same key again.

    Raises:
        BadInput: there is no such pipeline, version or package, or it does not take the parameters.
        Unreachable: the server gave no clear answer until patience ended.
        Refused: the server refuses it.
    """
    if not re.fullmatch(rf"[\w.:+/-]{{0,{_LONGEST_KEY}}}", request.key):
        raise BadInput(
            f"The key {request.key!r} is longer than {_LONGEST_KEY} or has blanks: give one such as a CI job's id."
        )
    source = _source(connection, request)
    values = read_values(request.given, parameters_of(source.spec))
    name = f"{source.pipeline} {request.key or uuid.uuid4().hex[:8]}"
    body = {
        "display_name": name,
        "description": f"{source.about}, by `sluiceway submit`",
        "experiment_id": found.experiment_id(connection, request.experiment),
        "runtime_config": {"parameters": values},
        **source.sent,
    }
    if request.service_account:
        body["service_account"] = request.service_account
    made = []

    def make() -> Run:
        answer = connection.client.runs.run_service_create_run(body)
        made.append(answer.run_id)
        return runs.get(connection, answer.run_id)

    run = made_once(lambda: next(iter(runs.named(connection, name)), None), make, connection.patience)
    first = _only(connection, name, run)
    return first, first.run_id in made


def _only(connection: Connection, name: str, run: Run) -> Run:
    """Of runs that two started at once under one key, the first; the others are ended."""
    same = runs.named(connection, name)
    for other in same[1:]:
        runs.terminate(connection, other)
    return same[0] if same else run


def _source(connection: Connection, request: Request) -> Source:
    if Path(request.what).suffix in (".yaml", ".yml") or Path(request.what).is_file():
        return _package(Path(request.what), request)
    pipeline = found.pipeline_id(connection, request.what)
    version = found.version(connection, pipeline, request.what, request.version, ours=True)
    called = version.name or version.display_name
    if request.cache:
        reference = {"pipeline_id": pipeline, "pipeline_version_id": version.pipeline_version_id}
        sent: dict[str, Any] = {"pipeline_version_reference": reference}
    else:
        sent = {"pipeline_spec": uncached(version.pipeline_spec)}
    return Source(
        request.what, found.spec_of(version), sent, f"Version {called}{'' if request.cache else ', uncached'}"
    )


def _package(path: Path, request: Request) -> Source:
    if request.version != found.NEWEST:
        raise BadInput(f"{path} is a package, which has no versions: leave out --version.")
    package = read_package(path)
    spec, *platform = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]
    whole = {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec
    sent = {"pipeline_spec": whole if request.cache else uncached(whole)}
    return Source(package.pipeline, spec, sent, f"Package sha256:{digest(path)}")


def uncached(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec in which no step is cached, within conditions and exit handlers too, which kfp's own client leaves out."""
    if "pipeline_spec" in spec:
        return spec | {"pipeline_spec": uncached(spec["pipeline_spec"])}
    components = {name: _uncached(one) for name, one in spec.get("components", {}).items()}
    return spec | {"root": _uncached(spec["root"]), "components": components}


def _uncached(component: dict[str, Any]) -> dict[str, Any]:
    if "dag" not in component:
        return component
    tasks = {name: one | {"cachingOptions": {}} for name, one in component["dag"].get("tasks", {}).items()}
    return component | {"dag": component["dag"] | {"tasks": tasks}}
