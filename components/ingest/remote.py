"""Where the bytes of snapshots are kept, laid out as a DVC 3 remote: `dvc pull` reads it, and so do we.

A file lies under its md5 (``files/md5/ab/cdef…``), so what is there already is never sent again, and nothing that is
there is ever written to: files in a folder are read-only, as DVC's own cache is.
"""

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from components.errors import BadInput, StorageFull, Unreachable
from components.files import is_full
from components.ingest.dvc import md5 as digest_of
from components.ingest.dvc import md5_of
from components.store import file_system

PARALLEL = 8
"""Transfers at once."""

ATTEMPTS, PATIENCE = 4, 20.0
"""How often a transfer is tried, and the seconds after which it is not tried again: some libraries retry for longer."""

_CHUNK = 16 * 2**20
_MEMORY: dict[str, dict[str, int]] = {
    "gs": {"chunksize": _CHUNK},
    "gcs": {"chunksize": _CHUNK},
    "s3": {"chunksize": _CHUNK, "max_concurrency": 2},
    "s3a": {"chunksize": _CHUNK, "max_concurrency": 2},
}
"""By scheme, so that an upload holds a few megabytes: by their defaults, eight at once hold gigabytes."""

_READ_ONLY, _WRITABLE = 0o444, 0o644
_OBJECT_STORES = {"gs", "gcs", "s3", "s3a", "az", "abfs", "abfss", "oss"}
"""Where an object appears when its upload has ended; elsewhere it is written aside and renamed."""


class Remote:
    """A folder, or any fsspec URI such as ``gs://bucket/dvc`` or ``s3://bucket/dvc``.

    ``STORAGE_EMULATOR_HOST`` and ``AWS_ENDPOINT_URL`` are honoured; credentials are the libraries' defaults.
    """

    def __init__(self, root: str) -> None:
        """Nothing is asked of the store yet."""
        self.root = root.rstrip("/")
        path = root.removeprefix("file://")
        self._folder = None if "://" in path else Path(path).expanduser().absolute()
        scheme = root.partition("://")[0].lower()
        self._object_store, self._memory = scheme in _OBJECT_STORES, _MEMORY.get(scheme, {})

    def where(self, md5: str) -> str:
        """The full name of an object, for people."""
        return f"{self.root}/{_name(md5)}"

    def local(self, md5: str) -> Path | None:
        """The object's path where the remote is a folder, to be read only; it need not be there."""
        return None if self._folder is None else self._folder / _name(md5)

    def has(self, md5: str) -> bool:
        """Whether the object is there, whole.

        Raises:
            Unreachable: the store does not exist, refuses access or is down.
        """
        if self._folder is not None:
            return (self._folder / _name(md5)).exists()
        with self._sentences(md5, "read"):
            system, path = self._opened(md5)
            return bool(_again(lambda: system.exists(path)))

    def put(self, path: Path, md5: str) -> None:
        """Keep a file, whole or not at all; one that is there already is not sent.

        In a folder on the same disk it is a hard link: no time, no space, and ``path`` becomes read-only.

        Args:
            path: the file.
            md5: of its content, hexadecimal; it is trusted here and checked by :meth:`get`.

        Raises:
            Unreachable: the store does not exist, refuses access or is down.
            StorageFull: the disk ran out.
        """
        if self.has(md5):
            return
        with self._sentences(md5, "written"):
            if self._folder is not None:
                path.chmod(_READ_ONLY)
                _link_or_copy(path, self._folder / _name(md5))
                return
            system, target = self._opened(md5)
            _again(lambda: self._send(system, path, target))

    def put_bytes(self, content: bytes, md5: str) -> None:
        """Keep a small object such as DVC's ``<md5>.dir``, whole or not at all.

        Raises:
            Unreachable: the store does not exist, refuses access or is down.
            StorageFull: the disk ran out.
        """
        if self.has(md5):
            return
        with self._sentences(md5, "written"):
            if self._folder is not None:
                with _aside(self._folder / _name(md5)) as aside:
                    aside.write_bytes(content)
                return
            system, target = self._opened(md5)
            _again(lambda: system.pipe_file(target, content))

    def get(self, md5: str, path: Path, *, link: bool = True) -> None:
        """Bring a file back, checked, whole or not at all.

        Args:
            md5: of the file.
            path: where it is to be; its folder must exist.
            link: whether a hard link will do, which is read-only and shares the remote's bytes.

        Raises:
            BadInput: the remote has no such object, or what it has is damaged.
            Unreachable: the store does not exist, refuses access or is down.
            StorageFull: the disk ran out.
        """
        with self._sentences(md5, "read"):
            if self._folder is None:
                system, source = self._opened(md5)
                with _aside(path, _READ_ONLY if link else _WRITABLE) as aside:
                    _again(lambda: system.get_file(source, str(aside)))
                    self._check(md5, aside)
                return
            kept = self._folder / _name(md5)
            if link:
                self._check(md5, kept)
                _link_or_copy(kept, path)
                return
            with _aside(path, _WRITABLE) as aside:
                shutil.copyfile(kept, aside)
                self._check(md5, aside)

    def get_bytes(self, md5: str) -> bytes:
        """Read a small object, checked.

        Raises:
            BadInput: the remote has no such object, or what it has is damaged.
            Unreachable: the store does not exist, refuses access or is down.
        """
        with self._sentences(md5, "read"):
            if self._folder is not None:
                content = (self._folder / _name(md5)).read_bytes()
            else:
                system, source = self._opened(md5)
                content = bytes(_again(lambda: system.cat_file(source)))
        self._compare(md5, md5_of(content))
        return content

    def put_all(self, paths: Mapping[str, Path]) -> None:
        """:meth:`put` many files by their md5, several at once.

        Raises:
            Unreachable: the store does not exist, refuses access or is down.
            StorageFull: the disk ran out.
        """
        _at_once([partial(self.put, path, md5) for md5, path in paths.items()])

    def get_all(self, paths: Mapping[Path, str], *, link: bool = True) -> None:
        """:meth:`get` many files, several at once.

        Args:
            paths: the md5 that each path is to hold.
            link: see :meth:`get`.

        Raises:
            BadInput: an object is missing or damaged.
            Unreachable: the store does not exist, refuses access or is down.
            StorageFull: the disk ran out.
        """
        _at_once([partial(self.get, md5, path, link=link) for path, md5 in paths.items()])

    def _send(self, system: Any, path: Path, target: str) -> None:
        """Upload, and see that all of it arrived."""
        written = target if self._object_store else f"{target}.{uuid.uuid4().hex}.partial"
        if not self._object_store:
            system.makedirs(target.rpartition("/")[0], exist_ok=True)
        system.put_file(str(path), written, **self._memory)
        arrived, expected = system.size(written), path.stat().st_size
        if arrived != expected:
            system.rm_file(written)
            raise OSError(f"{arrived} of {expected} bytes arrived")
        if written != target:
            system.mv(written, target)

    def _opened(self, md5: str) -> tuple[Any, str]:
        return file_system(self.where(md5))

    def _check(self, md5: str, path: Path) -> None:
        self._compare(md5, digest_of(path))

    def _compare(self, md5: str, found: str) -> None:
        if found != md5.removesuffix(".dir"):
            raise BadInput(
                f"{self.where(md5)} is damaged (its md5 is {found}); remove it and ingest that version again."
            )

    @contextmanager
    def _sentences(self, md5: str, verb: str) -> Iterator[None]:
        """Turn the errors of all libraries into sentences."""
        try:
            yield
        except (BadInput, Unreachable, StorageFull):
            raise
        except FileNotFoundError as error:
            if verb == "written":
                raise Unreachable(f"{self.root} does not exist; create it, or check SLUICEWAY_REMOTE.") from error
            raise BadInput(
                f"{self.where(md5)} is gone; check SLUICEWAY_REMOTE, or ingest that version again."
            ) from error
        except PermissionError as error:
            raise Unreachable(f"{self.root} refuses access ({_short(error)}); check its permissions.") from error
        except (ImportError, ValueError) as error:
            raise Unreachable(f"SLUICEWAY_REMOTE={self.root} cannot be used: {_short(error)}.") from error
        except _failures() as error:
            if is_full(error):
                raise StorageFull(f"No space left in {self.root}; nothing half-written was kept.") from error
            raise Unreachable(
                f"{self.where(md5)} cannot be {verb} ({_short(error)}); check SLUICEWAY_REMOTE."
            ) from error


def _name(md5: str) -> str:
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def _link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a copy where disks or file systems do not link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        with _aside(target) as aside:
            shutil.copyfile(source, aside)


@contextmanager
def _aside(path: Path, mode: int = _READ_ONLY) -> Iterator[Path]:
    """Yield a name beside ``path`` that takes its place when the block succeeds.

    The name is unlike any other's: processes in containers that share a volume all have the number 1.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        aside.chmod(mode)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _again(call: Callable[[], Any]) -> Any:
    """Try again, with exponential backoff and jitter, what may pass."""
    import tenacity

    def may_pass(error: BaseException) -> bool:
        permanent = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
        return isinstance(error, _failures()) and not isinstance(error, permanent) and not is_full(error)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_after_delay(PATIENCE),
        wait=tenacity.wait_exponential_jitter(initial=0.2, max=10),
        reraise=True,
    )(call)


def _failures() -> tuple[type[Exception], ...]:
    """What stores' libraries raise; those that are not loaded have raised nothing."""
    found: list[type[Exception]] = [OSError]
    for module, name in (
        ("gcsfs.retry", "HttpError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("aiohttp", "ClientError"),
    ):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _at_once(calls: list[Callable[[], None]]) -> None:
    """Run calls in a few threads; the first failure ends it, once the others under way are done."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(PARALLEL) as pool:
        running = [pool.submit(call) for call in calls]
        try:
            for one in running:
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
