"""Which files of a source become which part of its snapshot.

A part holds consecutive files. It must not be so small that a snapshot has thousands of them, nor so large that a new
file costs reading many old ones again; and where the boundaries are must depend on as few files as possible, so that
most parts are still the same when files come, also ones whose names sort into the middle (``region=b/day=7``).
"""

from collections.abc import Sequence
from itertools import groupby

from components.ingest.sources import SourceFile

PART = 64 * 2**20
"""Bytes of source files from which on a part is large enough."""

FILES = 4096
"""The most files of a part, however small they are."""


def groups(files: Sequence[SourceFile], part: int | None = None) -> list[tuple[SourceFile, ...]]:
    """Cut a source's files, in their order, into those of each part.

    A folder that is smaller than a part (with all in it) is never cut; a larger one never shares a part with its
    neighbours. What is left are runs of files and of small folders, which fill parts one after another.

    Args:
        files: sorted by name.
        part: bytes of a part, by default :data:`PART`.
    """
    return _cut(list(files), 0, PART if part is None else part)


def _cut(files: list[SourceFile], depth: int, part: int) -> list[tuple[SourceFile, ...]]:
    if _is_small(files, part):
        return [tuple(files)] if files else []
    cut: list[tuple[SourceFile, ...]] = []
    run: list[SourceFile] = []
    for inside in _children(files, depth):
        if len(inside) > 1 and not _is_small(inside, part):
            cut += [tuple(run)] if run else []
            run = []
            cut += _cut(inside, depth + 1, part)
            continue
        run += inside
        if not _is_small(run, part):
            cut.append(tuple(run))
            run = []
    return cut + ([tuple(run)] if run else [])


def _children(files: list[SourceFile], depth: int) -> list[list[SourceFile]]:
    """The folders (with all in them) and files of a folder, which lies ``depth`` below the source's root."""

    def child(file: SourceFile) -> str:
        parts = file.name.split("/")
        return "/".join(parts[: depth + 1]) + ("/" if len(parts) > depth + 1 else "")

    return [list(inside) for _, inside in groupby(files, child)]


def _is_small(files: list[SourceFile], part: int) -> bool:
    return sum(file.bytes for file in files) < part and len(files) < FILES
