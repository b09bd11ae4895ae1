"""Lists as the KFP API server gives them: filtered, sorted, in pages."""

import base64
import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_plus

from tests.kfp_api.contract import contract
from tests.kfp_api.refusals import INVALID, Refusal

Plain = dict[str, Any]

_OPERATIONS = {
    1: "EQUALS",
    2: "NOT_EQUALS",
    3: "GREATER_THAN",
    5: "GREATER_THAN_EQUALS",
    6: "LESS_THAN",
    7: "LESS_THAN_EQUALS",
    8: "IN",
    9: "IS_SUBSTRING",
}
_VALUES = ("int_value", "long_value", "string_value", "timestamp_value", "int_values", "long_values", "string_values")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "EQUALS": lambda found, given: bool(found == given),
    "NOT_EQUALS": lambda found, given: bool(found != given),
    "GREATER_THAN": lambda found, given: bool(found > given),
    "GREATER_THAN_EQUALS": lambda found, given: bool(found >= given),
    "LESS_THAN": lambda found, given: bool(found < given),
    "LESS_THAN_EQUALS": lambda found, given: bool(found <= given),
    "IN": lambda found, given: found in given,
    "IS_SUBSTRING": lambda found, given: str(given).lower() in str(found).lower(),  # the database's LIKE
}


def page(items: Iterable[Plain], query: dict[str, str], key: str, fields: dict[str, str]) -> tuple[list[Plain], Plain]:
    """The items of a page, and the rest of the answer.

    Args:
        items: everything that the request may see.
        query: of the request.
        key: the items' identity, which breaks ties.
        fields: what may be filtered and sorted by: the API's name to the item's.
    """
    size = int(query.get("page_size") or 0)
    if size < 0:
        raise Refusal(INVALID, f"The page size should be greater than 0. Got {size}")
    size = min(size or 20, 200)
    criteria = {"filter": query.get("filter", ""), "sort_by": query.get("sort_by", "")}
    start = None
    if token := query.get("page_token", ""):
        start, criteria = _read_token(token, criteria)
    field, descending = _sorting(criteria["sort_by"], fields)
    found = [one for one in items if _fits(one, criteria["filter"], fields)]
    found.sort(key=lambda one: (one.get(field) or "", one[key]), reverse=descending)
    first = next((index for index, one in enumerate(found) if one[key] == start), 0) if start else 0
    shown, rest = found[first : first + size], found[first + size :]
    answer: Plain = {"total_size": len(found)} if found else {}
    if rest:
        answer["next_page_token"] = base64.b64encode(json.dumps([rest[0][key], criteria]).encode()).decode()
    return shown, answer


def _read_token(token: str, given: dict[str, str]) -> tuple[str, dict[str, str]]:
    try:
        start, criteria = json.loads(base64.b64decode(token, validate=True))
    except ValueError as error:
        raise Refusal(INVALID, "Invalid page token") from error
    if any(given.values()) and given != criteria:
        raise Refusal(
            INVALID,
            "page token does not match the supplied sort by and/or filtering criteria. Either specify the same "
            "criteria or leave the latter empty if page token is specified",
        )
    return start, criteria


def _sorting(text: str, fields: dict[str, str]) -> tuple[str, bool]:
    words = text.lower().split()
    if len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
        raise Refusal(INVALID, f'Received invalid sort by format "{text}".')
    if words and words[0] not in fields:
        raise Refusal(INVALID, f'Invalid sorting field: "{words[0]}"')
    return fields[words[0]] if words else "created_at", words[1:] == ["desc"]


def _fits(item: Plain, text: str, fields: dict[str, str]) -> bool:
    return all(_holds(item, one, fields) for one in _predicates(text))


def _predicates(text: str) -> list[Plain]:
    if not text:
        return []
    for name in _VALUES:  # what the server does for clients of the first API
        head, *tail = name.split("_")
        text = text.replace(f'"{head}{"".join(map(str.title, tail))}":', f'"{name}":')
    try:
        given = json.loads(unquote_plus(text))
    except ValueError as error:
        raise Refusal(INVALID, f"failed to parse valid filter from {text!r}") from error
    for one in given.get("predicates", []):
        one["operation"] = _OPERATIONS.get(one.get("operation"), one.get("operation"))
    wrong = contract().faults_of("v2beta1Filter", given)
    if wrong:
        raise Refusal(INVALID, f"failed to parse valid filter from {text!r}: {wrong[0]}")
    return list(given.get("predicates", []))


def _holds(item: Plain, predicate: Plain, fields: dict[str, str]) -> bool:
    key, operation = predicate.get("key", ""), predicate["operation"]
    if key not in fields:
        raise Refusal(INVALID, f'no support for filtering on unrecognized field "{key}"')
    name, value = next((name, predicate[name]) for name in _VALUES if name in predicate)
    if (operation == "IN") != name.endswith("_values"):
        raise Refusal(INVALID, f"cannot use operator {operation} on {name}")
    return _COMPARE[operation](item.get(fields[key]) or "", value["values"] if name.endswith("_values") else value)
