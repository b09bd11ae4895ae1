"""The exit handler: whatever ended the run, the service ends on the last good release."""

from collections.abc import Callable
from dataclasses import dataclass

from components.errors import NotReady
from components.rollout.ledger import Outcome, Phase
from components.rollout.place import Place
from components.rollout.run import conclude
from components.rollout.state import Action, Do
from components.rollout.store import Ownership, Store

_HOLDER = "settling"


@dataclass(frozen=True)
class Settled:
    """What was done.

    Attributes:
        said: one sentence about it.
        outcome: how the rollout ended; None when there was nothing to settle.
    """

    said: str
    outcome: Outcome | None = None


_NOTHING = Settled("nothing to settle")


def settle(place: Callable[[], Place], store: Store, run_id: str = "", wait_seconds: float = 0.0) -> Settled:
    """Finish what a dead run left behind.

    A promotion that had begun is completed, since its challenger was judged good and has the traffic. A halted
    rollout is left for a person. Anything else is rolled back.

    Args:
        place: gives the place where the service runs; asked only when there is something to settle.
        store: the service's record.
        run_id: the run whose rollout is settled; another run's is left alone. Empty settles whatever is there.
        wait_seconds: how long to wait for the dead run's ownership to run out.

    Raises:
        Busy: the rollout is not dead but at work.
        NotReady: the last good release does not start any more.
    """
    ledger = store.load()
    if ledger.phase in (Phase.SETTLED, Phase.HALTED):
        return _NOTHING
    if run_id and ledger.run_id != run_id:
        return Settled(f"nothing to settle: the rollout that is under way is run {ledger.run_id}'s")
    with store.owned(ledger.run_id or _HOLDER, wait_seconds) as ownership:
        return finish(place, store, ownership)


def finish(place: Callable[[], Place], store: Store, ownership: Ownership) -> Settled:
    """Settle, by whoever owns the service already; see :func:`settle`."""
    ledger = store.load()
    if ledger.phase in (Phase.SETTLED, Phase.HALTED):  # it ended by itself while we waited
        return _NOTHING
    if ledger.candidate is None:  # killed before the candidate was named: nothing was started
        ledger.phase = Phase.SETTLED
        store.save(ledger)
        return _NOTHING
    version = ledger.candidate.version
    if ledger.phase is Phase.PROMOTING:
        action = Action(Do.PROMOTE, "the run ended while it promoted; completed afterwards")
        conclude(place(), ledger, ownership, action)
        return Settled(f"completed the promotion of version {version}", "promoted")
    began = ledger.phase is Phase.ROLLING_BACK and ledger.reason
    conclude(place(), ledger, ownership, Action(Do.ROLL_BACK, began or "the run ended before its rollout was decided"))
    back = f"rolled back to version {ledger.stable.version}" if ledger.stable else f"withdrew version {version}"
    return Settled(back, ledger.outcome)


def decided_by(place: Callable[[], Place], store: Store, what: str, by: str) -> str:
    """End a halted rollout, or one that nobody watches any more, as a person says; gives one sentence.

    Args:
        place: gives the place where the service runs.
        store: the service's record.
        what: "promote" the challenger, or "abort": give the traffic back to the champion.
        by: who says so.

    Raises:
        Busy: the rollout is at work; send it a command.
        NotReady: it could not be done; the record says so.
    """
    with store.owned(store.load().run_id or _HOLDER) as ownership:
        ledger = store.load()
        if ledger.candidate is None or ledger.phase is Phase.SETTLED:
            raise NotReady(f"There is no rollout of {ledger.service} to {what}: the last one has ended.")
        version = ledger.candidate.version
        if what == "promote":
            conclude(place(), ledger, ownership, Action(Do.PROMOTE, f"promoted by {by} after it had stopped"))
            return f"version {version} is promoted"
        conclude(place(), ledger, ownership, Action(Do.ROLL_BACK, f"aborted by {by} after it had stopped"))
        return f"rolled back to version {ledger.stable.version}" if ledger.stable else f"withdrew version {version}"
