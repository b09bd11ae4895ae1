"""Amounts as Kubernetes writes them."""

import re

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_FACTORS = {"": 1.0, "m": 1e-3, "k": 1e3} | {
    letter + suffix: base**power
    for power, letter in enumerate("KMGTPE", 1)
    for suffix, base in (("", 1000.0), ("i", 1024.0))
}


def amount(text: str) -> float | None:
    """Cores or bytes; None for what Kubernetes would not take."""
    match = _QUANTITY.fullmatch(text.strip())
    return float(match[1]) * _FACTORS[match[2] or ""] if match else None
