"""A DVC pointer, written without DVC: what `dvc add` would write for a folder, so that `dvc pull` restores it.

The format is DVC 3's: the md5 of every file, and of the JSON list of them for the folder.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType


@dataclass(frozen=True)
class Tracked:
    """A file of the folder: its path relative to it, md5 and size."""

    relpath: str
    md5: str
    bytes: int


def tracked(folder: Path, known: Mapping[str, str] = MappingProxyType({}), but: Collection[str] = ()) -> list[Tracked]:
    """Digest every file of a folder.

    Args:
        folder: with files and folders in it.
        known: the md5 of files that have been digested already, by name relative to it.
        but: names of files to leave out.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return [
        Tracked(name, known.get(name) or md5(path), path.stat().st_size)
        for name, path in names.items()
        if name not in but
    ]


def md5_of(content: bytes) -> str:
    """Hexadecimal md5 of bytes."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def md5(path: Path) -> str:
    """Hexadecimal md5 of a file, streamed."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def directory(files: list[Tracked]) -> bytes:
    """The content of DVC's ``.dir`` object, byte for byte."""
    entries = [{"md5": file.md5, "relpath": file.relpath} for file in files]
    entries.sort(key=lambda entry: entry["relpath"])
    return json.dumps(entries, sort_keys=True).encode()


def pointer(files: list[Tracked], name: str) -> str:
    """The text of ``<name>.dvc`` for a folder of these files that is to be restored as ``name``."""
    identity = md5_of(directory(files))
    return (
        "outs:\n"
        f"- md5: {identity}.dir\n"
        f"  size: {sum(file.bytes for file in files)}\n"
        f"  nfiles: {len(files)}\n"
        "  hash: md5\n"
        f"  path: {name}\n"
    )
