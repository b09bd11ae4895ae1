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
    """Whether SIGTERM has come. A trainer asks after each batch, saves a checkpoint and raises Interrupted."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._asked = threading.Event()

    def __bool__(self) -> bool:
        """Whether it is time to stop."""
        return self._asked.is_set()

    @contextmanager
    def listening(self) -> Iterator["Interrupt"]:
        """Hear SIGTERM within the block; only the main thread can, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self._asked.set())
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)
