"""Google Cloud Storage: an object, a prefix or a glob, pinned to exact generations.

Credentials are the library's defaults (Workload Identity on a cluster); without any, public buckets can still be
read. ``STORAGE_EMULATOR_HOST`` is honoured, without credentials.
"""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from components.errors import BadInput, Unreachable
from components.files import is_full
from components.ingest.options import ReadOptions
from components.ingest.sources import SourceFile, readable

RETRY_SECONDS = 60.0
"""How long transient failures (429, 5xx, resets) are retried with backoff and jitter."""

CHUNKED_FROM = 64 * 2**20
"""Objects of this size on are fetched as parallel ranges; below it, ranges are far slower than whole objects."""

CHUNK = 32 * 2**20

_WILD = "*?["
_WORKERS = 8


class GcsSource:
    """A ``gs://bucket/path`` URI; the path is an object, a prefix or a glob."""

    def __init__(self, uri: str, options: ReadOptions) -> None:
        """Split the URI; nothing is asked of the store yet."""
        self._uri = uri
        self._options = options
        self._bucket_name, _, self._path = uri[len("gs://") :].partition("/")
        if not self._bucket_name:
            raise BadInput(f"{uri}: a Google Cloud Storage URI is gs://bucket/path.")
        self._blobs: dict[str, Any] = {}

    def files(self) -> tuple[SourceFile, ...]:
        """List objects with generation and checksum; nothing is downloaded."""
        with self._reachable():
            found = self._listed()
        if not found:
            raise BadInput(f"Nothing matches {self._uri}; check the path and its upper and lower case.")
        names = [name for name in found if not name.endswith("/")]
        if names != [PurePosixPath(self._path).name]:
            names = readable(names, self._options, self._uri)
        self._blobs = {name: found[name] for name in names}
        return tuple(_described(name, blob) for name, blob in self._blobs.items())

    def fetch(self, files: tuple[SourceFile, ...], folder: Path) -> list[Path]:
        """Download the pinned generations in parallel and check their content."""
        paths = [_inside(folder, file.name) for file in files]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._reachable():
            self._download(files, paths)
        for file, path in zip(files, paths, strict=True):
            if not _intact(self._blobs[file.name], path):
                raise BadInput(f"gs://{self._bucket_name}: {file.name} changed while it was read; run the step again.")
        return paths

    def still(self, files: tuple[SourceFile, ...]) -> bool:
        """What was read is a checked copy of exact generations."""
        return True

    def pinned(self) -> str:
        """Generations are not part of a URI; a changed listing is noticed by its version."""
        return self._uri

    def _listed(self) -> dict[str, Any]:
        """Blobs by their name relative to the source's root."""
        bucket = _client().bucket(self._bucket_name)
        arguments: dict[str, Any] = {"retry": _retry()}
        if any(character in self._path for character in _WILD):
            fixed = self._path[: min(self._path.index(c) for c in _WILD if c in self._path)]
            blobs = bucket.list_blobs(match_glob=self._path, prefix=fixed, **arguments)
            root = fixed.rpartition("/")[0]
        else:
            blobs = list(bucket.list_blobs(prefix=self._path, **arguments))
            exact = [blob for blob in blobs if blob.name == self._path]
            if exact:
                return {PurePosixPath(self._path).name: exact[0]}
            root = self._path.rstrip("/")
        start = f"{root}/" if root else ""
        return {blob.name[len(start) :]: blob for blob in blobs if blob.name.startswith(start)}

    def _download(self, files: tuple[SourceFile, ...], paths: list[Path]) -> None:
        from google.cloud.storage import transfer_manager

        pinned = {file.name: self._pinned(file) for file in files}
        pairs = [(file, path) for file, path in zip(files, paths, strict=True)]
        transfer_manager.download_many(
            [(pinned[file.name], str(path)) for file, path in pairs if file.bytes < CHUNKED_FROM],
            worker_type=transfer_manager.THREAD,
            max_workers=_WORKERS,
            raise_exception=True,  # by default failures come back as results, beside partial files
            download_kwargs={"retry": _retry()},
        )
        for file, path in pairs:
            if file.bytes >= CHUNKED_FROM:
                transfer_manager.download_chunks_concurrently(
                    pinned[file.name],
                    str(path),
                    chunk_size=CHUNK,
                    worker_type=transfer_manager.PROCESS,
                    max_workers=min(_WORKERS, os.cpu_count() or 1),
                    download_kwargs={"retry": _retry()},
                )

    def _pinned(self, file: SourceFile) -> Any:
        blob = self._blobs[file.name]
        pinned = blob.bucket.blob(blob.name, generation=int(file.generation))
        pinned.reload(retry=_retry())  # the transfer manager needs the size; 404 when the generation is gone
        return pinned

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Turn the library's errors into sentences."""
        from google.api_core import exceptions as api
        from google.auth.exceptions import GoogleAuthError

        bucket = f"gs://{self._bucket_name}"
        try:
            yield
        except api.NotFound as error:
            if self._blobs:
                raise BadInput(f"{self._uri} changed since it was listed; run the pipeline again.") from error
            raise Unreachable(f"Bucket {bucket} does not exist; check its name in source_uri.") from error
        except (api.Forbidden, api.Unauthorized) as error:
            raise Unreachable(
                f"{bucket} refuses access ({error.code}); grant this identity roles/storage.objectViewer on it."
            ) from error
        except (api.GoogleAPIError, ConnectionError) as error:
            raise Unreachable(
                f"{bucket} could not be read for {RETRY_SECONDS:.0f} s ({_short(error)}); try again later."
            ) from error
        except GoogleAuthError as error:
            raise Unreachable(
                f"{bucket} refuses access: there are no working Google credentials ({_short(error)}); log in with "
                "gcloud auth application-default login, or give the pod a service account."
            ) from error
        except OSError as error:  # the errors of requests are OSErrors too
            if is_full(error):
                raise
            raise Unreachable(f"{bucket} could not be read ({_short(error)}); try again later.") from error


def _client() -> Any:
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client.create_anonymous_client()
    try:
        return storage.Client()
    except DefaultCredentialsError:
        return storage.Client.create_anonymous_client()


def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(RETRY_SECONDS)


def _described(name: str, blob: Any) -> SourceFile:
    """Digest by md5 where the store has one (not for composed objects), so that equal bytes are one version."""
    if blob.md5_hash:
        digest = f"md5:{base64.b64decode(blob.md5_hash).hex()}"
    else:
        digest = f"crc32c:{blob.crc32c}:{blob.size}:{blob.generation}"
    return SourceFile(name, digest, int(blob.size), generation=str(blob.generation))


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BadInput(f"Object name {name!r} points outside its folder; rename the object.")
    return path


def _intact(blob: Any, path: Path) -> bool:
    import google_crc32c

    if path.stat().st_size != blob.size:
        return False
    checksum = google_crc32c.Checksum()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            checksum.update(block)
    return bool(base64.b64encode(checksum.digest()).decode() == blob.crc32c)


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
