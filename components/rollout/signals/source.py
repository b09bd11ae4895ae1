"""What the judge reads of both versions; every source answers the same."""

from typing import Protocol

from components.rollout.evidence import Arm, Observation


class Source(Protocol):
    """Counts of one service's two versions, from one place.

    Attributes:
        interval_seconds: time between two looks that is worth it: what the source itself is refreshed by.
        sees_direct: whether requests sent to one version's own address, past the split, are counted too.
    """

    interval_seconds: float
    sees_direct: bool

    def baseline(self, stable: str) -> Arm:
        """The champion's counts before now, as far back as the source goes or an hour; empty when there are none.

        Raises:
            SignalsLost: the source does not answer.
        """
        ...

    def begin(self, stable: str, canary: str) -> None:
        """Count from now on, for these two revisions; the first is empty in a first deployment.

        Raises:
            SignalsLost: the source does not answer.
        """
        ...

    def seen(self) -> Observation:
        """What was counted since :meth:`begin`. Counters that fell were reset and are counted on from 0.

        Raises:
            SignalsLost: the source does not answer, or carries no status codes: never taken for health.
        """
        ...
