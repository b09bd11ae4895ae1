"""The versions of data sets: what `sluiceway data` lists, and what a later run takes parts over from.

An entry is written when the version's bytes are in the remote: a version that is listed can be restored. In the store:

    versions/<dataset>/<version>.json   the entry
    versions/<dataset>/<version>.dvc    the pointer that `dvc pull` restores
    versions/<dataset>/newest/<key>     the newest version of the same source with the same options
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import BadInput
from components.ingest import dvc
from components.ingest.remote import Remote
from components.ingest.snapshot import FILE, POINTER, Snapshot
from components.settings import settings
from components.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Entry(BaseModel):
    """One version of a data set.

    Attributes:
        dataset: its name; the pipeline takes the model's.
        created: when it was listed first, UTC.
        ingested: when an ingest last made it, UTC; versions are in this order.
        remote: where its bytes were put; see :class:`components.ingest.remote.Remote`.
        directory: md5 of DVC's ``.dir`` object, with that suffix.
        manifest: md5 of ``snapshot.json``.
        snapshot: what the snapshot says of itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: int = 1
    dataset: str
    created: datetime
    ingested: datetime
    remote: str
    directory: str
    manifest: str
    snapshot: Snapshot

    @property
    def version(self) -> str:
        """The snapshot's version."""
        return self.snapshot.version

    def files(self) -> dict[str, str]:
        """The md5 of every file that a restored folder holds, by name."""
        return {part.name: part.md5 for part in self.snapshot.parts} | {FILE: self.manifest}


def publish(folder: Path, snapshot: Snapshot, dataset: str) -> Entry:
    """Keep a snapshot's bytes in the remote, then list the version; again, it changes nothing but the time.

    Args:
        folder: the snapshot; its files become read-only where the remote is a folder on the same disk.
        snapshot: what its ``snapshot.json`` says.
        dataset: name to list it under.

    Raises:
        BadInput: the name cannot be one.
        Unreachable: the remote or the store cannot be used.
        StorageFull: no space is left there.
    """
    check_name(dataset)
    known = {part.name: part.md5 for part in snapshot.parts}
    files = dvc.tracked(folder, known, but=(POINTER,))
    listing = dvc.directory(files)
    directory = f"{dvc.md5_of(listing)}.dir"
    remote, store = Remote(settings().remote), Store(settings().store)
    remote.put_all({file.md5: folder / file.relpath for file in files})
    remote.put_bytes(listing, directory)

    now = datetime.now(UTC)
    before = _entry(store, dataset, snapshot.version)
    entry = Entry(
        dataset=dataset,
        created=before.created if before else now,
        ingested=now,
        remote=remote.root,
        directory=directory,
        manifest={file.relpath: file.md5 for file in files}[FILE],
        snapshot=snapshot,
    )
    name = f"versions/{dataset}/{snapshot.version}"
    store.write(f"{name}.dvc", dvc.pointer(files, "snapshot").encode())
    store.write(f"{name}.json", entry.model_dump_json().encode())
    store.write(_newest(dataset, snapshot.source_uri, snapshot.options), snapshot.version.encode())
    return entry


def previous(dataset: str, source_uri: str, options: Mapping[str, Any]) -> Snapshot | None:
    """The newest version that was made from the same source with the same options; None before the first.

    Args:
        dataset: its name.
        source_uri: as the snapshot has it.
        options: as :meth:`components.ingest.options.ReadOptions.given` says them.

    Raises:
        Unreachable: the store cannot be used.
    """
    check_name(dataset)
    store = Store(settings().store)
    version = store.read(_newest(dataset, source_uri, options))
    entry = _entry(store, dataset, version.decode()) if version else None
    return entry.snapshot if entry else None


def lookup(dataset: str, version: str) -> Entry | None:
    """The version with exactly this digest; None where it is not listed.

    Raises:
        Unreachable: the store cannot be used.
    """
    return _entry(Store(settings().store), dataset, version) if _NAME.fullmatch(dataset) and version else None


def datasets() -> list[str]:
    """The names of all data sets that have versions.

    Raises:
        Unreachable: the store cannot be used.
    """
    names = Store(settings().store).names("versions/")
    return sorted({name.split("/")[1] for name in names if name.count("/") == 2})


def entries(dataset: str) -> list[Entry]:
    """All versions of a data set, the newest first.

    Raises:
        Unreachable: the store cannot be used.
    """
    check_name(dataset)
    store = Store(settings().store)
    names = [name for name in store.names(f"versions/{dataset}/") if name.count("/") == 2 and name.endswith(".json")]
    found = (_entry(store, dataset, name.rpartition("/")[2].removesuffix(".json")) for name in names)
    return sorted((entry for entry in found if entry), key=lambda entry: entry.ingested, reverse=True)


def find(dataset: str, version: str = "latest") -> Entry:
    """One version, by its digest, the first digits of it, ``latest`` or ``previous``.

    Raises:
        BadInput: there is no such data set or version, or several begin so.
        Unreachable: the store cannot be used.
    """
    check_name(dataset)
    if re.fullmatch(r"[0-9a-f]{64}", version) and (entry := lookup(dataset, version)):
        return entry
    found = entries(dataset)
    if not found:
        known = ", ".join(datasets()) or "none"
        raise BadInput(f"There is no data set {dataset!r} in {settings().store}; those with versions: {known}.")
    if version in ("latest", "previous"):
        place = ("latest", "previous").index(version)
        if place >= len(found):
            raise BadInput(f"{dataset} has one version only, so none before it.")
        return found[place]
    same = [entry for entry in found if entry.version.startswith(version.lower())]
    if len(same) == 1:
        return same[0]
    if same:
        these = ", ".join(entry.version[: len(version) + 4] for entry in same)
        raise BadInput(f"{dataset}@{version} may be any of {these}; give more of its digits.")
    newest = ", ".join(entry.version[:12] for entry in found[:5])
    raise BadInput(f"{dataset} has no version {version}; the newest are {newest}.")


def remote_of(entry: Entry) -> Remote:
    """Where a version's bytes are: the remote of the settings if it has them, else the one they were put to.

    Raises:
        Unreachable: the remote cannot be used.
    """
    current = Remote(settings().remote)
    return current if current.root == entry.remote or current.has(entry.directory) else Remote(entry.remote)


def _entry(store: Store, dataset: str, version: str) -> Entry | None:
    name = f"versions/{dataset}/{version}.json"
    content = store.read(name)
    if content is None:
        return None
    try:
        return Entry.model_validate_json(content)
    except ValidationError as error:
        raise BadInput(
            f"{store.where(name)} is not what this version of Sluiceway writes ({error.error_count()} mistakes); "
            "ingest that version again, or remove the file."
        ) from error


def _newest(dataset: str, source_uri: str, options: Mapping[str, Any]) -> str:
    made_from = json.dumps([source_uri, dict(options)], sort_keys=True)
    return f"versions/{dataset}/newest/{hashlib.sha256(made_from.encode()).hexdigest()[:32]}"


def check_name(dataset: str) -> None:
    """Whether a name can be one of a data set.

    Raises:
        BadInput: it cannot.
    """
    if not _NAME.fullmatch(dataset):
        raise BadInput(f"dataset {dataset!r} cannot name versions: use letters, digits, dots, dashes and underscores.")
