"""Files of this machine or of a mounted volume: a file, a folder or a glob."""

import glob
import hashlib
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.errors import BadInput
from components.ingest.options import ReadOptions
from components.ingest.sources import SourceFile, readable

_WILD = "*?["


class LocalSource:
    """A path or ``file://`` URI."""

    def __init__(self, uri: str, options: ReadOptions) -> None:
        """Turn the URI into a path; nothing is read yet."""
        self._uri = uri
        self._options = options
        self._path = _path(uri)

    def files(self) -> tuple[SourceFile, ...]:
        """List and digest the files; content is streamed."""
        root, names = self._names()
        self._root = root
        return tuple(_described(root, name) for name in names)

    def fetch(self, files: tuple[SourceFile, ...], folder: Path) -> list[Path]:
        """Nothing to copy: the files are read where they are."""
        return [self._root / file.name for file in files]

    def still(self, files: tuple[SourceFile, ...]) -> bool:
        """Compare size and time of change with those at listing."""
        return all(_stamp(self._root / file.name) == file.stamp for file in files)

    def pinned(self) -> str:
        """The URI; a changed file is noticed by its version."""
        return self._uri

    def _names(self) -> tuple[Path, list[str]]:
        path = self._path
        if path.is_file():
            return path.parent, [path.name]
        if path.is_dir():
            inside = [found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file()]
            return path, readable(inside, self._options, str(path))
        if any(character in str(path) for character in _WILD):
            root = _fixed_part(path)
            found = [Path(name) for name in glob.glob(str(path), recursive=True)]
            inside = [name.relative_to(root).as_posix() for name in found if name.is_file()]
            if not inside:
                raise BadInput(f"No file matches {path}; check the pattern and the folder {root}.")
            return root, readable(inside, self._options, str(path))
        hint = "" if path.parent.is_dir() else f" (there is no folder {path.parent} either)"
        raise BadInput(f"No such file: {path}{hint}; give an existing file, folder or glob as source_uri.")


def _path(uri: str) -> Path:
    if not uri.lower().startswith("file://"):
        return Path(uri).expanduser().absolute()
    parts = urlsplit(uri, allow_fragments=False)
    if parts.netloc not in ("", "localhost"):
        raise BadInput(f"{uri}: a file URI has three slashes, as in file:///{parts.netloc}{parts.path}.")
    query = f"?{parts.query}" if parts.query else ""  # a glob's question mark
    return Path(unquote(parts.path + query))


def _fixed_part(pattern: Path) -> Path:
    fixed = Path(pattern.anchor)
    for part in pattern.parts[1:-1]:
        if any(character in part for character in _WILD):
            break
        fixed /= part
    return fixed


def _described(root: Path, name: str) -> SourceFile:
    path = root / name
    try:
        with path.open("rb") as stream:
            stamp = _stamp(path)
            size = os.fstat(stream.fileno()).st_size
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except PermissionError as error:
        raise BadInput(f"{path} may not be read by this user; change its permissions.") from error
    return SourceFile(name=name, digest=f"sha256:{digest}", bytes=size, stamp=stamp)


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        return "gone"
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
