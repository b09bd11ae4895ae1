"""Google Cloud Storage: an object, a prefix or a glob, pinned to exact generations.

Credentials are the library's defaults (Workload Identity on a cluster); without any, public buckets can still be
read. ``STORAGE_EMULATOR_HOST`` is honoured, without credentials.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import BadInput, Unreachable
from components.files import is_full
from components.ingest.options import ReadOptions
from components.ingest.sources import SourceFile, readable, transfer

CHUNKED_FROM = 32 * 2**20
"""Objects of this size on are fetched as parallel ranges; below it, ranges are slower than whole objects."""

CHUNK = 16 * 2**20

_WORKERS = 8


class _Listed(NamedTuple):
    """An object, and what it was when listed: a download writes over the properties of its blob."""

    blob: Any
    size: int
    crc32c: str


class GcsSource:
    """A ``gs://bucket/path`` URI; the path is an object, a prefix or a glob."""

    def __init__(self, uri: str, options: ReadOptions) -> None:
        """Split the URI; nothing is asked of the store yet."""
        self._place = transfer.Place.of(uri)
        self._options = options
        self._objects: dict[str, _Listed] = {}

    def files(self) -> tuple[SourceFile, ...]:
        """List objects with generation and checksum; nothing is downloaded."""
        with self._reachable():
            found = self._listed()
        if not found:
            raise BadInput(f"Nothing matches {self._place.uri}; check the path and its upper and lower case.")
        names = list(found)
        if [blob.name for blob in found.values()] != [self._place.path]:
            names = readable(names, self._options, self._place.uri)
        shown = {transfer.shown(name, found[name].content_encoding): found[name] for name in names}
        listed = tuple(_described(name, blob) for name, blob in sorted(shown.items()))
        self._objects = {
            name: _Listed(blob, int(blob.size), transfer.hexadecimal(blob.crc32c)) for name, blob in shown.items()
        }
        return listed

    def fetch(self, files: tuple[SourceFile, ...], folder: Path) -> list[Path]:
        """Download the pinned generations in parallel and check their content."""
        paths = transfer.targets(folder, files)
        pairs = [(self._objects[file.name], path) for file, path in zip(files, paths, strict=True)]
        with self._reachable():
            _download([(one.blob, path) for one, path in pairs if one.size < CHUNKED_FROM])
            for one, path in pairs:
                if one.size >= CHUNKED_FROM:
                    _download_ranges(one.blob, path)
        for one, path in pairs:
            if path.stat().st_size != one.size or transfer.checksum(path, "crc32c") != one.crc32c:
                raise self._changed(one.blob.name)
        return paths

    def still(self, files: tuple[SourceFile, ...]) -> bool:
        """What was read is a checked copy of exact generations."""
        return True

    def pinned(self) -> str:
        """Generations are not part of a URI; a changed listing is noticed by its version."""
        return self._place.uri

    def _listed(self) -> dict[str, Any]:
        """Blobs by their name relative to the source's root; with their generations, which pin the downloads."""
        place = self._place
        bucket = _client().bucket(place.bucket)
        arguments: dict[str, Any] = {"retry": _retry()}
        if place.path and not place.wild and not place.path.endswith("/"):
            exact = bucket.get_blob(place.path, **arguments)
            if exact is not None:
                return {place.relative(exact.name): exact}
        if place.wild:
            arguments["match_glob"] = place.path
        blobs = bucket.list_blobs(prefix=place.prefix, **arguments)
        return {place.relative(blob.name): blob for blob in blobs if not blob.name.endswith("/")}

    def _changed(self, name: str) -> BadInput:
        return BadInput(f"gs://{self._place.bucket}/{name} changed while it was read; run the step again.")

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Turn the library's errors into sentences."""
        from google.api_core import exceptions as api
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption

        bucket = f"gs://{self._place.bucket}"
        try:
            yield
        except DataCorruption as error:
            raise self._changed(self._place.path) from error
        except (api.NotFound, api.RequestRangeNotSatisfiable) as error:
            if self._objects:
                raise BadInput(f"{self._place.uri} changed since it was listed; run the pipeline again.") from error
            raise Unreachable(f"Bucket {bucket} does not exist; check its name in source_uri.") from error
        except (api.Forbidden, api.Unauthorized) as error:
            raise Unreachable(
                f"{bucket} refuses access ({error.code}); grant this identity roles/storage.objectViewer on it."
            ) from error
        except (api.GoogleAPIError, ConnectionError) as error:
            if isinstance(error, api.ClientError) and error.code not in transfer.TRANSIENT:
                raise Unreachable(
                    f"{bucket} refuses the request ({transfer.short(error)}); check source_uri."
                ) from error
            raise Unreachable(
                f"{bucket} could not be read for {transfer.RETRY_SECONDS:.0f} s ({transfer.short(error)}); try later."
            ) from error
        except GoogleAuthError as error:
            raise Unreachable(
                f"{bucket} refuses access: there are no working Google credentials ({transfer.short(error)}); log in "
                "with gcloud auth application-default login, or give the pod a service account."
            ) from error
        except OSError as error:  # the errors of requests are OSErrors too
            if is_full(error):
                raise
            raise Unreachable(f"{bucket} could not be read ({transfer.short(error)}); try again later.") from error


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

    return DEFAULT_RETRY.with_delay(initial=0.5, maximum=15, multiplier=2).with_timeout(transfer.RETRY_SECONDS)


def _download(pairs: list[tuple[Any, Path]]) -> None:
    from google.cloud.storage import transfer_manager

    transfer_manager.download_many(
        [(blob, str(path)) for blob, path in pairs],
        worker_type=transfer_manager.THREAD,
        max_workers=_WORKERS,
        raise_exception=True,  # by default failures come back as results, beside partial files
        download_kwargs=_kept(),
    )


def _download_ranges(blob: Any, path: Path) -> None:
    """Each range is written in place; the whole is checked afterwards.

    By threads: a step has few cores and waits for the network, so that as many processes as cores were three times
    slower, and as many as connections half as fast (2 cores, 25 MB/s a connection; ``tests/bench/gcs_download.py``).
    """
    from google.cloud.storage import transfer_manager

    transfer_manager.download_chunks_concurrently(
        blob,
        str(path),
        chunk_size=CHUNK,
        worker_type=transfer_manager.THREAD,
        max_workers=_WORKERS,
        crc32c_checksum=False,
        download_kwargs=_kept(),
    )


def _kept() -> dict[str, Any]:
    """Raw: bytes as they are stored, which have the checksums, not decompressed on the way."""
    return {"retry": _retry(), "raw_download": True}


def _described(name: str, blob: Any) -> SourceFile:
    """Digest by md5 where the store has one (not for composed objects), so that equal bytes are one version.

    Raises:
        BadInput: the store has no checksum of an object, as its key is the customer's own.
    """
    if blob.crc32c is None:
        raise BadInput(
            f"gs://{blob.bucket.name}/{blob.name} is encrypted with a key that the store does not keep (CSEK), so it "
            "cannot be checked; rewrite it with a key of Cloud KMS (CMEK)."
        )
    if blob.md5_hash:
        digest = f"md5:{transfer.hexadecimal(blob.md5_hash)}"
    else:
        digest = f"crc32c:{blob.crc32c}:{blob.size}:{blob.generation}"
    return SourceFile(name, digest, int(blob.size), generation=str(blob.generation))
