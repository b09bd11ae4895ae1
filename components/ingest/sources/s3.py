"""S3 and what speaks its API (MinIO, SeaweedFS, Ceph): an object, a prefix or a glob.

Endpoint and credentials are AWS's usual ones: ``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, a profile, a pod's service
account. Without any, public buckets can still be read.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import BadInput
from components.ingest.options import ReadOptions
from components.ingest.sources import SourceFile, readable, transfer
from components.ingest.sources.s3_client import MISSING, Client, code, status, transient

RANGE = 16 * 2**20
"""Objects above this size are fetched as parallel ranges of it; a connection is slower than a machine."""

_STREAMED = 1 << 20


@dataclass(frozen=True)
class _Object:
    """One object as it was when listed.

    Attributes:
        name: relative to the source's root.
        key: in the bucket.
        size: bytes.
        etag: as the store writes it.
        version: its version id; empty where the bucket keeps no versions.
        digest: of the content, as ``algorithm:value``.
        check: algorithm and value of what its bytes must come to; empty where the store says nothing computable.
    """

    name: str
    key: str
    size: int
    etag: str
    version: str
    digest: str
    check: tuple[str, str]

    @property
    def pin(self) -> dict[str, str]:
        """What asks for exactly this content."""
        return {"VersionId": self.version} if self.version else {"IfMatch": self.etag}


class S3Source:
    """An ``s3://bucket/path`` URI."""

    def __init__(self, uri: str, options: ReadOptions) -> None:
        """Split the URI; nothing is asked of the store yet."""
        self._place = transfer.Place.of(uri)
        self._options = options
        self._objects: dict[str, _Object] = {}
        self._client = Client(self._place)

    def files(self) -> tuple[SourceFile, ...]:
        """List objects with version or ETag, and their checksums; nothing is downloaded."""
        found = self._client.run(self._listed)
        if not found:
            raise BadInput(f"Nothing matches {self._place.uri}; check the path and its upper and lower case.")
        names = list(found)
        if self._place.path not in found.values():
            names = readable(names, self._options, self._place.uri)
        described = self._client.run(self._described, [(name, found[name]) for name in names])
        self._objects = {one.name: one for one in sorted(described, key=lambda one: one.name)}
        return tuple(
            SourceFile(one.name, one.digest, one.size, generation=one.version or one.etag)
            for one in self._objects.values()
        )

    def fetch(self, files: tuple[SourceFile, ...], folder: Path) -> list[Path]:
        """Download what was listed, as parallel ranges, and check its content."""
        paths = transfer.targets(folder, files)
        objects = [self._objects[file.name] for file in files]
        for path in paths:
            path.touch()
        self._client.run(self._fetched, list(zip(objects, paths, strict=True)))
        for one, path in zip(objects, paths, strict=True):
            if not self._arrived(one, path):
                raise BadInput(
                    f"s3://{self._place.bucket}/{one.key} arrived with another {one.check[0]} than the store has of "
                    "it; run the step again."
                )
        return paths

    def still(self, files: tuple[SourceFile, ...]) -> bool:
        """What was read is a checked copy of exact versions."""
        return True

    def pinned(self) -> str:
        """Versions are not part of a URI; a changed listing is noticed by its version."""
        return self._place.uri

    async def _listed(self) -> dict[str, str]:
        """Keys by name relative to the source's root."""
        place = self._place
        denied: Exception | None = None
        if place.path and not place.wild and not place.path.endswith("/"):
            try:
                await self._client.ask("head_object", Key=place.path)
            except Exception as error:
                if code(error) not in MISSING and status(error) != 403:
                    raise
                denied = error if status(error) == 403 else None  # or it is missing, and listing forbidden
            else:
                return {place.relative(place.path): place.path}
        found: dict[str, str] = {}
        more: dict[str, str] = {}
        while True:
            page = await self._client.ask("list_objects_v2", Prefix=place.prefix, **more)
            for entry in page.get("Contents", ()):
                key = entry["Key"]
                if not key.endswith("/") and (not place.wild or place.matches(key)):
                    found[place.relative(key)] = key
            if not page.get("IsTruncated"):
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        if denied and not found:
            raise denied
        return found

    async def _described(self, named: list[tuple[str, str]]) -> list[_Object]:
        return await self._client.together(self._head(name, key) for name, key in named)

    async def _head(self, name: str, key: str) -> _Object:
        head = await self._client.ask("head_object", Key=key, ChecksumMode="ENABLED")
        digest, check = _checksums(head)
        return _Object(
            name=transfer.shown(name, head.get("ContentEncoding")),
            key=key,
            size=int(head["ContentLength"]),
            etag=head["ETag"],
            version=head.get("VersionId", "").replace("null", ""),  # "null" is written over like any other object
            digest=digest,
            check=check,
        )

    def _arrived(self, one: _Object, path: Path) -> bool:
        """Whether a file's bytes come to the checksum that the store has."""
        algorithm, expected = one.check
        if algorithm != "etag":
            return not algorithm or transfer.checksum(path, algorithm) == expected
        count = int(expected.rpartition("-")[2])
        (first,) = self._client.run(self._parts, one, 1)
        if first >= one.size and count > 1:  # the store knows no part numbers and answers with the whole
            return True
        alike = [first] * (count - 1) + [one.size - first * (count - 1)]
        if alike[-1] > 0 and transfer.parts_checksum(path, alike) == expected:
            return True
        return bool(transfer.parts_checksum(path, self._client.run(self._parts, one, count)) == expected)

    async def _parts(self, one: _Object, count: int) -> list[int]:
        """Sizes of the first parts as which an object was uploaded."""
        pin = {"VersionId": one.version} if one.version else {}
        heads = await self._client.together(
            self._client.ask("head_object", Key=one.key, PartNumber=number, **pin) for number in range(1, count + 1)
        )
        return [int(head["ContentLength"]) for head in heads]

    async def _fetched(self, wanted: list[tuple[_Object, Path]]) -> None:
        await self._client.together(
            self._range(one, path, start, min(start + RANGE, one.size))
            for one, path in wanted
            for start in range(0, one.size, RANGE)
        )

    async def _range(self, one: _Object, path: Path, start: int, stop: int) -> None:
        """Write bytes ``start`` to ``stop``; a connection that breaks is taken up where it broke."""
        while start < stop:
            start += await self._client.patiently(self._piece, one, path, start, stop)

    async def _piece(self, one: _Object, path: Path, start: int, stop: int) -> int:
        """Bytes that came before the range's end, or before the connection broke."""
        asked = {} if (start, stop) == (0, one.size) else {"Range": f"bytes={start}-{stop - 1}"}
        answer = await self._client.once("get_object", Key=one.key, **one.pin, **asked)
        of = answer.get("ContentRange", f"bytes 0-{answer['ContentLength'] - 1}/{answer['ContentLength']}")
        if answer["ETag"] != one.etag or of != f"bytes {start}-{stop - 1}/{one.size}":
            raise BadInput(f"s3://{self._place.bucket}/{one.key} changed while it was read; run the step again.")
        written = 0
        with path.open("r+b") as stream:
            stream.seek(start)
            try:
                async for block in answer["Body"].iter_chunks(_STREAMED):
                    stream.write(block)
                    written += len(block)
            except Exception as error:
                if not (written and transient(error)):
                    raise
        if not written:
            raise ConnectionError(f"no byte of {one.key} came")
        return written


def _checksums(head: dict[str, Any]) -> tuple[str, tuple[str, str]]:
    """What identifies an object's content, and what its bytes can be checked against.

    The ETag is the content's MD5 unless the object was uploaded in parts or is encrypted with a key of KMS or its own.
    """
    etag, size = head["ETag"].strip('"'), head["ContentLength"]
    plain = head.get("ServerSideEncryption") in (None, "AES256") and "SSECustomerAlgorithm" not in head
    if plain and re.fullmatch("[0-9a-f]{32}", etag):
        return f"md5:{etag}", ("md5", etag)
    stored = {
        name: transfer.hexadecimal(head[f"Checksum{name.upper()}"])
        for name in ("sha256", "crc64nvme", "crc32c", "crc32")
        if "-" not in head.get(f"Checksum{name.upper()}", "-")  # one with a dash is of the parts' checksums
    }
    if "sha256" in stored:
        return f"sha256:{stored['sha256']}", ("sha256", stored["sha256"])
    digest = f"crc64nvme:{stored['crc64nvme']}:{size}" if "crc64nvme" in stored else f"etag:{etag}:{size}"
    for name in ("crc32c", "crc32"):
        if name in stored:
            return digest, (name, stored[name])
    parts = plain and re.fullmatch("[0-9a-f]{32}-[0-9]+", etag)
    return digest, ("etag", etag) if parts else ("", "")
