"""Saves the state of a training so that a retry goes on where a killed attempt was.

A checkpoint is one safetensors file: arrays by name, and facts as JSON in its header. Nothing in it runs when it is
read. It takes its name only once it is whole, the one before stays until then, and one that does not belong to this
training is refused.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from components.errors import BadInput, StorageFull, Unreachable
from components.files import is_full, whole_file

if TYPE_CHECKING:
    import numpy as np

FILE = "checkpoint.safetensors"
_FACTS = "sluiceway"


@dataclass(frozen=True)
class State:
    """What a checkpoint holds.

    Attributes:
        arrays: weights, optimiser state and random states, by name.
        facts: everything else, as JSON holds it: epoch, position in the data, history.
    """

    arrays: "Mapping[str, np.ndarray[Any, Any]]"
    facts: Mapping[str, Any]


class Checkpoints(Protocol):
    """Where a training keeps its state."""

    def save(self, state: State) -> None:
        """Replace the last state, whole or not at all."""

    def load(self) -> State | None:
        """The last state; None where there is none."""

    def clear(self) -> None:
        """The training has ended: its state is no longer needed."""


class NoCheckpoints:
    """For trials and quick fits: nothing is kept."""

    def save(self, state: State) -> None:
        """Keep nothing."""

    def load(self) -> State | None:
        """Nothing was kept."""
        return None

    def clear(self) -> None:
        """Nothing to remove."""


class StoredCheckpoints:
    """State under a folder or an fsspec URI (``gs://…``, ``s3://…``), in a file named after the training.

    Args:
        uri: folder or URI that survives the pod.
        identity: of the training, such as its recipe digest; a state of another one is refused.
    """

    def __init__(self, uri: str, identity: str) -> None:
        """Nothing is read or written yet."""
        self._identity = identity
        self._kept = False
        self._uri = f"{uri.rstrip('/')}/{FILE}"

    def save(self, state: State) -> None:
        """Replace the last state.

        Raises:
            StorageFull: no space is left; the last state is as it was.
            Unreachable: the store cannot be written.
        """
        from safetensors.numpy import save

        arrays = {name: _packed(value) for name, value in state.arrays.items()}
        facts = {"identity": self._identity, "facts": dict(state.facts)}
        data = save(arrays, {_FACTS: json.dumps(facts, allow_nan=True)})
        try:
            self._write(data)
        except OSError as error:
            raise self._failure(error) from error
        self._kept = True

    def load(self) -> State | None:
        """The last state.

        Raises:
            BadInput: the file is damaged, or belongs to another training.
            Unreachable: the store cannot be read.
        """
        try:
            data = self._read()
        except OSError as error:
            raise self._failure(error) from error
        self._kept = data is not None
        return None if data is None else self._parsed(data)

    def clear(self) -> None:
        """Remove the state that was saved or loaded, if any was."""
        if not self._kept:
            return
        if "://" not in self._uri:
            file = Path(self._uri)
            file.unlink(missing_ok=True)
            for left in file.parent.glob(f".{FILE}.*.partial"):  # by an attempt that was killed while it wrote
                left.unlink(missing_ok=True)
            return
        store, path = self._store()
        if store.exists(path):
            store.rm(path)

    def _parsed(self, data: bytes) -> State:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            said = json.loads(header["__metadata__"][_FACTS])
            arrays = load(data)
            identity, facts = said["identity"], said["facts"]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"The checkpoint {self._uri} is damaged ({error}): remove it to train from the start."
            ) from error
        if identity != self._identity:
            raise BadInput(
                f"The checkpoint {self._uri} is of another model (recipe {str(identity)[:12]}, this one is "
                f"{self._identity[:12]}): name another checkpoint_uri, or remove it to train from the start."
            )
        return State(arrays, facts)

    def _write(self, data: bytes) -> None:
        if "://" not in self._uri:
            with whole_file(Path(self._uri)) as aside, aside.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            return
        store, path = self._store()
        with store.open(path, "wb") as stream:  # an object appears when the upload ends
            stream.write(data)

    def _read(self) -> bytes | None:
        if "://" not in self._uri:
            file = Path(self._uri)
            return file.read_bytes() if file.exists() else None
        store, path = self._store()
        return bytes(store.cat_file(path)) if store.exists(path) else None

    def _store(self) -> tuple[Any, str]:
        from components.store import file_system

        try:
            store, path = file_system(self._uri)
        except (ImportError, ValueError) as error:
            raise BadInput(f"Checkpoints cannot be kept at {self._uri}: {error}.") from error
        return store, str(path)

    def _failure(self, error: OSError) -> StorageFull | Unreachable:
        if is_full(error):
            return StorageFull(
                f"No space left for the checkpoint {self._uri}: free some, or name another checkpoint_uri, and run "
                "again; the last whole checkpoint is still there."
            )
        return Unreachable(f"The checkpoint {self._uri} cannot be used: {error}.")


def _packed(value: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    import numpy as np

    return np.ascontiguousarray(value) if value.ndim else value
