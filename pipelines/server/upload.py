"""Packages become versions of pipelines on a KFP server: once each, whatever gets lost on the way.

A version is found again by the package's digest: twelve digits are in its name, all of them in its description, where
also stands that we made it. A pipeline without versions, which is what an upload leaves that was cut off half-way, is
taken up by the next.
"""

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from components.errors import BadInput, Refused
from pipelines import packages
from pipelines.server.connection import Connection
from pipelines.server.in_use import versions_in_use
from pipelines.server.pages import every, where
from pipelines.server.retry import made_once

_OURS = re.compile(r"package sha256:([0-9a-f]{64}), by sluiceway$")
_PAGE = 20  # a version comes with its whole package

SETTLES_WITHIN = 2.0
"""Seconds after which everybody sees the versions of a second that is over."""

_CERTAINLY_OVER = timedelta(minutes=10)  # by our clock, which may differ from the server's


@dataclass(frozen=True)
class Package:
    """A compiled pipeline, as it will be called on the server.

    Attributes:
        path: where it is.
        pipeline: the pipeline's name.
        about: the pipeline's description.
        digest: sha256 of the file.
        commit: git commit; empty outside of a repository.
        version: the version's name.
    """

    path: Path
    pipeline: str
    about: str
    digest: str
    commit: str
    version: str

    @property
    def description(self) -> str:
        """The version's description."""
        return f"{f'commit {self.commit}, ' if self.commit else ''}package sha256:{self.digest}, by sluiceway"


@dataclass
class Uploaded:
    """What an upload did, or would do.

    Attributes:
        pipeline: its name.
        version: the version's name; that of the one that was there, if it was.
        state: "new", or "there" when the server had this package already.
        pipeline_id: empty for a pipeline that would be made.
        version_id: empty for a version that would be made.
        link: the version's page.
        digest: of the package.
        deleted: names of the old versions that were deleted, or would be.
        notes: what else the user should know.
    """

    pipeline: str
    version: str
    state: str
    pipeline_id: str
    version_id: str
    link: str
    digest: str
    deleted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_package(path: Path) -> Package:
    """Look into a compiled package.

    Raises:
        BadInput: it is no compiled pipeline.
    """
    try:
        first = next(yaml.load_all(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)), None)
    except (OSError, yaml.YAMLError) as error:
        raise BadInput(f"Cannot read the package {path}: {str(error).splitlines()[0]}.") from error
    info = first.get("pipelineInfo") if isinstance(first, dict) else None
    if not isinstance(info, dict) or not info.get("name"):
        raise BadInput(f"{path} is no compiled pipeline: it has no pipelineInfo; make one with `sluiceway compile`.")
    digest = packages.digest(path)
    about = str(info.get("description", ""))
    return Package(path, info["name"], about, digest, packages.commit(), packages.version_name(path))


def upload(connection: Connection, package: Package, keep: int, dry_run: bool = False) -> Uploaded:
    """Have a package on the server as a version of its pipeline, and delete old versions.

    Args:
        connection: to the server.
        package: what to upload.
        keep: how many old versions stay, beside this one. Of the others, only those are deleted that we made and
            that neither a recurring run nor a run that has not ended uses.
        dry_run: only look.

    Raises:
        Unreachable: the server gave no clear answer until patience ended; trying again does no harm.
        Refused: the server refuses it.
    """
    pipeline = _find_pipeline(connection, package)
    if pipeline is None and not dry_run:
        pipeline = made_once(
            lambda: _find_pipeline(connection, package),
            lambda: _make_pipeline(connection, package),
            connection.patience,
        )
    if pipeline is None:
        return Uploaded(package.pipeline, package.version, "new", "", "", "", package.digest)
    version = there = _settled(connection, pipeline.pipeline_id, package)
    if version is None and not dry_run:
        version = _make_version(connection, pipeline.pipeline_id, package)
    done = Uploaded(
        package.pipeline,
        _name(version) if version else package.version,
        "there" if there else "new",
        pipeline.pipeline_id,
        version.pipeline_version_id if version else "",
        connection.link("pipelines", "details", pipeline.pipeline_id, "version", version.pipeline_version_id)
        if version
        else "",
        package.digest,
    )
    _clean(connection, done, keep, dry_run)
    return done


def _find_pipeline(connection: Connection, package: Package) -> Any:
    """The pipeline of this name; by the filter, since the door for names looks into every namespace."""
    namespace = connection.pipelines_namespace
    listed = connection.client.list_pipelines(filter=where("name", "EQUALS", package.pipeline), namespace=namespace)
    return next(iter(listed.pipelines or []), None)


def _make_pipeline(connection: Connection, package: Package) -> Any:
    """A pipeline without versions. Its name goes as ``display_name``, which servers before 2.10 know too."""
    body = {"display_name": package.pipeline, "description": package.about}
    if connection.pipelines_namespace:
        body["namespace"] = connection.pipelines_namespace
    return connection.client.pipelines.pipeline_service_create_pipeline(body)


def _same(connection: Connection, pipeline_id: str, package: Package) -> list[Any]:
    """The versions that are this package, oldest first."""
    found = every(
        connection.client.list_pipeline_versions,
        "pipeline_versions",
        pipeline_id=pipeline_id,
        filter=where("name", "IS_SUBSTRING", package.digest[:12]),
        page_size=_PAGE,
        sort_by="created_at",
    )
    return [one for one in found if digest_of(one) == package.digest]


def _make_version(connection: Connection, pipeline_id: str, package: Package) -> Any:
    """The version that is this package, made unless somebody else made it meanwhile.

    Two uploads of one package from two commits have two names, so the server takes both. The older one stays; who made
    another deletes it.
    """

    def find() -> Any:
        return next(iter(_same(connection, pipeline_id, package)), None)

    def make() -> Any:
        return connection.client.pipeline_uploads.upload_pipeline_version(
            str(package.path), name=package.version, pipelineid=pipeline_id, description=package.description
        )

    stays = None
    while stays is None:
        made_once(find, make, connection.patience)
        stays = _settled(connection, pipeline_id, package)
    for version in _same(connection, pipeline_id, package):
        if _name(version) == package.version and version.pipeline_version_id != stays.pipeline_version_id:
            _delete(connection, pipeline_id, version)
    return stays


def _settled(connection: Connection, pipeline_id: str, package: Package) -> Any:
    """The version that is this package and stays it, whoever uploads the package meanwhile; None when there is none.

    It is the oldest, and of those of one second that with the lowest id. Times are the server's and whole seconds, so
    this is certain only when that second is over.
    """
    waited_for = None
    while same := _same(connection, pipeline_id, package):
        first = min(same, key=lambda one: (one.created_at, one.pipeline_version_id))
        age = datetime.now(UTC) - first.created_at
        if age > _CERTAINLY_OVER or (waited_for is not None and first.created_at <= waited_for):
            return first
        time.sleep(SETTLES_WITHIN)
        waited_for = first.created_at
    return None


def _clean(connection: Connection, done: Uploaded, keep: int, dry_run: bool) -> None:
    """Delete our old versions but for the newest ``keep``, and those that are in use."""
    found = every(
        connection.client.list_pipeline_versions,
        "pipeline_versions",
        pipeline_id=done.pipeline_id,
        page_size=_PAGE,
        sort_by="created_at desc",
    )
    ours = [one for one in found if digest_of(one) and one.pipeline_version_id != done.version_id]
    surplus = ours[keep:]
    if not surplus:
        return
    if connection.server.multi_user and not connection.pipelines_namespace:
        done.notes.append(
            f"{len(surplus)} old versions more than {keep} are kept: runs of all namespaces may use a shared pipeline, "
            "and they cannot be looked through."
        )
        return
    used = versions_in_use(connection, done.pipeline_id)
    for version in surplus:
        name = _name(version)
        if version.pipeline_version_id in used:
            done.notes.append(f"The old version {name} is kept: {used[version.pipeline_version_id]} uses it.")
            continue
        if not dry_run:
            _delete(connection, done.pipeline_id, version)
        done.deleted.append(name)


def _delete(connection: Connection, pipeline_id: str, version: Any) -> None:
    try:
        connection.client.delete_pipeline_version(pipeline_id, version.pipeline_version_id)
    except Refused as error:
        if error.status != 404:  # gone already: by another upload, or by our attempt whose answer was lost
            raise


def digest_of(version: Any) -> str:
    """The digest of a version that we made; empty for others."""
    found = _OURS.search(version.description or "")
    return found[1] if found else ""


def _name(version: Any) -> str:
    """Servers before 2.10 have only a display name."""
    return str(version.name or version.display_name)
