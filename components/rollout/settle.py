"""The exit handler: whatever ended the run, the service ends on the last good release."""

from pathlib import Path

from components.rollout import ledger as ledgers
from components.rollout.ledger import Phase
from components.rollout.run import promote, roll_back


def settle(home: Path, service: str) -> str:
    """Finish what a dead run left behind; gives one sentence about what was done.

    A promotion that had begun is completed, since its challenger was judged good and has the traffic. Anything
    earlier is rolled back.

    Raises:
        Busy: the rollout is not dead but at work.
        NotReady: the last good release does not start any more.
    """
    with ledgers.owned(home / "locks" / f"{service}.rollout", "settling", f"service {service}"):
        ledger = ledgers.load(home, service)
        if ledger.phase is Phase.SETTLED:
            return "nothing to settle"
        if ledger.candidate is None:  # killed before the candidate was named: nothing was started
            ledger.phase = Phase.SETTLED
            ledgers.save(home, ledger)
            return "nothing to settle"
        version = ledger.candidate.version
        if ledger.phase is Phase.PROMOTING:
            promote(home, ledger, "the run ended while it promoted; completed afterwards")
            return f"completed the promotion of version {version}"
        roll_back(home, ledger, "the run ended before its rollout was decided")
        stable = ledger.stable
        return f"rolled back to version {stable.version}" if stable else f"withdrew version {version}"
