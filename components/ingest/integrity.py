"""A second look at the bytes while DuckDB reads them: digests, and damage that DuckDB does not see.

DuckDB takes a zstd file that is cut off for a shorter one, does not compare the checksum at a gzip file's end, and
leaves out a last line that is longer than its buffers.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from components.errors import BadInput
from components.ingest.options import Format, ReadOptions, compression
from components.ingest.text import LINE, too_long

_BLOCK = 1 << 20
_JSON_LINE = 16_000_000


class _Hashed(io.RawIOBase):
    """A file whose bytes are digested as they are read."""

    def __init__(self, stream: BinaryIO, digest: Any) -> None:
        super().__init__()
        self._stream = stream
        self._digest = digest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        block = self._stream.read(_BLOCK if size is None or size < 0 else size)
        if self._digest is not None:
            self._digest.update(block)
        return block


def read_through(path: Path, name: str, kind: Format, options: ReadOptions, *, digest: bool) -> str:
    """Read a file once, as it lies and as it is inside.

    Args:
        path: the file.
        name: what people know it by.
        kind: what it is.
        options: how it is to be read.
        digest: whether the digest is wanted.

    Returns:
        ``sha256:…`` of the file; empty if it is not wanted.

    Raises:
        BadInput: it is damaged, or has NUL bytes where it should be text.
    """
    sha256 = hashlib.sha256() if digest else None
    packed = compression(name)
    text = kind in ("csv", "tsv", "jsonl")
    if sha256 is None and not text:
        return ""
    with path.open("rb", buffering=0) as plain:
        stream = _Hashed(plain, sha256)
        if text:
            most = _JSON_LINE if kind == "jsonl" else LINE
            _look(_unpacked(stream, packed, name), name, most, options)
        while stream.read(_BLOCK):
            pass
    return f"sha256:{sha256.hexdigest()}" if sha256 else ""


def unpack(path: Path, name: str, out: Path) -> None:
    """Write what is inside a gzip or zstd file.

    Raises:
        BadInput: it is cut off or damaged.
    """
    with path.open("rb", buffering=0) as plain, out.open("wb") as written:
        for block in _unpacked(_Hashed(plain, None), compression(name), name):
            written.write(block)


def _look(blocks: Iterator[bytes], name: str, most: int, options: ReadOptions) -> None:
    """Text has no NUL bytes, which are what a crash or a broken disk leaves, and no endless lines.

    DuckDB leaves a last line out without a word if it is longer than one of its buffers.
    """
    wide = options.encoding == "utf-16"
    before = line = 0
    for block in blocks:
        if not wide and (place := block.find(b"\x00")) >= 0:
            raise BadInput(
                f"{name} has a NUL byte after {before + place:,} bytes of text, as a crash or a broken copy leaves "
                "them; write it again."
            )
        before += len(block)
        last = max(block.rfind(b"\n"), block.rfind(b"\r"))
        line = line + len(block) if last < 0 else len(block) - last - 1
        if line > most + _BLOCK:
            raise BadInput(too_long(name, f"{most // 10**6} MB"))


def _unpacked(stream: _Hashed, packed: str, name: str) -> Iterator[bytes]:
    if packed == "none":
        yield from iter(lambda: stream.read(_BLOCK), b"")
        return
    try:
        with _opened(stream, packed) as inside:
            yield from iter(lambda: bytes(inside.read(_BLOCK)), b"")
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, EOFError) or "runcated" in str(error):
            raise BadInput(f"{name} is cut off: its {packed} stream ends too early; copy it again.") from error
        raise BadInput(f"{name} is damaged: its {packed} stream cannot be unpacked; copy it again.") from error


def _opened(stream: _Hashed, packed: str) -> Any:
    if packed == "gzip":
        return gzip.GzipFile(fileobj=stream)
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
