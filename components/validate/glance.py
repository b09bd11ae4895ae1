"""A look at rows from all over a snapshot: which meanings and counts are worth a scan of everything.

What a glance says is never exact and never decides over a row; it is the same again for the same snapshot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.features import parsing
from components.features.schema import BLANK
from components.ingest.engine import ROW, identifier, literal
from components.ingest.personal import across
from components.validate.compiled import ALIAS, of_columns
from components.validate.contract import Type

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir

ROWS = 16_384
_CELLS = 2_000_000
_FEWEST = 200
_TEXTS = 1_000

_OTHERS: tuple[Type, ...] = ("number", "timestamp", "boolean")
"""What texts may mean."""

_AT_ONCE = 50
"""Texts that one query looks at: what it takes grows faster than their number."""

_LARGE = 1e100
"""Larger numbers are left out of correlations, which square them."""


@dataclass(frozen=True)
class Seen:
    """A column in the rows looked at.

    Attributes:
        present: values that are not null (or blank).
        distinct: different ones among them.
        spaced: texts with a space inside.
        shares: of texts, which share reads as each other type.
        trend: how numbers and times correlate with the order of the rows, from -1 to 1.
    """

    present: int
    distinct: int
    spaced: int = 0
    shares: Mapping[Type, float] = field(default_factory=dict)
    trend: float = 0.0

    @property
    def all_differ(self) -> bool:
        """Whether no value occurred twice."""
        return self.distinct == self.present


def glance(connection: "duckdb.DuckDBPyConnection", table: "ir.Table", parts: Sequence[Path]) -> dict[str, Seen]:
    """Look at rows from all over the parts.

    Args:
        connection: where the query runs.
        table: the snapshot, for the types of its columns.
        parts: its Parquet files.
    """
    kinds = {name: table[name].type() for name in table.columns if name != ROW}
    rows = min(ROWS, max(_FEWEST, _CELLS // len(kinds)))
    query = across(connection, parts, rows)
    plain = ", ".join(identifier(name) for name, kind in kinds.items() if not _is_nested(kind))
    found = connection.execute(f"SELECT {plain} FROM ({query})").fetchnumpy() if plain else {}
    shares = _shares(connection, table, query, [name for name, kind in kinds.items() if kind.is_string()])
    return {name: _seen(found[name], shares.get(name)) if name in found else Seen(rows, 0) for name in kinds}


def _seen(values: Any, read_as: Mapping[Type, int] | None) -> Seen:
    """Count in memory: a query with thousands of distinct aggregates takes gigabytes."""
    import numpy as np

    rows = np.arange(len(values))
    if isinstance(values, np.ma.MaskedArray):
        rows, values = rows[~np.ma.getmaskarray(values)], values.compressed()
    if read_as is not None:
        texts = [text for value in values if (text := value.strip(BLANK))]
        shares = {kind: count / max(len(texts), 1) for kind, count in read_as.items()}
        return Seen(len(texts), len(set(texts)), sum(" " in text for text in texts), shares)
    if values.dtype == object:
        return Seen(len(values), len(set(map(str, values))))
    return Seen(len(values), len(np.unique(values)), trend=_trend(values, rows))


def _trend(values: Any, rows: Any) -> float:
    import numpy as np

    numbers = values.astype("float64")
    usable = np.abs(numbers) < _LARGE
    numbers, rows = numbers[usable], rows[usable]
    if len(numbers) < 2 or numbers.min() == numbers.max():
        return 0.0
    return float(np.corrcoef(numbers, rows)[0, 1])


def _shares(
    connection: "duckdb.DuckDBPyConnection", table: "ir.Table", query: str, texts: Sequence[str]
) -> dict[str, dict[Type, int]]:
    """How many texts of each column read as each other type."""
    readings = {kind: of_columns(table, dict.fromkeys(texts, kind), _read_as) for kind in _OTHERS}
    shares: dict[str, dict[Type, int]] = {}
    for start in range(0, len(texts), _AT_ONCE):
        batch = [(name, kind) for name in texts[start : start + _AT_ONCE] for kind in _OTHERS]
        counts = ", ".join(f"count_if({readings[kind][name]})" for name, kind in batch)
        found = connection.execute(f"SELECT {counts} FROM ({query}) AS {ALIAS}").fetchall()[0]
        for (name, kind), count in zip(batch, found, strict=True):
            shares.setdefault(name, {})[kind] = count
    return shares


def _is_nested(kind: "dt.DataType") -> bool:
    return bool(kind.is_nested() or kind.is_json() or kind.is_binary())


def sample_texts(
    connection: "duckdb.DuckDBPyConnection", parts: Sequence[Path], names: Sequence[str]
) -> dict[str, list[str]]:
    """Different texts of columns, some hundreds of each, from all over the parts."""
    if not names:
        return {}
    texts = ", ".join(f"nullif(trim({identifier(name)}, {literal(BLANK)}), '')" for name in names)
    query = f"SELECT {texts} FROM ({across(connection, parts, min(_TEXTS, max(_FEWEST, _CELLS // len(names))))})"
    columns = zip(*connection.execute(query).fetchall(), strict=True)
    return {name: list(set(values) - {None}) for name, values in zip(names, columns, strict=True)}


def _read_as(value: "ir.Value", kind: Type) -> "ir.Value":
    """Whether a text reads as another type."""
    if kind == "number":
        padded = value.strip().re_search(r"^[+-]?0[0-9]")  # codes such as 00123 are no numbers
        return value.strip().try_cast("float64").notnull() & ~padded
    return (parsing.timestamp(value) if kind == "timestamp" else parsing.boolean(value)).notnull()
