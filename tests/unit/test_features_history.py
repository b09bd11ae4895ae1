"""Windows and point-in-time joins equal what a naive loop computes, and never see the future."""

import datetime
import math
import os
import statistics
from functools import lru_cache
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.features.engines.duckdb import DuckDB
from components.features.history import Events, attached, pieces
from components.features.spec import FeatureSpec
from components.features.tables import columns_of
from components.ingest.engine import ROW, sql, table

ROWS = pa.schema(
    [(ROW, pa.int64()), ("user", pa.int64()), ("shop", pa.string()), ("ts", pa.timestamp("us")), ("x", pa.float64())]
)
ORDERS = pa.schema(
    [
        ("buyer", pa.string()),
        ("at", pa.float64()),
        ("amount", pa.float64()),
        ("status", pa.string()),
        ("tier", pa.string()),
    ]
)
SPEC = """
key: [user]
time: ts
tables:
  orders: {entity: {buyer: user}, time: {column: at, unit: milliseconds}}
windows:
  n: {value: count(), within: 3 seconds}
  n_x: {value: count(x), within: 3 seconds}
  sum_x: {value: sum(x), within: 3 seconds}
  mean_x: {value: mean(x)}
  std_x: {value: std(x), within: 5 seconds}
  last_x: {value: last(x), within: 3 seconds}
  shop_max: {value: max(x), entity: [user, shop]}
  paid: {table: orders, value: count(), within: 3 seconds, where: status == "paid"}
  least: {table: orders, value: min(amount * 2), within: 3 seconds}
  last_status: {table: orders, value: last(status)}
joins:
  tier: {table: orders, column: tier}
  fresh: {table: orders, column: amount, within: 2 seconds}
"""
EXAMPLES = int(os.environ.get("SLUICEWAY_TEST_HISTORIES", "12"))
"""Random tables; `SLUICEWAY_TEST_HISTORIES=1000` is the thorough run."""

NOBODY = (None, None, None, None, None)
START = datetime.datetime(1970, 1, 1)

values = st.none() | st.sampled_from([0.0, -1.0, 2.5, 1e6]) | st.floats(-1e6, 1e6)
moments = st.none() | st.integers(0, 8_000).map(lambda ms: ms // 500 * 500)
rows = st.lists(
    st.tuples(
        st.none() | st.integers(1, 3), st.none() | st.sampled_from(["a", "b", " "]), moments, values | st.just(math.inf)
    ),
    min_size=1,
    max_size=14,
)
orders = st.lists(
    st.tuples(
        st.none() | st.sampled_from(["1", "2", "", "x"]),
        moments,
        values,
        st.sampled_from(["paid", "open", None]),
        st.none() | st.sampled_from(["gold", "é"]),
    ),
    min_size=1,
    max_size=14,
)


@lru_cache
def plan() -> tuple[tuple[tuple[str, str], ...], str, tuple[str, ...]]:
    """The SQL of every piece by name, of the rows with what is joined, and the features' names; compiled once."""
    spec = FeatureSpec.loads(SPEC)
    with duckdb.connect() as connection:
        connection.register("rows", ROWS.empty_table())
        connection.register("orders", ORDERS.empty_table())
        source, other = table(connection, "rows"), table(connection, "orders")
        assert spec.time is not None
        events = Events(source, columns_of(source), spec.time)
        past = pieces(spec, events, {"orders": Events(other, columns_of(other), spec.tables["orders"].time)})
        engine = DuckDB(connection)
        kept = {piece.name: engine.keep(piece.name, piece.expression) for piece in past}
    names = tuple(feature.name for piece in past for feature in piece.features)
    whole = attached(source, past, kept).order_by(ROW).select(*names)
    return tuple((piece.name, sql(piece.expression)) for piece in past), sql(whole), names


def computed(given_rows: list[Any], given_orders: list[Any]) -> list[dict[str, Any]]:
    """The features by row, in the order of the rows given."""
    past, whole, names = plan()
    numbered = [
        (number, user, shop, None if at is None else START + datetime.timedelta(milliseconds=at), x)
        for number, (user, shop, at, x) in enumerate(given_rows)
    ]
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, schema, rows in (("rows", ROWS, numbered), ("orders", ORDERS, given_orders)):
            listed = [dict(zip(schema.names, row, strict=True)) for row in rows]
            connection.register(name, pa.Table.from_pylist(listed, schema))
        for name, query in past:
            connection.execute(f"CREATE TEMP TABLE {name} AS {query}")
        return [dict(zip(names, row, strict=True)) for row in connection.execute(whole).fetchall()]


def naive(given_rows: list[Any], given_orders: list[Any]) -> list[dict[str, Any]]:
    def finite(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    def earlier(mine: Any, at: int | None, events: list[Any], within: int | None) -> list[Any]:
        if mine is None or at is None:
            return []
        return [
            event
            for entity, when, event in events
            if entity == mine and when is not None and when < at and (within is None or at - when <= within)
        ]

    def newest(mine: Any, at: int | None, events: list[Any], within: int | None, *, before: bool) -> Any:
        if mine is None or at is None:
            return None
        known = [(when, value) for entity, when, value in events if entity == mine and when is not None]
        known = [(when, value) for when, value in known if (when < at if before else when <= at)]
        if before:
            known = [(when, value) for when, value in known if value is not None]
        if not known:
            return None
        last = max(when for when, _ in known)
        ties = [value for when, value in known if when == last and value is not None]
        return max(ties) if ties and (within is None or at - last <= within) else None

    own = [(user, at, finite(x)) for user, _, at, x in given_rows]
    shops = [
        ((user, shop) if user is not None and shop and shop.strip() else None, at, finite(x))
        for user, shop, at, x in given_rows
    ]
    by = [(buyer if buyer and buyer.strip() else None, *rest) for buyer, *rest in given_orders]
    paid = [(buyer, at, status == "paid") for buyer, at, _, status, _ in by]
    amounts = [(buyer, at, amount) for buyer, at, amount, _, _ in by]
    found = []
    for place, (user, _, at, _) in enumerate(given_rows):
        buyer = None if user is None else str(user)
        near, ever = earlier(user, at, own, 3000), [x for x in earlier(user, at, own, None) if x is not None]
        known = [x for x in near if x is not None]
        spread = [x for x in earlier(user, at, own, 5000) if x is not None]
        shop = [x for x in earlier(shops[place][0], at, shops, None) if x is not None]
        spent = [x * 2 for x in earlier(buyer, at, amounts, 3000) if x is not None]
        found.append(
            {
                "n": float(len(near)),
                "n_x": float(len(known)),
                "sum_x": math.fsum(known) if known else None,
                "mean_x": math.fsum(ever) / len(ever) if ever else None,
                "std_x": statistics.stdev(spread) if len(spread) > 1 else None,
                "last_x": newest(user, at, own, 3000, before=True),
                "shop_max": max(shop) if shop else None,
                "paid": float(sum(earlier(buyer, at, paid, 3000))),
                "least": min(spent) if spent else None,
                "last_status": newest(buyer, at, [(b, w, s) for b, w, _, s, _ in by], None, before=True),
                "tier": newest(buyer, at, [(b, w, t) for b, w, _, _, t in by], None, before=False),
                "fresh": newest(buyer, at, amounts, 2000, before=False),
            }
        )
    return found


def assert_same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    for place, (mine, theirs) in enumerate(zip(one, other, strict=True)):
        for name, value in mine.items():
            wanted = theirs[name]
            if isinstance(value, float) and isinstance(wanted, float):
                assert value == pytest.approx(wanted, rel=1e-9, abs=1e-3 if name == "std_x" else 1e-6), (place, name)
            else:
                assert value == wanted, (place, name)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows, orders)
def test_features_of_the_past_equal_a_naive_computation(given_rows, given_orders):
    assert_same(computed(given_rows, given_orders), naive(given_rows, given_orders))


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows, orders, st.data())
def test_neither_the_order_of_rows_nor_the_future_changes_a_feature(given_rows, given_orders, data):
    before = computed(given_rows, given_orders)
    now = data.draw(st.integers(0, 8_000))
    places = data.draw(st.permutations(range(len(given_rows))))
    new_rows = data.draw(st.lists(st.tuples(st.integers(1, 3), st.just("a"), st.integers(now, 9_000), values)))
    later = st.tuples(st.just("1"), st.integers(now + 1, 9_000), values, st.just("paid"), st.just("new"))
    shuffled = [given_rows[place] for place in places]
    changed = [  # what lies in the future has other values, and there is more of it
        (user, shop, at, 77.0 if at is not None and at >= now else x) for user, shop, at, x in shuffled
    ]
    kept_orders = [order for order in given_orders if order[1] is None or order[1] <= now]
    after = computed(
        changed + new_rows, data.draw(st.permutations(kept_orders)) + data.draw(st.lists(later)) or [NOBODY]
    )
    for place, row in zip(places, after, strict=False):
        at = given_rows[place][2]
        if at is None or at <= now:
            assert_same([row], [before[place]])
