"""How the distribution of each column differs between the views ``before`` and ``after``.

Numbers and times fall into bins that each hold a twentieth of the earlier version, other values into the most frequent
ones of either version and one for the rest. What is missing has a bin of its own, so that it counts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from components.ingest.engine import identifier
from pipelines.data.distance import jensen_shannon, population_stability
from pipelines.data.model import Bin, ColumnChange, Kind, Profile

if TYPE_CHECKING:
    import duckdb

BINS, CATEGORIES = 20, 50
LONGEST = 80
"""Characters of a category that are shown."""

_EXACT = 100_000
"""Different values up to which all are counted, to find the most frequent."""

_AT_ONCE = 100
"""Columns that one scan looks at."""

_SIDES = ("before", "after")
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")


def changes(
    connection: "duckdb.DuckDBPyConnection", types: Mapping[str, tuple[str, str]], rows: tuple[int, int]
) -> tuple[ColumnChange, ...]:
    """Compare columns that both views have.

    Args:
        connection: with both views.
        types: DuckDB type of each column, before and after.
        rows: of both views.

    Returns:
        The most changed first; those that cannot be compared before all.
    """
    found: list[ColumnChange] = []
    names = list(types)
    for start in range(0, len(names), _AT_ONCE):
        chunk = {name: types[name] for name in names[start : start + _AT_ONCE]}
        found += _chunk(connection, chunk, rows)
    return tuple(sorted(found, key=lambda change: -math.inf if change.distance is None else -change.distance))


def kind_of(type_: str) -> Kind:
    """How the distribution of a DuckDB type is told."""
    plain = type_.removeprefix("U")
    if plain.endswith("]") or plain.startswith(("STRUCT", "MAP")):
        return "category"
    if plain.startswith(_NUMBERS):
        return "number"
    return "time" if plain.startswith(("DATE", "TIMESTAMP")) else "category"


def _chunk(
    connection: "duckdb.DuckDBPyConnection", types: Mapping[str, tuple[str, str]], rows: tuple[int, int]
) -> Iterator[ColumnChange]:
    kinds = {name: tuple(kind_of(type_) for type_ in both) for name, both in types.items()}
    sides = [
        _Profiles(connection, side, {name: pair[index] for name, pair in kinds.items()})
        for index, side in enumerate(_SIDES)
    ]
    alike = [name for name, (old, new) in kinds.items() if old == new]
    edges = {name: sides[0].edges[name] or sides[1].edges[name] for name in alike if kinds[name][0] != "category"}
    counted = [
        _histograms(connection, side, {name: (kinds[name][0], edges[name]) for name in edges}) for side in _SIDES
    ]
    for name, (_, type_) in types.items():
        bins: tuple[Bin, ...] = ()
        if name in edges:
            bins = _ranges(kinds[name][1], edges[name], [side[name] for side in counted], rows)
        elif name in alike:
            bins = _categories(connection, name, sides[1].profile(name, rows[1]).distinct, rows)
        pairs = [bin_.before for bin_ in bins], [bin_.after for bin_ in bins]
        comparable = bool(bins) and all(sum(shares) > 0 for shares in pairs)
        yield ColumnChange(
            name=name,
            type=type_,
            kind=kinds[name][1],
            distance=round(jensen_shannon(*pairs), 6) if comparable else None,
            psi=round(population_stability(*pairs), 6) if comparable else None,
            before=sides[0].profile(name, rows[0]),
            after=sides[1].profile(name, rows[1]),
            bins=bins,
        )


class _Profiles:
    """Aggregates of many columns of one view, from one scan."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection", view: str, kinds: Mapping[str, Kind]) -> None:
        steps = [index / BINS for index in range(BINS + 1)]
        selects = []
        for name, kind in kinds.items():
            selects += [f"count({identifier(name)})", f"approx_count_distinct({identifier(name)})"]
            if kind == "category":
                selects += ["NULL", "NULL", "NULL", "NULL"]
                continue
            number = _number(name, kind)
            finite = f"FILTER (isfinite({number}))"
            selects += [f"avg({number}) {finite}", f"min({number}) {finite}", f"max({number}) {finite}"]
            selects.append(f"approx_quantile({number}, {steps}) {finite}")
        (row,) = connection.execute(f"SELECT {', '.join(selects)} FROM {view}").fetchall()
        self._kinds = kinds
        self._found = {name: row[6 * index : 6 * index + 6] for index, name in enumerate(kinds)}
        self.edges = {name: self._edges(name) for name in kinds}

    def _edges(self, name: str) -> list[float]:
        """The upper bounds of the bins, rising: what several quantiles share is one bin."""
        *_, low, high, quantiles = self._found[name]
        return sorted({low, *quantiles[1:-1], high}) if quantiles else []

    def profile(self, name: str, rows: int) -> Profile:
        count, distinct, mean, low, high, quantiles = self._found[name]
        shown: tuple[float | str, ...] = ()
        if quantiles:
            quarter = BINS // 4
            shown = (low, *(quantiles[quarter * index] for index in (1, 2, 3)), high)
        if self._kinds[name] == "time":
            mean, shown = None, tuple(_iso(float(value)) for value in shown)
        return Profile(
            missing=1 - count / rows if rows else 0.0, distinct=min(distinct, count), mean=mean, quantiles=shown
        )


def _histograms(
    connection: "duckdb.DuckDBPyConnection", view: str, columns: Mapping[str, tuple[Kind, Sequence[float]]]
) -> dict[str, tuple[dict[float, int], int, int]]:
    """By column: the count of each bin by its upper bound, of values that are not finite, and of missing ones."""
    if not columns:
        return {}
    selects = []
    for name, (kind, edges) in columns.items():
        number = _number(name, kind)
        bounds = "[" + ", ".join(repr(edge) for edge in edges) + "]::DOUBLE[]"
        selects.append(f"histogram({number}, {bounds}) FILTER (isfinite({number}))")
        selects.append(f"count({number}) FILTER (NOT isfinite({number}))")
        selects.append(f"count(*) - count({number})")
    (row,) = connection.execute(f"SELECT {', '.join(selects)} FROM {view}").fetchall()
    return {name: (row[3 * i] or {}, row[3 * i + 1], row[3 * i + 2]) for i, name in enumerate(columns)}


def _ranges(
    kind: Kind,
    edges: Sequence[float],
    counted: Sequence[tuple[Mapping[float, int], int, int]],
    rows: tuple[int, int],
) -> tuple[Bin, ...]:
    label = _iso if kind == "time" else (lambda value: f"{value:.6g}")
    made = []
    for edge in (*edges, math.inf):
        shares = (_share(side[0].get(edge, 0), total) for side, total in zip(counted, rows, strict=True))
        before, after = shares
        name = f"above {label(edges[-1])}" if edge == math.inf and edges else f"to {label(edge)}" if edges else "any"
        made.append(Bin(label=name, upper=edge, before=before, after=after))
    for word, sides in (
        ("(not finite)", [other for _, other, _ in counted]),
        ("(missing)", [missing for *_, missing in counted]),
    ):
        if any(sides):
            before, after = (_share(count, total) for count, total in zip(sides, rows, strict=True))
            made.append(Bin(label=word, before=before, after=after))
    return tuple(made)


def _categories(
    connection: "duckdb.DuckDBPyConnection", name: str, distinct: int, rows: tuple[int, int]
) -> tuple[Bin, ...]:
    """The most frequent values of either version; which they are is estimated where there are very many."""
    texts = {side: f"(SELECT {identifier(name)}::VARCHAR AS v FROM {side})" for side in _SIDES}
    if distinct > _EXACT:
        top = [f"SELECT unnest(approx_top_k(v, {CATEGORIES})) AS v FROM {text}" for text in texts.values()]
    else:
        grouped = "SELECT v FROM {} WHERE v IS NOT NULL GROUP BY v ORDER BY count(*) DESC, v LIMIT {}"
        top = [f"({grouped.format(text, CATEGORIES)})" for text in texts.values()]
    connection.execute(f"CREATE OR REPLACE TEMP TABLE frequent AS {' UNION '.join(top)}")
    counts: dict[tuple[str, str | None], list[int]] = {}
    for index, text in enumerate(texts.values()):
        found = connection.execute(
            "SELECT CASE WHEN s.v IS NULL THEN 'missing' WHEN f.v IS NULL THEN 'others' ELSE 'value' END, f.v, "
            "count(*) "
            f"FROM {text} s LEFT JOIN frequent f ON s.v = f.v GROUP BY ALL"
        ).fetchall()
        for what, value, count in found:
            counts.setdefault((what, value), [0, 0])[index] = int(count)
    values = sorted((key for key in counts if key[0] == "value"), key=lambda key: (-sum(counts[key]), str(key[1])))
    rest = [key for key in (("others", None), ("missing", None)) if key in counts]
    return tuple(
        Bin(
            label=_cut(value) if what == "value" else f"({what})",
            before=_share(counts[what, value][0], rows[0]),
            after=_share(counts[what, value][1], rows[1]),
        )
        for what, value in (*values, *rest)
    )


def _number(name: str, kind: Kind) -> str:
    return f"epoch({identifier(name)})::DOUBLE" if kind == "time" else f"{identifier(name)}::DOUBLE"


def _share(count: int, rows: int) -> float:
    return count / rows if rows else 0.0


def _iso(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.6g} s"


def _cut(text: Any) -> str:
    shown = str(text)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
