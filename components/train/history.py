"""Remembers what a training reported, epoch by epoch."""

from collections.abc import Mapping
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
