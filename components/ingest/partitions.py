"""Columns that are made of folder names, as in ``year=2026/month=07/part.csv``."""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import PurePosixPath
from urllib.parse import unquote

from components.errors import BadInput
from components.ingest.options import ReadOptions

NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark name the folder of rows whose value is missing."""


def types(names: Sequence[str], options: ReadOptions) -> dict[str, str]:
    """DuckDB types of the columns, in the order of the folders; whole numbers, dates or text.

    All files of the source are looked at, so that a folder's type does not depend on which others are read with it.

    Args:
        names: of the files, relative to the source.
        options: whose types come first.

    Raises:
        BadInput: not all files lie in folders of the same columns.
    """
    keys = _keys(names[0]) if names else ()
    values: dict[str, set[str]] = {key: set() for key in keys}
    for name in names:
        if _keys(name) != keys:
            one, other = ("/".join(_keys(path)) or "no such folder" for path in (names[0], name))
            raise BadInput(
                f"{names[0]} and {name} lie in folders of different columns ({one}; {other}); lay them out alike, or "
                "narrow the source."
            )
        for part in _folders(name):
            key, _, value = part.partition("=")
            values[key].add(value)
    return {key: options.types.get(key) or _type({unquote(value) for value in found}) for key, found in values.items()}


def check(partitions: Mapping[str, str], names: Sequence[str], where: str) -> None:
    """Refuse a file that has a column which its folder says, too.

    Raises:
        BadInput: it has.
    """
    known = {name.casefold(): name for name in partitions}
    for name in names:
        if name.casefold() in known:
            raise BadInput(
                f"{where}: column {name!r} is in the file, and its folder {known[name.casefold()]}=… says it again; "
                "rename one of them."
            )


def _type(values: set[str]) -> str:
    known = values - {NULL}
    if known and all(re.fullmatch(r"-?[0-9]{1,18}", value) for value in known):
        return "BIGINT"
    if known and all(_is_date(value) for value in known):
        return "DATE"
    return "VARCHAR"


def _is_date(value: str) -> bool:
    try:
        return bool(re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value)) and bool(date.fromisoformat(value))
    except ValueError:
        return False


def _keys(name: str) -> tuple[str, ...]:
    return tuple(part.partition("=")[0] for part in _folders(name))


def _folders(name: str) -> list[str]:
    return [part for part in PurePosixPath(name).parts[:-1] if "=" in part]
