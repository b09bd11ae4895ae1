"""Archives of bundles, unpacked so that nothing in them can reach beyond a folder, or fill the disk.

Every entry is looked at before the first is written: names that leave the folder, links, devices and what is too large
or too many are refused. What sizes an archive states is not trusted: bytes are counted as they are unpacked.
"""

import dataclasses
import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from components.errors import BadBundle

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")

_PIECE = 1024 * 1024
_LONGEST_HEADER = 1024 * 1024
_LONGEST_NAME = 1_024
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Most:
    """What an archive may hold at most.

    Attributes:
        entries: files and folders.
        bytes: unpacked, in all.
        file_bytes: unpacked, of one file.
        ratio: of the unpacked bytes to the archive's own.
        free_bytes: up to so many unpacked bytes no ratio counts: text packs well.
    """

    entries: int = 10_000
    bytes: int = 16 * 1024**3
    file_bytes: int = 8 * 1024**3
    ratio: float = 100.0
    free_bytes: int = 64 * 1024**2


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is an archive of a kind that is read here."""
    return path.name.lower().endswith(ENDINGS)


def unpack(archive: Path, into: Path, most: Most | None = None) -> None:
    """Unpack an archive.

    Args:
        archive: a ``.zip``, ``.tar`` or ``.tar.gz`` file.
        into: an empty folder that nobody else writes to.
        most: what it may hold.

    Raises:
        BadBundle: it is no such archive, or holds what is not allowed; what has been written of it is of no use.
    """
    limits = most or Most()
    allowed = max(limits.free_bytes, int(limits.ratio * archive.stat().st_size))
    check = _Check(archive.name, dataclasses.replace(limits, bytes=min(limits.bytes, allowed)))
    try:
        if archive.name.lower().endswith(".zip"):
            _unpack_zip(archive, into, check)
        else:
            _unpack_tar(archive, into, check)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise BadBundle(f"The archive {archive} cannot be read: {error}.") from error
    except RecursionError as error:  # tarfile reads a header that is followed by a header so
        raise BadBundle(f"The archive {archive} cannot be read: it has too many headers of one entry.") from error


class _Check:
    """Refuses what an archive may not hold."""

    def __init__(self, archive: str, most: Most) -> None:
        self.archive = archive
        self.most = most
        self.begin()

    def begin(self) -> None:
        """Forget the entries that were seen."""
        self._seen: dict[PurePosixPath, bool] = {}
        self._stated = 0

    def entry(self, name: str, size: int, *, is_folder: bool) -> PurePosixPath:
        """Check the next entry; gives its path within the archive.

        Raises:
            BadBundle: its name, size or number is not allowed.
        """
        path = PurePosixPath(name)
        # A colon names a drive or a stream elsewhere; a bundle has none.
        if path.is_absolute() or ".." in path.parts or any(bad in name for bad in "\\:\0") or not name:
            raise self.refusal(f"an entry whose name leaves the folder, {name[:200]!r}")
        if len(name.encode(errors="surrogateescape")) > _LONGEST_NAME:
            raise self.refusal(f"a name of more than {_LONGEST_NAME} bytes")
        if self._seen.get(path, is_folder) != is_folder or (path in self._seen and not is_folder):
            raise self.refusal(f"two entries named {name[:200]!r}")
        if any(self._seen.get(parent) is False for parent in path.parents):
            raise self.refusal(f"{name[:200]!r} within what is a file")
        self._seen[path] = is_folder
        if len(self._seen) > self.most.entries:
            raise self.refusal(f"more than {self.most.entries:,} entries")
        if size > self.most.file_bytes:
            raise self.refusal(f"{name[:200]!r} of {size:,} bytes, more than {self.most.file_bytes:,}")
        self._stated += size
        self.total(self._stated)
        return path

    def total(self, unpacked: int) -> None:
        """Check how many bytes have been unpacked.

        Raises:
            BadBundle: too many.
        """
        if unpacked > self.most.bytes:
            raise self.refusal(f"more than {self.most.bytes:,} bytes, unpacked: too many for an archive of its size")

    def refusal(self, what: str) -> BadBundle:
        """What is raised for something in the archive."""
        return BadBundle(f"The archive {self.archive} holds {what}; it is not opened.")


class _Writer:
    """Writes the files of one archive, and counts their bytes."""

    def __init__(self, into: Path, check: _Check) -> None:
        self._into = into
        self._check = check
        self._total = 0

    def write(self, path: PurePosixPath, content: IO[bytes] | None) -> None:
        """Write a file; make a folder where there is no content."""
        target = self._into / path
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(handle, "wb") as out:
            while piece := content.read(_PIECE):
                size += len(piece)
                self._total += len(piece)
                if size > self._check.most.file_bytes:
                    raise self._check.refusal(f"more in {str(path)!r} than {self._check.most.file_bytes:,} bytes")
                self._check.total(self._total)
                out.write(piece)


def _unpack_zip(archive: Path, into: Path, check: _Check) -> None:
    with zipfile.ZipFile(archive) as opened:
        entries = [(info, _zip_entry(info, check)) for info in opened.infolist()]
        writer = _Writer(into, check)
        for info, path in entries:
            if info.is_dir():
                writer.write(path, None)
            else:
                with opened.open(info) as content:
                    writer.write(path, content)


def _zip_entry(info: zipfile.ZipInfo, check: _Check) -> PurePosixPath:
    name = info.orig_filename  # as it is in the archive: the other one is mended already
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise check.refusal(f"a link or a device, {name[:200]!r}")
    if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise check.refusal(f"{name[:200]!r}, which is encrypted or packed in an unusual way")
    return check.entry(name, info.file_size, is_folder=info.is_dir())


def _unpack_tar(archive: Path, into: Path, check: _Check) -> None:
    with _tar(archive, check) as opened:
        for _ in _tar_entries(opened, check):
            pass
    check.begin()
    writer = _Writer(into, check)
    with _tar(archive, check) as opened:
        for member, path in _tar_entries(opened, check):
            writer.write(path, None if member.isdir() else opened.extractfile(member))


@contextmanager
def _tar(archive: Path, check: _Check) -> Iterator[tarfile.TarFile]:
    """The archive from its beginning; it is only ever read onwards, and no further than the limit."""

    class Header(tarfile.TarInfo):
        """Refuses a header before tarfile reads what it announces into memory."""

        def _proc_member(self, opened: tarfile.TarFile) -> tarfile.TarInfo:
            # Here all versions of Python come by before they read; frombuf is no longer asked by the newest of each.
            if self.type == tarfile.GNUTYPE_SPARSE:
                raise check.refusal("a sparse file")
            if self.type in _HEADERS and self.size > _LONGEST_HEADER:
                raise check.refusal(f"a header of {self.size:,} bytes")
            member: tarfile.TarInfo = super()._proc_member(opened)  # type: ignore[misc]
            return member

        def _no_sparse(self, *_: Any) -> None:
            raise check.refusal("a sparse file")

        _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _no_sparse

    with archive.open("rb") as raw:
        packed = archive.name.lower().endswith("gz")
        stream = _Metered(cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw, check)
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", tarinfo=Header) as opened:
            yield opened


class _Metered:
    """A stream that ends in a refusal where more comes out of it than may."""

    def __init__(self, stream: IO[bytes], check: _Check) -> None:
        self._stream = stream
        self._check = check
        self._total = 0
        # Of each entry there is a header, and what fills up its last block.
        self._more = check.most.entries * (_LONGEST_NAME + 4 * tarfile.BLOCKSIZE) + tarfile.RECORDSIZE

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self._total += len(piece)
        self._check.total(self._total - self._more)
        return piece


def _tar_entries(opened: tarfile.TarFile, check: _Check) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    for member in opened:
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
            raise check.refusal(f"a link or a device, {member.name[:200]!r}")
        yield member, check.entry(member.name, member.size, is_folder=member.isdir())
