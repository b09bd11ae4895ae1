"""Where a rollout keeps what it has done, and who may act on it: one owner at a time."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from components.rollout.ledger import Ledger


class Command(BaseModel):
    """What a person asks of a rollout that is under way.

    Attributes:
        what: pause takes no step until resume; abort rolls back; promote skips the steps that are left.
        by: who asks.
        time: when, in seconds since the epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: Literal["pause", "resume", "abort", "promote"]
    by: str
    time: float


class Ownership(Protocol):
    """The right to act on one service."""

    def check(self) -> None:
        """Return while the right is held; called before every effect.

        Raises:
            Lost: it has passed to somebody else, or could not be renewed in time.
        """
        ...

    def hand_over(self, seconds: float) -> None:
        """On leaving, keep the right for this rollout's next step, for so long at most."""
        ...


class Store(Protocol):
    """The record of one service's newest rollout."""

    def owned(
        self, rollout: str, wait_seconds: float = 0.0, say: Callable[[str], None] = ...
    ) -> AbstractContextManager[Ownership]:
        """Own the service while the block runs; a right that was handed over to the same rollout is taken up.

        Args:
            rollout: the rollout's id.
            wait_seconds: how long to wait for another owner to end.
            say: told while it waits, of whom.

        Raises:
            Busy: another rollout owns it; names it.
        """
        ...

    def owner(self) -> str:
        """Who is at work on the service now, as a person would name them; empty when nobody is."""
        ...

    def load(self) -> Ledger:
        """Read the record, or begin an empty one."""
        ...

    def save(self, ledger: Ledger) -> None:
        """Write the record whole, by compare-and-swap against what :meth:`load` or the last :meth:`save` saw.

        Raises:
            Lost: somebody else has written meanwhile.
        """
        ...

    def send(self, command: Command) -> None:
        """Leave a command for the owner; a later one takes its place."""
        ...

    def command(self) -> Command | None:
        """The newest command; None when there is none."""
        ...

    def clear(self) -> None:
        """Take commands away: they were about a rollout that has ended."""
        ...
