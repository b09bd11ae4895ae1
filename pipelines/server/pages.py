"""Lists of a KFP server: all their pages, and filters."""

import json
from collections.abc import Callable, Iterator
from typing import Any


def every(call: Callable[..., Any], name: str, **query: Any) -> Iterator[Any]:
    """Everything that a list call of kfp's client gives, page by page.

    Args:
        call: such as ``client.list_pipeline_versions``.
        name: the answer's field with the items, such as ``pipeline_versions``.
        query: the call's arguments.
    """
    token = ""
    while True:
        answer = call(**query, page_token=token)
        yield from getattr(answer, name) or []
        token = answer.next_page_token or ""
        if not token:
            return


def where(key: str, operation: str, value: str | list[str]) -> str:
    """A filter with one predicate.

    Args:
        key: the field's name in the API.
        operation: EQUALS, NOT_EQUALS, IN (with a list) or IS_SUBSTRING.
        value: to compare with.
    """
    given: dict[str, Any] = {"string_values": {"values": value}} if isinstance(value, list) else {"string_value": value}
    return json.dumps({"predicates": [{"key": key, "operation": operation} | given]})


def all_of(*filters: str) -> str:
    """A filter that wants all of these."""
    return json.dumps({"predicates": [one for given in filters for one in json.loads(given)["predicates"]]})
