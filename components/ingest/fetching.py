"""The files of each part: fetched while the part before is copied, and deleted once they were read."""

import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from components.ingest.complaints import Fetched
from components.ingest.integrity import unpack
from components.ingest.options import Format, compression
from components.ingest.sources import Source, SourceFile


class Fetching:
    """Local copies of a source's groups of files, of which two exist at a time."""

    def __init__(self, opened: Source, kind: Format, groups: Sequence[tuple[SourceFile, ...]], folder: Path) -> None:
        """Nothing is fetched yet; ``folder`` is for the copies."""
        self._opened = opened
        self._kind = kind
        self._groups = groups
        self._folder = folder
        self._pool = ThreadPoolExecutor(1)
        self._coming: dict[int, Future[list[Path]]] = {}

    def __enter__(self) -> "Fetching":
        """Be closed with the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait for what is under way, so that nothing is written afterwards."""
        self._pool.shutdown(cancel_futures=True)

    def in_place(self, index: int) -> bool:
        """Whether the files of a group are read where they lie, so that fetching costs nothing."""
        return not any(path.is_relative_to(self._folder) for path in self._begin(index).result())

    def get(self, index: int, following: int | None = None) -> list[Fetched]:
        """The files of a group; those of the following one are begun to be fetched.

        Raises:
            BadInput: a file is no longer what was listed.
            Unreachable: the store refuses or is down.
        """
        now = self._begin(index)
        paths = now.result()
        if following is not None:
            self._begin(following)
        return [Fetched(file.name, path) for file, path in zip(self._groups[index], paths, strict=True)]

    def done(self, index: int) -> None:
        """The group's copies are not needed any more."""
        self._coming.pop(index, None)
        shutil.rmtree(self._place(index), ignore_errors=True)

    def _begin(self, index: int) -> "Future[list[Path]]":
        if index not in self._coming:
            place = self._place(index)
            place.mkdir(parents=True, exist_ok=True)
            self._coming[index] = self._pool.submit(self._fetch, self._groups[index], place)
        return self._coming[index]

    def _fetch(self, group: tuple[SourceFile, ...], place: Path) -> list[Path]:
        paths = self._opened.fetch(group, place)
        return [self._readable(path, file, place) for path, file in zip(paths, group, strict=True)]

    def _readable(self, path: Path, file: SourceFile, place: Path) -> Path:
        """What DuckDB can read of a file: itself, or what an Avro file is turned into."""
        if self._kind != "avro":
            return path
        from components.ingest.avro import to_parquet

        copy = place / file.name
        made = copy.with_name(f"{copy.name}.parquet")
        made.parent.mkdir(parents=True, exist_ok=True)
        if compression(file.name) != "none":
            plain = copy.with_name(f"{copy.name}.plain")
            unpack(path, file.name, plain)
            to_parquet(plain, file.name, made)
            plain.unlink()
        else:
            to_parquet(path, file.name, made)
        if path.is_relative_to(place):
            path.unlink()
        return made

    def _place(self, index: int) -> Path:
        return self._folder / f"{index:05d}"
