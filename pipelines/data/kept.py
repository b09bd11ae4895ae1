"""Brings the bytes of versions back from the remote."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from components.errors import BadInput
from components.files import whole_folder
from components.ingest import catalog
from components.ingest.snapshot import POINTER
from components.settings import settings
from components.store import Store


def restore(entry: catalog.Entry, to: Path, *, force: bool = False) -> None:
    """Make the folder of a snapshot again, byte for byte, whole or not at all; every md5 is checked.

    Args:
        entry: the version.
        to: the folder; it may exist if it is empty.
        force: whether a folder that holds something is replaced.

    Raises:
        BadInput: the folder holds something, or the remote's bytes are gone or damaged.
        Unreachable: the store or the remote cannot be used.
        StorageFull: the disk ran out.
    """
    if to.exists() and not to.is_dir():
        raise BadInput(f"{to} is a file; name a folder with --to.")
    if to.is_dir() and any(to.iterdir()) and not force:
        raise BadInput(f"{to} is not empty; name another folder with --to, or replace it with --force.")
    name = f"versions/{entry.dataset}/{entry.version}.dvc"
    store = Store(settings().store)
    pointer = store.read(name)
    if pointer is None:
        raise BadInput(f"{store.where(name)} is gone; ingest that version again.")
    with whole_folder(to.absolute()) as folder:
        # Copies, not links: what people get they may change.
        files = {folder / name: md5 for name, md5 in entry.files().items()}
        catalog.remote_of(entry).get_all(files, link=False)
        (folder / POINTER).write_bytes(pointer)


@contextmanager
def parts(*entries: catalog.Entry) -> Iterator[list[list[Path]]]:
    """The Parquet parts of versions as local files: where they lie if the remote is a folder, else fetched.

    Raises:
        BadInput: the remote's bytes are gone or damaged.
        Unreachable: the remote cannot be used.
        StorageFull: the disk ran out.
    """
    home = settings().home
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".compared-", dir=home) as fetched:
        found = []
        for entry in entries:
            remote = catalog.remote_of(entry)
            digests = [part.md5 for part in entry.snapshot.parts]
            places = [remote.local(md5) or Path(fetched) / f"{md5}.parquet" for md5 in digests]
            missing = {place: md5 for place, md5 in zip(places, digests, strict=True) if not place.exists()}
            remote.get_all(missing)
            found.append(places)
        yield found
