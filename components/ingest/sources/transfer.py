"""What fetching from any store has in common: places, patience, whole files and their checksums."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from components.errors import BadInput
from components.ingest.sources import SourceFile

RETRY_SECONDS = 60.0
"""How long transient failures (429, 5xx, resets) are retried with backoff and jitter, without a byte of progress."""

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of HTTP that may be other ones in a moment; every other refusal is final."""

_WILD = "*?["
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where in a bucket a source lies: an object, a prefix or a glob.

    Attributes:
        uri: as the user wrote it.
        bucket: its name.
        path: what follows it.
    """

    uri: str
    bucket: str
    path: str

    @classmethod
    def of(cls, uri: str) -> "Place":
        """Split a URI.

        Raises:
            BadInput: it names no bucket.
        """
        scheme, _, rest = uri.partition("://")
        bucket, _, path = rest.partition("/")
        if not bucket:
            raise BadInput(f"{uri}: the URI names no bucket; write {scheme.lower()}://bucket/path.")
        return cls(uri, bucket, path)

    @property
    def wild(self) -> bool:
        """Whether the path is a glob."""
        return any(character in self.path for character in _WILD)

    @property
    def prefix(self) -> str:
        """What the name of every object of this place starts with, unless the place is one object."""
        if self.wild:
            return self.path[: min(self.path.index(character) for character in _WILD if character in self.path)]
        return f"{self.path.rstrip('/')}/" if self.path else ""

    def relative(self, key: str) -> str:
        """An object's name relative to the source's root; to be asked of objects with the prefix only."""
        if key == self.path:
            return PurePosixPath(key).name
        root = self.prefix.rpartition("/")[0]
        return key[len(root) + 1 :] if root else key

    def matches(self, key: str) -> bool:
        """Whether an object belongs to the glob."""
        return re.fullmatch(_regular(self.path), key) is not None


def _regular(glob: str) -> str:
    """A glob as a regular expression; ``**`` crosses folders, also none."""
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", glob)
    return "".join(
        meaning.get(part) or (part.replace("[!", "[^") if part[:1] == "[" and part[1:] else re.escape(part))
        for part in parts
    )


def shown(name: str, encoding: str | None) -> str:
    """The name of a file that tells what its bytes are, where the store keeps them compressed behind a plain name."""
    suffixes = {"gzip": ".gz", "x-gzip": ".gz", "zstd": ".zst"}
    suffix = suffixes.get((encoding or "").strip().lower(), "")
    return name if name.lower().endswith(suffix) else f"{name}{suffix}"


def targets(folder: Path, files: Iterable[SourceFile]) -> list[Path]:
    """Where each file goes under ``folder``; the folders on the way are made.

    Raises:
        BadInput: a name leads out of the folder, or is the name of another file's folder.
    """
    paths = []
    for file in files:
        path = (folder / file.name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise BadInput(f"Object name {file.name!r} points outside its folder; rename the object.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(f"{file.name!r}: one of its folders is an object, too; rename one of them.") from error
        paths.append(path)
    return paths


def checksum(path: Path, algorithm: str) -> str:
    """A file's checksum in hexadecimal.

    Args:
        path: the file.
        algorithm: ``crc32c``, ``crc32`` or one of :mod:`hashlib`'s.
    """
    with path.open("rb") as stream:
        if algorithm == "crc32c":
            import google_crc32c

            crc = google_crc32c.Checksum()
            while block := stream.read(_BLOCK):
                crc.update(block)
            return bytes(crc.digest()).hex()
        if algorithm == "crc32":
            import zlib

            value = 0
            while block := stream.read(_BLOCK):
                value = zlib.crc32(block, value)
            return f"{value:08x}"
        return hashlib.file_digest(stream, algorithm).hexdigest()


def parts_checksum(path: Path, sizes: Iterable[int]) -> str:
    """S3's ETag of an object that was uploaded in parts of these sizes: the MD5 of their MD5s, and their number."""
    digests = []
    with path.open("rb") as stream:
        for size in sizes:
            digest, left = hashlib.md5(usedforsecurity=False), size
            while left and (block := stream.read(min(_BLOCK, left))):
                digest.update(block)
                left -= len(block)
            digests.append(digest.digest())
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def hexadecimal(encoded: str) -> str:
    """A checksum as stores write it (base64), in hexadecimal."""
    return base64.b64decode(encoded).hex()


def patience(
    transient: Callable[[BaseException], bool], asked: Callable[[BaseException], float] | None = None
) -> dict[str, Any]:
    """Tenacity's arguments for what may be tried again: backoff with jitter, for :data:`RETRY_SECONDS`.

    Args:
        transient: whether a failure may pass.
        asked: seconds that the server asked to wait (``Retry-After``), 0 if it did not.
    """
    import tenacity

    backoff = tenacity.wait_random_exponential(multiplier=0.5, max=15)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(backoff(state), asked(error) if asked and error else 0.0)

    return {
        "retry": tenacity.retry_if_exception(transient),
        "wait": wait,
        "stop": tenacity.stop_before_delay(RETRY_SECONDS),
        "reraise": True,
    }


def short(error: BaseException) -> str:
    """The first line of an error."""
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
