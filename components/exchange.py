"""How files travel between a step and the pods that work for it: through a folder that all of them can see."""

import json
from pathlib import Path
from typing import Any

from components.errors import BadInput, Unreachable
from components.files import whole_folder


class Exchange:
    """A folder or fsspec URI that the launcher and the pods of one job share.

    Args:
        uri: of the job's own folder.
    """

    def __init__(self, uri: str) -> None:
        """Choose the file system.

        Raises:
            BadInput: it cannot be one.
        """
        from components.store import file_system

        self.uri = uri.rstrip("/")
        try:
            self._store, self._root = file_system(self.uri)
        except (ImportError, ValueError) as error:
            raise BadInput(f"Work in several pods cannot use {uri}: {error}; set SLUICEWAY_STORE.") from error

    def put(self, folder: Path, name: str) -> None:
        """Copy a folder there, in place of what was there."""
        target = f"{self._root}/{name}"
        try:
            if self._store.exists(target):
                self._store.rm(target, recursive=True)
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                there = f"{target}/{file.relative_to(folder).as_posix()}"
                self._store.makedirs(there.rpartition("/")[0], exist_ok=True)
                self._store.put_file(str(file), there)
        except OSError as error:
            raise self._failure(error) from error

    def put_file(self, path: Path, name: str) -> None:
        """Copy one file there."""
        target = f"{self._root}/{name}"
        try:
            self._store.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._store.put_file(str(path), target)
        except OSError as error:
            raise self._failure(error) from error

    def get_file(self, name: str, path: Path) -> None:
        """Copy one file from there."""
        try:
            self._store.get_file(f"{self._root}/{name}", str(path))
        except OSError as error:
            raise self._failure(error) from error

    def get(self, name: str, folder: Path) -> None:
        """Copy a folder from there, whole or not at all."""
        source = f"{self._root}/{name}"
        try:
            names = self._store.find(source)
            with whole_folder(folder) as aside:
                for file in names:
                    here = aside / file.removeprefix(source).lstrip("/")
                    here.parent.mkdir(parents=True, exist_ok=True)
                    self._store.get_file(file, str(here))
        except OSError as error:
            raise self._failure(error) from error

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file."""
        try:
            self._store.makedirs(self._root, exist_ok=True)
            self._store.pipe_file(f"{self._root}/{name}", json.dumps(value).encode())
        except OSError as error:
            raise self._failure(error) from error

    def read(self, name: str) -> Any:
        """Read a JSON file; None where there is none."""
        try:
            return json.loads(self._store.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure(error) from error

    def remove(self) -> None:
        """Remove the job's folder."""
        try:
            if self._store.exists(self._root):
                self._store.rm(self._root, recursive=True)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> Unreachable:
        return Unreachable(f"The store of work in several pods, {self.uri}, cannot be used: {error}.")
