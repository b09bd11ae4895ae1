"""Remembers what a training reported, epoch by epoch."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass
class History:
    """A listener of :class:`components.train.contract.Run` that keeps everything.

    Attributes:
        epochs: the number of each epoch, with its metrics by name; an epoch told twice (a retry that went back to its
            checkpoint) is kept once.
    """

    epochs: dict[int, dict[str, float]] = field(default_factory=dict)

    def __call__(self, number: int, metrics: Mapping[str, float]) -> None:
        """Keep an epoch."""
        self.epochs[number] = dict(metrics)

    def series(self, name: str) -> list[tuple[float, float]]:
        """A metric over the epochs that have it."""
        return [(float(number), told[name]) for number, told in sorted(self.epochs.items()) if name in told]

    def names(self) -> list[str]:
        """Every metric that was told, in the order of its first mention."""
        return list(dict.fromkeys(name for told in self.epochs.values() for name in told))


class Progress:
    """A listener that tells the person who watches how the fit goes, seldom enough to be read.

    Args:
        say: tells one sentence.
        every: seconds between two.
    """

    def __init__(self, say: Callable[[str], None], every: float = 2.0) -> None:
        """The first epoch is told at once."""
        self._say, self._every, self._next = say, every, 0.0

    def __call__(self, number: int, metrics: Mapping[str, float]) -> None:
        """Tell an epoch, if it is time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        shown = [f"{name} {value:.4g}" for name, value in metrics.items() if name.startswith(("train_", "valid_"))]
        self._say(f"epoch {number}: {', '.join(shown)}")
