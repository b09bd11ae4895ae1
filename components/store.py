"""What outlives a run: contracts and reference samples, in a folder or behind any fsspec URI."""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.errors import Unreachable
from components.files import whole_file


class Store:
    """A folder or bucket, addressed by names with ``/``."""

    def __init__(self, root: str) -> None:
        """Choose the file system; a plain path or ``file://`` needs no fsspec (0.1 s of import)."""
        self._root = root.rstrip("/")
        path = root.removeprefix("file://")
        self._folder = None if "://" in path else Path(path)

    def where(self, name: str) -> str:
        """The full name, for people."""
        return f"{self._root}/{name}"

    def read(self, name: str) -> bytes | None:
        """Read an entry whole; None when there is none."""
        if self._folder is not None:
            try:
                return (self._folder / name).read_bytes()
            except FileNotFoundError:
                return None
        system, path = self._remote(name)
        try:
            return bytes(system.cat_file(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreachable(f"{self.where(name)} cannot be read ({error}); check SLUICEWAY_STORE.") from error

    def write(self, name: str, content: bytes) -> None:
        """Write an entry whole: a reader sees the old one or the new one."""
        if self._folder is not None:
            with whole_file(self._folder / name) as aside:
                aside.write_bytes(content)
            return
        system, path = self._remote(name)
        try:
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
            system.pipe_file(path, content)
        except OSError as error:
            raise Unreachable(f"{self.where(name)} cannot be written ({error}); check SLUICEWAY_STORE.") from error

    def names(self, prefix: str) -> list[str]:
        """The names of all entries below a prefix that ends with ``/``, sorted."""
        if self._folder is not None:
            found = (path.relative_to(self._folder) for path in (self._folder / prefix).rglob("*") if path.is_file())
            return sorted(path.as_posix() for path in found if not path.name.startswith("."))
        system, path = self._remote(prefix)
        root = path.rstrip("/")[: -len(prefix.rstrip("/"))]
        try:
            return sorted(name[len(root) :] for name in system.find(path) if name.startswith(root))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unreachable(f"{self.where(prefix)} cannot be read ({error}); check SLUICEWAY_STORE.") from error

    def create(self, name: str, content: bytes) -> bytes:
        """Write an entry unless there is one, and return what is there: of two runs at once, the first one wins.

        Object stores are only asked whether the entry exists, which leaves a moment for a second writer.
        """
        if self._folder is None:
            existing = self.read(name)
            if existing is None:
                self.write(name, content)
            return content if existing is None else existing
        path = self._folder / name
        aside = path.with_name(f".{path.name}.{os.getpid()}.new")
        with whole_file(aside) as written:
            written.write_bytes(content)
        try:
            os.link(aside, path)
        except FileExistsError:
            return path.read_bytes()
        except OSError:  # a mounted bucket has no hard links
            if path.exists():
                return path.read_bytes()
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        return content

    def _remote(self, name: str) -> tuple[Any, str]:
        try:
            return file_system(self.where(name))
        except (ImportError, ValueError) as error:
            raise Unreachable(f"SLUICEWAY_STORE={self._root} cannot be used: {error}.") from error


def file_system(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI, and the path there.

    It caches no listings: what another process has just written is seen.

    Raises:
        ImportError: what reads such URIs is not installed.
        ValueError: no file system has this scheme.
    """
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        # gcsfs asks what kind a bucket is by gRPC, which emulators do not speak: every call would wait for a minute.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec

    system, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    return system, str(path)


def contract_name(dataset: str) -> str:
    """The entry that holds a data set's contract."""
    return f"contracts/{dataset}.yaml"


def contract_digest(store: Store, dataset: str) -> str:
    """The sha256 of a data set's contract as people left it; empty when there is none yet.

    Where the contract says how old data may be, the hour is part of it: an outcome of an earlier one is not kept.
    """
    content = store.read(contract_name(dataset))
    if content is None:
        return ""
    hour = f"{datetime.now(UTC):%Y-%m-%dT%H}" if b"max_age:" in content else ""
    return hashlib.sha256(content + hour.encode()).hexdigest()
