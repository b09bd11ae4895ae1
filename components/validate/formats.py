"""Regular expressions for texts that are all written alike: known formats, and sequences of letters and digits."""

import re
from collections.abc import Sequence

FEWEST = 50
"""So many different texts must be written alike."""

_MOST_RUNS = 8

_KNOWN = (
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",  # UUID
    r"[0-9a-f]{64}",  # SHA-256
    r"[0-9a-f]{40}",  # SHA-1
    r"[0-9a-f]{32}",  # MD5
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}",  # ISO date
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?",
    r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{4}",
    r"[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}",
    r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?",
    r"[0-9]{1,3}(\.[0-9]{1,3}){3}",  # IPv4
    r"[0-9]{5}(-[0-9]{4})?",  # postal code: Germany, France, United States
    r"[0-9]{4} ?[A-Z]{2}",  # Netherlands
    r"[A-Z]{1,2}[0-9][A-Z0-9]? ?[0-9][A-Z]{2}",  # United Kingdom
    r"[A-Z][0-9][A-Z] ?[0-9][A-Z][0-9]",  # Canada
    r"[0-9]{2}-[0-9]{3}",  # Poland
)

_RUNS = re.compile(r"[0-9]+|[a-z]+|[A-Z]+|[^0-9a-zA-Z]")
_SPECIAL = re.compile(r"[.^$*+?{}\[\]\\|()]")
_CLASSES = ((re.compile("[0-9]"), "[0-9]+"), (re.compile("[a-z]"), "[a-z]+"), (re.compile("[A-Z]"), "[A-Z]+"))


def pattern(texts: Sequence[str]) -> str | None:
    """The expression that all of the texts match as a whole, if they are written alike.

    Of formats that are not known, the lengths of letters and digits are left open: numbers grow.
    """
    if len(texts) < FEWEST:
        return None
    known = next((one for one in _KNOWN if all(re.fullmatch(one, text) for text in texts)), None)
    if known is not None:
        return known
    shapes = {_shape(text) for text in texts}
    shape = shapes.pop()
    return shape if not shapes and shape and any(one in shape for one in ("[0-9]", "-", ":", "/")) else None


def _shape(text: str) -> str:
    runs = _RUNS.findall(text)
    if not 1 < len(runs) <= _MOST_RUNS:
        return ""
    return "".join(
        next((name for form, name in _CLASSES if form.match(run)), _SPECIAL.sub(r"\\\g<0>", run)) for run in runs
    )
