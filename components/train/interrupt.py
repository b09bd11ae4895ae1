"""Hears that the machine is about to be taken away, so that a training can save its state first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from components.errors import SluicewayError


class Interrupted(SluicewayError):
    """SIGTERM came and the state is saved: run again to go on from there."""

    exit_code = 143


class Interrupt:
    """Whether SIGTERM has come. A trainer asks after each batch, saves a checkpoint and raises Interrupted.

    A fit that has never asked, such as that of a library, is left at once: it would run on until it is killed.
    """

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._came = threading.Event()
        self._is_watched = False

    def __bool__(self) -> bool:
        """Whether it is time to stop."""
        self._is_watched = True
        return self._came.is_set()

    @contextmanager
    def listening(self) -> Iterator["Interrupt"]:
        """Hear SIGTERM within the block; only the main thread can, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGTERM, self._hear)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)

    def check(self) -> None:
        """Leave, where it is time to: compiled code may have made an error of its own out of having been left.

        Raises:
            Interrupted: SIGTERM has come.
        """
        if self._came.is_set():
            raise Interrupted(
                "Training was told to stop before it had anything to save: run again to go on from the last "
                "checkpoint, where there is one, or from the start."
            )

    def _hear(self, *_: object) -> None:
        self._came.set()
        if not self._is_watched:
            self.check()
