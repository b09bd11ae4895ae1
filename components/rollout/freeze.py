"""Times in which a rollout takes no step."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Freeze(BaseModel):
    """A window that comes again every week, such as Friday afternoon.

    Attributes:
        days: weekdays on which it begins; all when none is named.
        start: when it begins, "HH:MM".
        end: when it ends, "HH:MM"; not after ``start`` means on the next day.
        timezone: of both, an IANA name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: tuple[Day, ...] = ()
    start: str = "00:00"
    end: str = "00:00"
    timezone: str = "UTC"


def frozen_until(windows: tuple[Freeze, ...], now: datetime) -> datetime | None:
    """When the freeze that is in force ends; None when there is none.

    Args:
        windows: the plan's.
        now: with a time zone.
    """
    raise NotImplementedError
