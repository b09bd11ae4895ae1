"""A rollout that was halted belongs to the person who is to decide about it."""

from components.errors import Busy
from components.rollout.ledger import Phase
from components.rollout.store import Store


def refuse_halted(store: Store) -> None:
    """Leave a halted rollout to the person that it waits for.

    Raises:
        Busy: the service's last rollout was halted and has not been ended.
    """
    ledger = store.load()
    if ledger.phase is Phase.HALTED:
        raise Busy(
            f"The last rollout of {ledger.service} was halted ({ledger.reason}): look at the service, then end it with "
            f"`sluiceway rollout promote {ledger.service}` or `sluiceway rollout abort {ledger.service}`."
        )
