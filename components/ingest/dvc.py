"""A DVC pointer, written without DVC: what `dvc add` would write for a folder, so that `dvc pull` restores it.

The format is DVC 3's: the md5 of every file, and of the JSON list of them for the folder.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tracked:
    """A file of the folder: its path relative to it, md5 and size."""

    relpath: str
    md5: str
    bytes: int


def tracked(folder: Path) -> list[Tracked]:
    """Digest every file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [Tracked(path.relative_to(folder).as_posix(), md5(path), path.stat().st_size) for path in files]


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
    identity = hashlib.md5(directory(files), usedforsecurity=False).hexdigest()
    return (
        "outs:\n"
        f"- md5: {identity}.dir\n"
        f"  size: {sum(file.bytes for file in files)}\n"
        f"  nfiles: {len(files)}\n"
        "  hash: md5\n"
        f"  path: {name}\n"
    )
