"""What an earlier version of the same source has already: parts whose files have not changed since."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.ingest.personal import Finding
from components.ingest.resolve import Source, origin, partition
from components.ingest.snapshot import OriginFile, Part, Reading, Snapshot
from components.ingest.sources import SourceFile

LEAD = 64 * 2**10
"""Bytes at the start of a source that decide about the order of columns and about personal data."""

Bring = Callable[[str, Path], None]
"""Brings the file of an md5 to a path."""


@dataclass(frozen=True)
class Earlier:
    """Parts that may be taken over.

    Attributes:
        version: that they come from; empty for none.
        parts: by the files' names.
        bring: fetches one.
        found: what personal data that version found.
    """

    version: str = ""
    parts: Mapping[tuple[str, ...], Part] = field(default_factory=dict)
    bring: Bring | None = None
    found: tuple[Finding, ...] | None = None
    _reading: Reading | None = None

    @classmethod
    def nothing(cls) -> "Earlier":
        """Nothing can be taken over."""
        return cls()

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        source: Source,
        groups: Sequence[tuple[SourceFile, ...]],
        has: Callable[[str], bool],
        bring: Bring,
    ) -> "Earlier":
        """Find the groups of a source that are parts of an earlier snapshot.

        Args:
            snapshot: the earlier one, with the same options.
            source: as it is now, digested.
            groups: its files, by part.
            has: whether the remote has the file of an md5.
            bring: fetches it.
        """
        if snapshot.reading is None or not groups:
            return cls.nothing()
        first = [(partition(file.name), file.digest) for file in lead(groups[0])]
        then = [(partition(file.name), file.digest) for file in snapshot.files[: len(first)]]
        whole = sum(file.bytes for file in lead(groups[0])) >= LEAD or len(snapshot.files) == len(first)
        if first != then or not (whole or len(groups) == 1):
            return cls.nothing()
        known = {part.origin: part for part in snapshot.parts if part.origin}
        parts = {}
        for group in groups:
            part = known.get(origin(group, source.format, source.options))
            if part and has(part.md5):
                parts[_names(group)] = part
        if not parts:
            return cls.nothing()
        found = tuple(Finding(one.column, one.kind, one.share, one.policy) for one in snapshot.personal)
        return cls(snapshot.version, parts, bring, found, snapshot.reading)

    def reading(self, partitions: Mapping[str, str]) -> Reading | None:
        """How that version was read, if folders make the same columns still."""
        return self._reading if self._reading and self._reading.partitions == dict(partitions) else None

    def has(self, group: Sequence[SourceFile]) -> bool:
        """Whether a part of these files can be taken over."""
        return _names(group) in self.parts

    def take(self, group: Sequence[SourceFile], path: Path) -> Part:
        """Bring it."""
        part = self.parts[_names(group)]
        assert self.bring is not None
        self.bring(part.md5, path)
        return part

    @property
    def files(self) -> int:
        """How many files need not be read."""
        return sum(len(names) for names in self.parts)


def lead(group: Sequence[SourceFile | OriginFile]) -> list[SourceFile | OriginFile]:
    """The files at the start of a source's first part that decide for all."""
    chosen, size = [], 0
    for file in group:
        chosen.append(file)
        size += file.bytes
        if size >= LEAD:
            break
    return chosen


def _names(group: Sequence[SourceFile]) -> tuple[str, ...]:
    return tuple(file.name for file in group)
