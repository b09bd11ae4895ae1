"""Faults on purpose, for tests and demonstrations of a rollback; nothing here runs unless the environment asks.

``SLUICEWAY_FAULTS=errors=0.3,delay_ms=400,after_requests=300`` lets 300 predictions pass, then answers a share of 0.3
with status 500 and delays every one by 400 ms. ``seed`` makes another random sequence.
"""

import asyncio
import os
import random
from dataclasses import dataclass
from typing import Any

from components.errors import BadInput, SluicewayError

VARIABLE = "SLUICEWAY_FAULTS"


class Injected(SluicewayError):
    """A prediction that fails on purpose."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong.

    Attributes:
        errors: share of predictions answered with status 500.
        delay_ms: how long each prediction is held back, in milliseconds.
        after_requests: predictions that pass unharmed first.
        seed: of the random choice.
    """

    errors: float = 0.0
    delay_ms: float = 0.0
    after_requests: int = 0
    seed: int = 0


def from_environment() -> Faults | None:
    """Read ``SLUICEWAY_FAULTS``; None when it is not set.

    Raises:
        BadInput: it does not read as ``name=number`` pairs of the names in :class:`Faults`.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    read = {"errors": float, "delay_ms": float, "after_requests": int, "seed": int}
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            values[name] = read[name](value)
        except (KeyError, ValueError) as error:
            raise BadInput(f"{VARIABLE}: {part.strip()!r} is none of {', '.join(read)} with a number.") from error
    faults = Faults(**values)
    if not 0 <= faults.errors <= 1 or faults.delay_ms < 0 or faults.after_requests < 0:
        raise BadInput(f"{VARIABLE}: errors is a share from 0 to 1, delay_ms and after_requests are not negative.")
    return faults


class Injector:
    """Decides for each prediction what goes wrong with it."""

    def __init__(self, faults: Faults) -> None:
        """Begin a sequence."""
        self._faults = faults
        self._random = random.Random(faults.seed)  # noqa: S311 - a reproducible sequence is the point
        self._seen = 0

    async def strike(self) -> None:
        """Hold a prediction back, or fail it.

        Raises:
            Injected: this one fails.
        """
        self._seen += 1
        if self._seen <= self._faults.after_requests:
            return
        if self._faults.delay_ms:
            await asyncio.sleep(self._faults.delay_ms / 1000)
        if self._random.random() < self._faults.errors:
            raise Injected(f"injected by {VARIABLE}")
