"""What a rollout asks of the place where the service runs; every target answers the same."""

from dataclasses import dataclass
from typing import Protocol

from components.rollout.release import Release


@dataclass(frozen=True)
class Copies:
    """The servers of one version.

    Attributes:
        revision: what the metrics call this version here; empty when there is none.
        ready: how many can answer now.
        wanted: how many there should be.
        trouble: why some cannot: image pull, crash loop, out of memory, does not load, no node; empty when none is in
            trouble. One sentence, with the server's own last words where they can be had.
        restarts: how often one was started again since it was made.
        url: an address that reaches this version alone; empty when there is none.
    """

    revision: str = ""
    ready: int = 0
    wanted: int = 0
    trouble: str = ""
    restarts: int = 0
    url: str = ""


@dataclass(frozen=True)
class Sight:
    """A service as it is now.

    Attributes:
        weight: the challenger's share of the traffic that is in force, in percent.
        stable: the champion's servers.
        canary: the challenger's servers.
        changed: what somebody else has changed since this rollout last wrote: field, from, to and by whom as far as
            the API tells; empty when nothing.
    """

    weight: int
    stable: Copies
    canary: Copies
    changed: str = ""


@dataclass(frozen=True)
class Staged:
    """A challenger that is ready, with no traffic: its revision and an address that reaches it alone."""

    revision: str
    url: str


class Target(Protocol):
    """One service in one place. Every verb can be repeated: what is so already is left as it is.

    Every verb that changes something returns only once the change is in force (weights exact in the proxy or route,
    servers ready), and raises ``NotReady`` when that does not come to be in time; ``Unreachable`` when the API server
    stays away; ``BadInput`` when it refuses what is asked; ``Changed`` when a person has changed the service meanwhile.
    """

    service: str

    def check(self) -> None:
        """Whether this place can do a canary at all.

        Raises:
            BadInput: it cannot; names what is missing (mode, version, Gateway API, permission, fields not allowed).
        """
        ...

    def live(self) -> bool:
        """Whether the service is there and served by someone."""
        ...

    def url(self) -> str:
        """The address that clients use; empty when there is none."""
        ...

    def deploy(self, release: Release) -> None:
        """Give a release all traffic: the first one, or the champion when its service is not there."""
        ...

    def stage(self, release: Release) -> Staged:
        """Start a release beside the one that is live, with no traffic.

        The very first release has nothing beside it and is live as soon as it is ready.
        """
        ...

    def shift(self, release: Release, percent: int) -> None:
        """Give the staged release a share of the traffic, 1 to 100; at 100 the champion's servers stay up."""
        ...

    def promote(self, release: Release) -> None:
        """Make the release, which has been judged good, the one that is served; then end the one before.

        Ordered so that the servers that are ready never become fewer than the traffic needs. A call for a release that
        is promoted already changes nothing.
        """
        ...

    def roll_back(self, stable: Release, candidate: Release) -> None:
        """Give the traffic back to the last good release, at once; then take the candidate away.

        Ordered likewise. Also from half-made states: a promotion that stopped midway, a candidate that never started.
        """
        ...

    def remove(self) -> None:
        """End the service: a first release that failed has nothing to go back to."""
        ...

    def look(self, stable: Release | None, candidate: Release, percent: int) -> Sight:
        """The service as it is now.

        Args:
            stable: the last good release; None during a first deployment.
            candidate: the release on trial.
            percent: the share that this rollout last set for it, to tell a person's change by.
        """
        ...

    def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Leave a note where people look at the service: a Kubernetes Event. Never fails the rollout."""
        ...
