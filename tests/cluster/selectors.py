"""Label and field selectors."""

import re
from typing import Any

Plain = dict[str, Any]

_IN = re.compile(r"(?P<key>\S+)\s+(?P<word>in|notin)\s*\((?P<values>[^)]*)\)")
_IS = re.compile(r"(?P<key>[^=!\s]+)\s*(?P<word>==|=|!=)\s*(?P<value>[^\s]*)")


def by_labels(selector: str, thing: Plain) -> bool:
    """Whether a label selector selects an object."""
    labels = thing["metadata"].get("labels") or {}
    return all(_label(part.strip(), labels) for part in re.split(r",(?![^(]*\))", selector) if part.strip())


def _label(part: str, labels: dict[str, str]) -> bool:
    if found := _IN.fullmatch(part):
        listed = labels.get(found["key"]) in {value.strip() for value in found["values"].split(",")}
        return listed == (found["word"] == "in")
    if found := _IS.fullmatch(part):
        return (labels.get(found["key"]) == found["value"]) == (found["word"] != "!=")
    return part[1:] not in labels if part.startswith("!") else part in labels


def by_fields(selector: str, thing: Plain) -> bool:
    """Whether a field selector selects an object."""
    for part in filter(None, selector.split(",")):
        found = _IS.fullmatch(part)
        if found is None:
            raise ValueError(part)
        value: Any = thing
        for step in found["key"].split("."):
            value = (value or {}).get(step)
        if ((value or "") == found["value"]) == (found["word"] == "!="):
            return False
    return True
