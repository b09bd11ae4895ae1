"""Where Spark finds what a step has, and the step what Spark has written: on this disk, or in a store that both see."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from components.exchange import Exchange
from components.features.spark.application import for_spark


class Places(Protocol):
    """What a step and its executors share."""

    def uri(self, path: Path) -> str:
        """Where executors read a file of the step's."""

    def scratch(self, name: str) -> str:
        """Where executors write a table of this name."""

    def bring(self, name: str, beside: Path) -> list[Path]:
        """The Parquet files that they have written under this name, in order, on the step's disk."""

    def close(self) -> None:
        """Remove what was only on its way."""


class OneDisk:
    """Executors that see the step's own disk: in its process, or on a network file system.

    Args:
        folder: for what is on its way.
    """

    def __init__(self, folder: Path) -> None:
        """Make a folder in it."""
        self._folder = Path(tempfile.mkdtemp(prefix=".spark-", dir=folder))

    def uri(self, path: Path) -> str:
        """The file itself."""
        return path.absolute().as_uri()

    def scratch(self, name: str) -> str:
        """A folder of the step's."""
        return (self._folder / name).absolute().as_uri()

    def bring(self, name: str, beside: Path) -> list[Path]:
        """They are there already."""
        return sorted((self._folder / name).glob("*.parquet"))

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Store:
    """Executors that see a bucket and not the step's disk.

    Args:
        uri: of a folder in it, for what is on its way.
        known: files of the step's that are in a bucket already: their folder, and its URI.
    """

    def __init__(self, uri: str, known: Mapping[Path, str] | None = None) -> None:
        """Choose the file system."""
        self._exchange = Exchange(uri)
        self._known = dict(known or {})
        self._sent = 0

    def uri(self, path: Path) -> str:
        """Where it is, or was put."""
        for folder, uri in self._known.items():
            if path.is_relative_to(folder):
                return for_spark(f"{uri}/{path.relative_to(folder).as_posix()}")
        came_from = bucket_of(path)
        if came_from.startswith(f"{self._exchange.uri.partition('://')[0]}://"):
            return for_spark(came_from)
        self._sent += 1
        name = f"given/{self._sent}/{path.name}"
        self._exchange.put_file(path, name)
        return for_spark(f"{self._exchange.uri}/{name}")

    def scratch(self, name: str) -> str:
        """A folder of the store's."""
        return for_spark(f"{self._exchange.uri}/made/{name}")

    def bring(self, name: str, beside: Path) -> list[Path]:
        """Copied to a folder beside an output."""
        here = beside / f".{name}.spark"
        self._exchange.get(f"made/{name}", here)
        return sorted(here.rglob("*.parquet"))

    def close(self) -> None:
        """Remove the store's folder."""
        self._exchange.remove()


def bucket_of(path: Path) -> str:
    """The URI of an artifact's file or folder where KFP has mounted or copied a bucket; empty where it has not.

    KFP gives an artifact of ``gs://``, ``s3://`` and ``minio://`` the paths ``/gcs/``, ``/s3/`` and ``/minio/``.
    """
    first, *rest = path.absolute().parts[1:] or ("",)
    scheme = {"gcs": "gs", "s3": "s3", "minio": "s3"}.get(first, "")
    return f"{scheme}://{'/'.join(rest)}" if scheme and rest else ""
