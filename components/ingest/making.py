"""The parts of a snapshot, made from the files of a source or taken over from an earlier version.

Types are those that the first rows of all files suggest, if every value fits them; else all values are looked at. That
depends on nothing but the files, so a snapshot has the same bytes whether parts are taken over or not.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import duckdb

from components.errors import BadInput
from components.ingest import personal
from components.ingest.complaints import Fetched, explain, is_unfit, sentences
from components.ingest.earlier import Earlier, lead
from components.ingest.engine import WIDE, make_room, write_parquet
from components.ingest.fetching import Fetching
from components.ingest.follow import Md5, Progress, Report
from components.ingest.form import Form
from components.ingest.integrity import read_through
from components.ingest.options import compression
from components.ingest.reader import Reader
from components.ingest.resolve import Source
from components.ingest.snapshot import Reading
from components.ingest.sources import SourceFile
from components.ingest.text import Empty

_Group = tuple[SourceFile, ...]


@dataclass(frozen=True)
class Piece:
    """A part: its file, rows, md5, and the files that it was made of."""

    path: Path
    rows: int
    md5: str
    files: _Group


class _Widened(Exception):
    """Files have other columns than those before them."""


class _Unfit(Exception):
    """A value is not of the type that the first rows suggested."""


class Maker:
    """Makes the parts of one snapshot; afterwards says how it read them."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        source: Source,
        groups: Sequence[_Group],
        fetching: Fetching,
        earlier: Earlier,
        pool: Executor,
        report: Report,
    ) -> None:
        """Read nothing yet.

        Args:
            connection: that reads and writes.
            source: what to read.
            groups: its files, by part.
            fetching: brings them.
            earlier: what may be taken over.
            pool: for what goes on beside; at least two threads.
            report: takes lines of progress.
        """
        # With thousands of columns it takes the square of their number; and copying has no use for it.
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        self._connection = connection
        self._source = source
        self._groups = groups
        self._fetching = fetching
        self._pool = pool
        self._report = report
        self.earlier = earlier
        self.digests: dict[str, str] = {}
        self.found: tuple[personal.Finding, ...] | None = earlier.found
        self._reader = Reader(source.format, source.options, [file.name for file in source.files])
        self._heads: dict[str, Form | None] = {}
        self._all: dict[str, Form | None] = {}
        self._reading = earlier.reading(self._reader.partitions)
        self._settled = False
        self._progress = Progress(connection, sum(file.bytes for file in source.files), report)

    @property
    def reading(self) -> Reading:
        """How the types were found."""
        assert self._reading is not None
        return self._reading

    def make(self, folder: Path) -> list[Piece]:
        """Write or take over all parts.

        Raises:
            BadInput: something is wrong with the files.
            Unreachable: a store refuses or is down.
        """
        if self._reading is None:
            self._forget("")
        with self._progress.watched():
            while True:
                try:
                    return self._once(folder)
                except _Widened as error:
                    self._forget(f"{error}; all files are read again with columns that hold both.")
                    self._survey()
                except _Unfit as error:
                    self._forget(f"{error}; all values are looked at, and all files read again.")
                    self._survey(thorough=True)

    def _once(self, folder: Path) -> list[Piece]:
        pieces: list[Piece] = []
        for written in folder.iterdir():  # by an earlier try; removed, for it may be a link to what the remote keeps
            written.unlink()
        names = [folder / f"part-{index:05d}.parquet" for index in range(len(self._groups))]
        to_read = [index for index, group in enumerate(self._groups) if not self.earlier.has(group)]
        if to_read and not self._settled and self._fetching.in_place(to_read[0]):
            self._see(to_read, any(self.earlier.has(group) for group in self._groups))
        for index, group in enumerate(self._groups):
            if self.earlier.has(group):
                part = self.earlier.take(group, names[len(pieces)])
                pieces.append(Piece(names[len(pieces)], part.rows, part.md5, group))
                continue
            after = next((later for later in to_read if later > index), None)
            files = self._fetching.get(index, after)
            self._grow(files, started=bool(pieces))
            self._progress.begin(sum(file.bytes for file in group))
            piece = self._copied(files, group, names[len(pieces)])
            pieces += [piece] if piece else []
            self._progress.done()
            self._fetching.done(index)
        if not pieces:
            raise Empty(f"{self._groups[0][0].name} is empty; nothing can be learned from it.")
        return pieces

    def _see(self, indices: list[int], started: bool) -> None:
        """Look at the first rows of files that lie here, before anything is written."""
        for index in indices:
            self._grow(self._fetching.get(index), started=started)
        self._settled = True

    def _survey(self, *, thorough: bool = False) -> None:
        """Look at every file before anything is written again: at its first rows, or at all of them."""
        heads: tuple[str, Form] | None = None
        whole: tuple[str, Form] | None = None
        for index in range(len(self._groups)):
            missing = any(file.name not in (self._all if thorough else self._heads) for file in self._groups[index])
            files = (
                self._fetching.get(index) if missing else [Fetched(file.name, Path()) for file in self._groups[index]]
            )
            heads = self._together(heads, files, thorough=False)
            if thorough:
                whole = self._together(whole, files, thorough=True)
            if missing:
                self._fetching.done(index)
        assert heads is not None
        form = whole[1] if whole else heads[1]
        self._set(heads[1], form, thorough=thorough)
        self._settled = True

    def _grow(self, files: list[Fetched], *, started: bool) -> None:
        """Look at the first rows of some more files, if not done yet."""
        if self._settled:
            return
        known = self._reading
        first = self._source.files[0].name
        heads = self._together((first, known.heads) if known else None, files, thorough=False)
        if heads is None:  # empty
            return
        whole: tuple[str, Form] | None = heads
        thorough = known.thorough if known else len(heads[1].types) > WIDE
        if thorough:
            whole = self._together((first, known.form) if known else None, files, thorough=True)
        assert whole is not None
        if known and not (known.heads.same(heads[1]) and known.form.same(whole[1])) and started:
            raise _Widened(_what(known, whole[1], files))
        self._set(heads[1], whole[1], thorough=thorough)

    def _set(self, heads: Form, form: Form, *, thorough: bool) -> None:
        make_room(self._connection, len(form.types))
        self._reading = Reading(heads=heads, form=form, thorough=thorough, partitions=self._reader.partitions)

    def _together(
        self, first: tuple[str, Form] | None, files: list[Fetched], *, thorough: bool
    ) -> tuple[str, Form] | None:
        """The columns of files joined to those of the ones before, which begin with the file of that name."""
        for file in files:
            found = self._form(file, thorough=thorough)
            if found is None:
                continue
            if first is None:
                first = (file.name, found)
            elif file.name != first[0]:
                first = (first[0], self._reader.together(first[1], first[0], found, file.name))
        return first

    def _form(self, file: Fetched, *, thorough: bool) -> Form | None:
        """A file's own columns; None of an empty file."""
        kept = self._all if thorough else self._heads
        if file.name not in kept:
            try:
                kept[file.name] = self._reader.form(self._connection, file, thorough=thorough)
            except Empty:
                kept[file.name] = None
        return kept[file.name]

    def _copied(self, files: list[Fetched], group: _Group, part: Path) -> Piece | None:
        """Write a part, while the files' bytes are looked at beside."""
        looked = [self._pool.submit(self._look, file, one) for file, one in zip(files, group, strict=True)]
        full = [file for file in files if self._form(file, thorough=False) is not None]
        try:
            piece = self._written(full, group, part) if full else None
        except BaseException as error:
            if isinstance(error, BadInput):  # what is wrong with a damaged file is only said there
                self._digest([one for file, one in zip(files, looked, strict=True) if compression(file.name) != "none"])
            for one in looked:
                one.cancel()
            raise
        self._digest(looked)
        return piece

    def _written(self, files: list[Fetched], group: _Group, part: Path) -> Piece:
        reading = self.reading
        md5: Md5 | None = None
        with sentences(files):
            try:
                query = self._query(files)
                md5 = Md5(part, self._pool)
                rows = write_parquet(self._connection, query, part, len(reading.form.types))
                return Piece(part, rows, md5.end(), group)
            except duckdb.Error as error:
                part.unlink(missing_ok=True)
                if not is_unfit(error):
                    raise
                if reading.thorough or self._source.format not in ("csv", "tsv"):
                    raise BadInput(explain(str(error), files)) from error
                raise _Unfit(f"{files[0].name}: a value does not fit what the first rows suggested") from error
            finally:
                if md5 is not None:
                    md5.give_up()

    def _query(self, files: list[Fetched]) -> str:
        reading = self.reading
        query = self._reader.query(files, reading.form, known=reading.thorough)
        if self.found is not None:
            return personal.applied(self._connection, query, self.found)
        first = {file.name for file in lead(self._groups[0])}
        looked = [file for file in files if file.name in first] or files
        plan = personal.plan(
            self._connection, self._reader.query(looked, reading.form, known=reading.thorough), self._source.options
        )
        self.found = plan.found
        return personal.applied(self._connection, query, plan.found)

    def _look(self, file: Fetched, listed: SourceFile) -> None:
        if file.name in self.digests:
            return
        found = read_through(file.path, file.name, self._source.format, self._source.options, digest=not listed.digest)
        self.digests[file.name] = listed.digest or found

    def _digest(self, looked: Sequence[Future[None]]) -> None:
        for one in looked:
            one.result()

    def _forget(self, why: str) -> None:
        """Begin again, with nothing taken over."""
        if why:
            self._report(why)
        self.earlier = Earlier.nothing()
        self.found = None
        self._reading = None
        self._progress.again()


def _what(known: Reading, found: Form, files: list[Fetched]) -> str:
    """Which column is another one now, for people."""
    for name, kind in found.types.items():
        if known.form.types.get(name) != kind:
            before = known.form.types.get(name, "no such column")
            return f"{files[0].name} needs {kind} in column {name!r}, which was {before}"
    return f"{files[0].name} has other columns than the files before it"
