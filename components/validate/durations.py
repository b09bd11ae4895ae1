"""Durations as people write them."""

import re

_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}


def seconds(text: str) -> float:
    """The seconds of a duration such as ``90 minutes``, ``36 hours`` or ``1.5 days``.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]+?)s?\s*", text, re.IGNORECASE)
    if found is None or found[2].lower() not in _SECONDS:
        raise ValueError(f"{text!r} is no duration; write a number of {', '.join(f'{unit}s' for unit in _SECONDS)}")
    return float(found[1]) * _SECONDS[found[2].lower()]


def in_words(amount: float) -> str:
    """A number of seconds in the largest unit that fits, to one decimal place."""
    unit = next(one for one in reversed(_SECONDS) if abs(amount) >= _SECONDS[one] or one == "second")
    return f"{amount / _SECONDS[unit]:.1f} {unit}s".replace(".0 ", " ")
