"""Features on Spark are those on DuckDB: function by function over odd values, and whole feature sets."""

import datetime
import itertools
import math
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

from components.errors import BadInput, Unreachable
from components.features import parsing
from components.features.engines import open_engine
from components.features.functions import FUNCTIONS
from components.features.language import compile_expression
from components.features.run import run
from components.features.schema import SPLITS
from components.ingest.engine import ROW
from components.ingest.run import run as ingest
from components.validate import run as validation
from tests.no_report import NoReport
from tests.spark import spark

NAN, INF = math.nan, math.inf
NUMBERS = [
    *(None, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, NAN, INF, -INF, 1e308, -1e308, 1e-5, 1e-4, 123456.789),
    *(1e7, 1e15, 1e16, 123456789012345678.0, 1e23, 0.1, 1 / 3, 2.0**53, 4.5e15, 29.85, 2.0**-44, 9.9e-5, 709.5, -8.0),
]
TEXTS = [
    *(
        None,
        "",
        " ",
        "\t\n x \v\f",
        "abc",
        "Äß",
        "ß",
        "İstanbul",
        "\u017f",
        "ŉ",
        "ΣΑΣ",
        "Ǆ",
        "😀a",
        "e\u0301",
        "é",
        "\u00a0x",
    ),
    *(
        "1",
        "+1",
        "-1",
        " 12 ",
        "1_000",
        "1__0",
        "1.5e3",
        "1e400",
        "-1e400",
        "inf",
        "nan",
        "Infinity",
        "1d",
        "1f",
        "0x1",
    ),
    *(
        "1.",
        ".",
        " .5",
        "1.12345678_9",
        "1.1234567_8",
        "+-3",
        "--3",
        "true",
        " TRUE ",
        "False",
        "t",
        "1,5",
        "a'b\\c\n",
        "٣",
    ),
]
TIMES = [
    *(None, "2024-02-29", "2023-02-29", "2024-2-9", "2024/02/29", "2024-02/29", "2024\\01\\05", "12024-01-05", "2024"),
    *("2024-02-29 12:30", "2024-02-29T12:30:15.123456789Z", "2024-02-29 12:30:15+02", "2024-02-29 12:30:15-02:30:15"),
    *("2024-02-29 24:00:00", "2024-02-29 24:00:01", "2024-01-01 10:", "2024-01-01 10:60", "2024-13-01", "2024-01-01x"),
    *(
        "0001-01-01",
        "0000-01-01",
        "-0001-01-01",
        "0044-03-15 (BC)",
        "1500-03-01",
        "1582-10-10",
        "9999-12-31 23:59:59.9",
    ),
    *("290000-01-01", "300000-01-01", "epoch", " Infinity", "-inf", "2024-01-01 10:00 UTC", "2024-01-01 10:00:00 GMT"),
]
EXPRESSIONS = (
    *("log(a)", "log1p(a)", "exp(a)", "sqrt(a)", "abs(a)", "floor(a)", "ceil(a)", "round(a)", "round(a, b)", "-a"),
    *("clip(a, b, 1)", "min(a, b)", "max(a, b)", "coalesce(a, b)", "nullif(a, b)", "is_missing(a)", "number(s)"),
    *("a + b", "a - b", "a * b", "a / b", "a % b", "a ** b", "a // b", "a + 0.1", "1e308 * a", "a <= b", "a == b"),
    *("length(s)", "lower(s)", "upper(s)", "strip(s)", "contains(s, u)", "startswith(s, u)", "endswith(s, u)", "s + u"),
    *("s < u", "s in ('x', '1')", 's == "a\'b\\\\c\\n"', "not ok", "ok and a > b", "ok or a < b", "a if ok else b"),
    *("year(t)", "month(t)", "day(t)", "weekday(t)", "hour(t)", "minute(t)", "t < '2020-01-01'"),
)


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Spark for all tests, and its address for Spark Connect."""
    with spark(tmp_path_factory.mktemp("spark")) as address:
        yield address


def test_an_engine_that_there_is_not_is_named_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"no engine 'spork'; use duckdb, local\[N\], spark://"):
        open_engine("spork", {}, tmp_path)
    with (
        pytest.raises(Unreachable, match=r"Nobody listens at sc://127\.0\.0\.1:1 "),
        open_engine("sc://127.0.0.1:1", {}, tmp_path),
    ):
        pass
    with (
        pytest.raises(BadInput, match="spark is wrong at cores: Extra"),
        open_engine("local[1]", {"cores": 1}, tmp_path),
    ):
        pass
    with (
        monkeypatch.context() as patch,
        pytest.raises(BadInput, match="Spark needs Java 17 or newer and there is none"),
    ):
        patch.setenv("JAVA_HOME", str(tmp_path))
        with open_engine("local[1]", {}, tmp_path):
            pass
    monkeypatch.setattr("components.features.spark.session.find_spec", lambda _: None)
    with pytest.raises(BadInput, match="Spark is not installed here"), open_engine("local[1]", {}, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def odd_values(file: Path) -> None:
    """A table of all pairs of odd numbers, beside odd texts and times."""
    pairs = list(itertools.product(NUMBERS, NUMBERS))
    drawn = random.Random(1)
    bits = [struct.unpack("d", drawn.getrandbits(64).to_bytes(8, "little"))[0] for _ in pairs]
    table = {
        ROW: pa.array(range(len(pairs))),
        "a": pa.array([a for a, _ in pairs], pa.float64()),
        "b": pa.array([b for _, b in pairs], pa.float64()),
        "r": pa.array([drawn.choice([round(drawn.uniform(-1e5, 1e5), 2), drawn.random(), bit]) for bit in bits]),
        "s": [TEXTS[i % len(TEXTS)] for i in range(len(pairs))],
        "u": [TEXTS[i * 7 % len(TEXTS)] for i in range(len(pairs))],
        "w": [TIMES[i % len(TIMES)] for i in range(len(pairs))],
        "ok": [(None, True, False)[i % 3] for i in range(len(pairs))],
    }
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("given", pa.table(table))
        moments = "TRY_CAST(w AS TIMESTAMPTZ)::TIMESTAMP AS t, TRY_CAST(w AS TIMESTAMPTZ) AS z"
        connection.execute(f"COPY (SELECT *, {moments} FROM given) TO '{file}' (FORMAT parquet)")


def test_every_function_gives_on_spark_what_it_gives_on_duckdb(connect: str, tmp_path: Path) -> None:
    from components.features.engines.duckdb import open_duckdb
    from components.features.engines.spark import open_spark

    missing = set(FUNCTIONS) - {name for text in EXPRESSIONS for name in FUNCTIONS if f"{name}(" in text}
    assert not missing, "give them an expression"
    file = tmp_path / "odd.parquet"
    odd_values(file)
    found: list[dict[str, Any]] = []
    for opened in (open_duckdb(tmp_path), open_spark("local[2]", {}, tmp_path)):
        with opened as engine:
            table = engine.read("odd", [file])
            values = {name: table[name] for name in table.columns}
            asked = {text: compile_expression(text, values, "x") for text in EXPRESSIONS}
            asked |= {
                "as a number": parsing.number(table.s),
                "as a text": parsing.text(table.s),
                "as a truth": parsing.boolean(table.s),
                "a number as a truth": parsing.boolean(table.a),
                "finite": parsing.finite(table.a),
                "as a time": parsing.timestamp(table.w).cast("string"),
                "year of a text": parsing.timestamp(table.w).year(),
                "with a zone": parsing.timestamp(table.z).cast("string"),
                "md5": table.s.hexdigest("md5").left(8),
                "a number's text": parsing.finite(table.r).cast("string"),
                "a time's text": table.t.cast("string"),
                "a truth's text": table.ok.cast("string"),
                "a whole number": table.r.try_cast("int64").cast("string"),
            }
            results: dict[str, Any] = {}
            names = list(asked)
            for start in range(0, len(names), 16):
                part = {f"x{i}": asked[names[i]] for i in range(start, min(start + 16, len(names)))}
                for row in engine.rows(table.select(ROW, **part)):
                    for key in part:
                        results[names[int(key[1:])], row[ROW]] = row[key]
            found.append(results)
    mine, sparks = found
    assert mine.keys() == sparks.keys()
    differ = {key: (mine[key], sparks[key]) for key in mine if not alike(mine[key], sparks[key])}
    assert not differ, list(differ.items())[:5]


class Checked:
    """A source that was ingested and validated."""

    def __init__(self, folder: Path, table: pa.Table, target: str) -> None:
        self.folder, self.target = folder, target
        folder.mkdir(parents=True)
        with duckdb.connect() as connection:
            connection.register("given", table)
            connection.execute(f"COPY given TO '{folder / 'data.parquet'}' (FORMAT parquet)")
        ingest(str(folder / "data.parquet"), "", {}, folder / "s")
        outputs = [folder / "q", folder / "c", folder / "r.html"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLUICEWAY_HOME", str(folder / "home"))
            patch.delenv("SLUICEWAY_STORE", raising=False)
            patch.setattr(validation, "Reporter", NoReport)
            validation.run(folder / "s", "d", target, 0.5, "", *outputs)

    def features(self, engine: str, spec: str = "", **changes: Any) -> Path:
        """The feature set that an engine makes of it."""
        out = self.folder / "".join(filter(str.isalnum, engine))
        given: dict[str, Any] = {"task": "auto", "split_key": "", "split_seed": 0} | changes
        inputs = [self.folder / name for name in "sqc"]
        run(*inputs, target=self.target, feature_spec=spec, out=out, engine=engine, **given)
        return out

    def is_the_same_on(self, engine: str, spec: str = "", **changes: Any) -> None:
        """Both feature sets have the same rows in the same order, the same types and the same description."""
        same(self.features("duckdb", spec, **changes), self.features(engine, spec, **changes))


def same(mine: Path, other: Path) -> None:
    """Two feature sets have the same rows in the same order, the same types and the same description."""
    assert sorted(path.name for path in mine.iterdir()) == sorted(path.name for path in other.iterdir())
    for split in SPLITS:
        one, two = (duckdb.sql(f"FROM '{folder / split}.parquet'") for folder in (mine, other))
        assert (one.columns, one.types) == (two.columns, two.types)
        for row, again in zip(one.fetchall(), two.fetchall(), strict=True):
            assert all(map(alike, row, again)), (split, row, again)
    assert (mine / "features.json").read_text() == (other / "features.json").read_text()


def alike(one: Any, other: Any) -> bool:
    """Whether two values are equal, doubles to 12 digits and NaN to itself."""
    if isinstance(one, float) and isinstance(other, float):
        return (one != one and other != other) or math.isclose(one, other, rel_tol=1e-12, abs_tol=0.0)
    return bool(one == other)


ROW_WISE = """
derive:
  ratio: amount / count
  rounded: round(amount, 1)
  long: length(name)
  loud: upper(strip(name)) + '!'
  late: hour(at) >= 12 or weekday(at) > 4
  era: year(at) // 100
  mixed: coalesce(number(code), count) if is_missing(amount) else min(amount, count) ** 2
drop: [flag]
key: [user]
time: at
encodings:
  name_rate: {column: name, how: rate}
  name_count: {column: name, how: count}
  name_hash: {column: name, how: hash, buckets: 7}
"""
HISTORY = """
tables:
  orders: {entity: {who: user}, time: {column: seconds, unit: seconds}}
  states: {entity: [user], time: since}
windows:
  mean_before: {value: mean(amount)}
  spread: {value: std(amount), within: 900 days}
  before: {value: count(), within: 400 days, entity: name}
  last_name: {value: last(name)}
  of_account: {value: count(), entity: account}
  paid: {table: orders, value: sum(price), where: paid, within: 2000 days}
  dearest: {table: orders, value: max(price)}
  newest: {table: orders, value: last(price), within: 5000 days}
joins:
  tier: {table: states, column: tier}
  limit: {table: states, column: limit, within: 1000 days}
"""
BY_TIME = "split: {by: time, gap: 20 days}\n"


def histories(folder: Path, drawn: random.Random) -> dict[str, Any]:
    """Tables beside the rows: what their users bought, and what held of them since when; some moments are shared."""
    moments = [
        datetime.datetime(1970, 1, 1) + datetime.timedelta(days=drawn.randint(12_000, 20_000)) for _ in range(40)
    ]
    bought = range(150)
    orders = {
        "who": [str(drawn.randint(0, 30)) for _ in bought],
        "seconds": [int((drawn.choice(moments) - datetime.datetime(1970, 1, 1)).total_seconds()) for _ in bought],
        "price": [drawn.choice([None, NAN, 1e308, -2.5, round(drawn.uniform(0, 9), 3)]) for _ in bought],
        "paid": [drawn.choice([None, True, False]) for _ in bought],
    }
    held = range(80)
    states = {
        "user": [drawn.randint(0, 25) for _ in held],
        "since": [drawn.choice([None, *moments]) for _ in held],
        "tier": [drawn.choice([None, "gold", "silver", "Straße"]) for _ in held],
        "limit": [drawn.choice([None, 0.0, 1e300, drawn.random()]) for _ in held],
    }
    given = {}
    for name, columns in (("orders", orders), ("states", states)):
        with duckdb.connect() as connection:
            connection.register("given", pa.table(columns))
            connection.execute(f"COPY given TO '{folder / name}.parquet' (FORMAT parquet)")
        given[name] = {"source_uri": str(folder / f"{name}.parquet"), "read_options": {}, "version": ""}
    return given


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A table whose columns hold what real ones hold, and what they should not."""
    size = draw(st.integers(60, 120))
    drawn = random.Random(draw(st.integers(0, 2**32)))
    moment, day = datetime.datetime(1970, 1, 1), datetime.timedelta(days=1)
    odd = {
        "amount": [NAN, INF, -0.0, 1e308, -1e-300, 2.5, 1e17],
        "name": ["", " ", "Straße", "İ", "😀 smile", "a'b", "\u00a0", "e\u0301", "\t tab"],
        "code": ["12", " 7 ", "1e3", "x", "1_000", "-0", "0x1", "nan"],
        "at": [
            datetime.datetime(1, 1, 2),
            datetime.datetime(9999, 12, 31, 23, 59, 59),
            datetime.datetime(1500, 3, 1, 12),
        ],
    }
    plain = {
        "amount": lambda: round(drawn.gauss(50, 20), 2),
        "name": lambda: drawn.choice(["anna", "Bob", "Zoë"]),
        "code": lambda: str(drawn.randint(0, 99)),
        "at": lambda: (
            moment + drawn.randint(15_000, 20_000) * day + datetime.timedelta(seconds=drawn.randint(0, 86399))
        ),
    }
    share = draw(st.sampled_from([0.0, 0.2, 0.5]))
    columns: dict[str, Any] = {
        name: [
            None if drawn.random() < share / 2 else drawn.choice(odd[name]) if drawn.random() < share / 2 else make()
            for _ in range(size)
        ]
        for name, make in plain.items()
    }
    columns["count"] = [drawn.choice([None, 0, 3, -7, 2**40]) for _ in range(size)]
    columns["flag"] = [drawn.random() < 0.5 for _ in range(size)]
    columns["user"] = [drawn.randint(0, 12) for _ in range(size)]
    # Neighbours that are one double; DuckDB has them as unsigned numbers, Spark as decimals.
    columns["account"] = pa.array([2**63 + drawn.randint(0, 3) for _ in range(size)], pa.uint64())
    columns["label"] = [("no", "yes")[i % 2] for i in range(size)]
    return pa.table(columns)


RANDOM_TABLES = int(os.environ.get("SLUICEWAY_TEST_TABLES", "1"))


@pytest.mark.parametrize("more", [HISTORY + BY_TIME, ""], ids=["with a past, split by time", "row-wise, split by key"])
@pytest.mark.timeout(300 * RANDOM_TABLES)
@settings(
    max_examples=RANDOM_TABLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # a smaller example would take minutes to find
    suppress_health_check=list(HealthCheck),
)
@given(table=tables(), seed=st.integers(0, 3))
def test_random_tables_give_equal_feature_sets(
    connect: str, tmp_path_factory: pytest.TempPathFactory, more: str, table: pa.Table, seed: int
) -> None:
    checked = Checked(tmp_path_factory.mktemp("table") / "t", table, "label")
    given = histories(checked.folder, random.Random(seed))
    if more:
        rows = [one for one in table.to_pylist() if one["at"]]
        checked = Checked(checked.folder / "timed", pa.Table.from_pylist(rows, table.schema), "label")
    asked: dict[str, Any] = {"spec": ROW_WISE + more, "split_seed": seed, "feature_tables": given}
    try:
        mine = checked.features("duckdb", **asked)
    except BadInput:  # a table may be too odd to learn from
        reject()
    same(mine, checked.features("local[2]", **asked))


def test_a_time_in_a_named_zone_ends_the_job_with_a_sentence(connect: str, tmp_path: Path) -> None:
    from components.features.engines.spark import open_spark

    file = tmp_path / "times.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT '2024-01-01 10:00 Europe/Paris' AS w) TO '{file}' (FORMAT parquet)")
    message = r"^A time names the zone Europe/Paris: on Spark, times name UTC or an offset\.$"
    with pytest.raises(BadInput, match=message), open_spark("local[2]", {}, tmp_path) as engine:
        table = engine.read("times", [file])
        engine.rows(table.select(at=parsing.timestamp(table.w)))


def test_spark_connect_gives_the_same(connect: str, tmp_path: Path) -> None:
    rows = range(300)
    columns = {"x": [i * 0.37 for i in rows], "y": [f"c{i % 7}" for i in rows], "label": [i % 3 for i in rows]}
    Checked(tmp_path / "t", pa.table(columns), "label").is_the_same_on(
        connect, "derive: {z: x * 2 if y == 'c1' else 0}"
    )
