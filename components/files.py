"""Outputs that appear whole or not at all: write aside, then rename."""

import errno
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.errors import StorageFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place only when the block succeeds.

    An earlier folder at ``path`` stays as it was when the block fails.

    Raises:
        StorageFull: the disk or quota ran out.
    """
    aside = _aside(path)
    shutil.rmtree(aside, ignore_errors=True)
    with _clean_up(path, aside):
        aside.mkdir(parents=True)
        yield aside
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        aside.rename(path)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a file name beside ``path`` that takes its place only when the block succeeds.

    Raises:
        StorageFull: the disk or quota ran out.
    """
    aside = _aside(path)
    with _clean_up(path, aside):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _aside(path: Path) -> Path:
    # Threads may write the same output; and in containers, which share volumes, every process has the number 1.
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.partial")


@contextmanager
def _clean_up(path: Path, aside: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)
        if is_full(error):
            free = shutil.disk_usage(_existing(path.parent)).free
            raise StorageFull(
                f"No space left while writing {path}: {free / 1e6:,.0f} MB free. "
                "Free some space or choose another folder with SLUICEWAY_HOME; nothing half-written was kept."
            ) from error
        raise


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that the disk or quota ran out."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if "No space left on device" in str(error):  # DuckDB and Arrow wrap the errno in text
            return True
        error = error.__cause__ or error.__context__
    return False


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
