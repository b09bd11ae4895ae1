"""Files of this machine or of a mounted volume: a file, a folder or a glob."""

import errno
import glob
import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.errors import BadInput, Unreachable
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
        """List and digest the files, several at once; content is streamed."""
        root, names = self._names()
        self._root = root
        if len(names) == 1:
            return (_described(root, names[0]),)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return tuple(pool.map(partial(_described, root), names))

    def listed(self) -> tuple[SourceFile, ...]:
        """List the files without their digests, for whoever reads them anyway."""
        root, names = self._names()
        self._root = root
        return tuple(_described(root, name, digested=False) for name in names)

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
        if any(character in str(path) for character in _WILD) and not os.path.lexists(path):
            root = _fixed_part(path)
            found = [Path(name) for name in glob.glob(str(path), recursive=True)]
            inside = [name.relative_to(root).as_posix() for name in found if not name.is_dir()]
            if not inside:
                raise BadInput(f"No file matches {path}; check the pattern and the folder {root}.")
            return root, readable(inside, self._options, str(path))
        if path.is_dir():
            inside = [found.relative_to(path).as_posix() for found in _walk(path)]
            return path, readable(inside, self._options, str(path))
        if os.path.lexists(path):
            return path.parent, [path.name]
        hint = "" if path.parent.is_dir() else f" (there is no folder {path.parent} either)"
        raise BadInput(f"No such file: {path}{hint}; give an existing file, folder or glob as source_uri.")


def _walk(root: Path) -> Iterator[Path]:
    """Everything under a folder that is no folder itself; links are followed, as Kubernetes mounts consist of them.

    Raises:
        BadInput: a folder may not be listed, or a link leads back to a folder it lies in.
    """

    def unlisted(error: OSError) -> None:
        raise BadInput(f"Folder {error.filename} may not be listed by this user; change its permissions.") from error

    for folder, folders, names in os.walk(root, onerror=unlisted, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for name in folders:
            path = Path(folder, name)
            if path.is_symlink() and Path(folder).resolve().is_relative_to(path.resolve()):
                raise BadInput(
                    f"Link {path} leads back to {path.resolve()}, round in circles; remove it or use a glob."
                )
        yield from (Path(folder, name) for name in names)


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


def _described(root: Path, name: str, *, digested: bool = True) -> SourceFile:
    path = root / name
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for somebody to write
            raise BadInput(f"{path} is {_kind(status.st_mode)}, not a file; write its content to a file first.")
        with path.open("rb") as stream:
            stamp = _stamp(path)
            size = os.fstat(stream.fileno()).st_size
            digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}" if digested else ""
    except PermissionError as error:
        raise BadInput(f"{path} may not be read by this user; change its permissions.") from error
    except FileNotFoundError as error:
        gone = f"is a link to {os.readlink(path)}, which does not exist" if path.is_symlink() else "is gone again"
        raise BadInput(f"{path} {gone}; give existing files.") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadInput(f"{path} is a link that leads to itself; remove it.") from error
        raise Unreachable(f"{path} cannot be read ({error.strerror}); check its disk or mount.") from error
    return SourceFile(name=name, digest=digest, bytes=size, stamp=stamp)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "a folder")


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "gone"
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
