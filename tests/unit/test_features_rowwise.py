"""Features derived row by row, without DuckDB, equal those that DuckDB derives."""

import os
import subprocess
import sys

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import BadInput
from components.features import scalars
from components.features.expressions import derive
from components.features.functions import FUNCTIONS
from components.features.rowwise import compile_rows
from components.features.schema import FeatureColumn, FeatureSchema, InputColumn

EXAMPLES = int(os.environ.get("SLUICEWAY_TEST_EXPRESSIONS", "60"))
"""Random schemas of five expressions each; `SLUICEWAY_TEST_EXPRESSIONS=20000` is the thorough run."""

INPUTS = (
    InputColumn(name="x", type="number"),
    InputColumn(name="y", type="number"),
    InputColumn(name="s", type="string"),
    InputColumn(name="u", type="string"),
    InputColumn(name="b", type="boolean"),
    InputColumn(name="c", type="boolean"),
    InputColumn(name="d", type="timestamp"),
    InputColumn(name="e", type="timestamp"),
)
KINDS = {"number": ("x", "y"), "text": ("s", "u"), "truth": ("b", "c"), "time": ("d", "e")}
ALIKE = ("coalesce", "nullif")

odd_numbers = [0.0, -0.0, 0.5, -0.5, 1.5, -2.5, 1e-320, 5e-324, 1e15, 2.0**52, -(2.0**53) + 1, 1e300, -1e308, 710.0]
numbers = st.one_of(
    st.sampled_from(odd_numbers), st.integers(-10, 10).map(float), st.floats(allow_nan=False, allow_infinity=False)
)
odd_texts = [
    "é",
    "e\u0301",
    "ß",
    "İ",
    "ΑΣ",
    "ŉﬁ",
    "ᾳ",
    "Ǆ",
    "💧",
    "a",
    "ab",
    "\x85",
    "\u2003",
    "a\x00b",
    " a\t",
    "\x1cb",
]
written = [
    " 12.5 ",
    "1_000",
    "1__0",
    "+-3",
    "-+3",
    ".5",
    "5.",
    "1e5",
    "1e400",
    "inf",
    "nan",
    "0x1f",
    "1e",
    "\uff11",
    "e5",
    "7_",
]
moments = [
    "2020-02-29",
    "2020-02-30",
    "2001-02-03 04:05:06",
    "2001-02-03T04:05:06.123456789Z",
    "2001-02-03 04:05+02:30",
]
texts = st.one_of(
    st.sampled_from(odd_texts + written + moments),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(str.strip),
    st.floats().map(str),
    st.datetimes().map(str),
)
times = st.one_of(
    st.datetimes().map(lambda moment: np.datetime64(moment, "us")),
    st.integers(-(2**63) + 1, 2**63 - 1).map(lambda micros: np.datetime64(micros, "us")),
    st.sampled_from([0, -1, 2**63 - 1, -(2**63) + 1]).map(lambda micros: np.datetime64(micros, "us")),
)
rows = st.lists(
    st.tuples(
        *[st.none() | numbers] * 2,
        *[st.none() | texts] * 2,
        *[st.none() | st.booleans()] * 2,
        *[st.none() | times] * 2,
    ),
    min_size=1,
    max_size=8,
)


def constants(kind: str) -> st.SearchStrategy[str]:
    literals = {
        "number": st.one_of(numbers.filter(lambda value: value >= 0).map(repr), st.just("None")),
        "text": texts.filter(lambda text: "\x00" not in text).map(repr),  # DuckDB's SQL ends there
        "truth": st.sampled_from(["True", "False"]),
        "time": st.sampled_from(KINDS["time"]),
    }
    return st.one_of(st.sampled_from(KINDS[kind]), st.sampled_from(KINDS[kind]), literals[kind])


@st.composite
def expressions(draw: st.DrawFn, kind: str, depth: int) -> str:
    """A random expression of a kind."""
    if depth == 0:
        return draw(constants(kind))

    def some(kind: str) -> str:
        return draw(expressions(kind, draw(st.integers(0, depth - 1))))

    def compared() -> str:
        kind = draw(st.sampled_from([*KINDS, "written"]))
        one, two = ("time", "text") if kind == "written" else (kind, kind)
        if draw(st.integers(0, 3)) == 0:
            within = ", ".join(some(two) for _ in range(draw(st.integers(1, 3))))
            return f"({some(one)}) {draw(st.sampled_from(['in', 'not in']))} ({within},)"
        order = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
        chained = f" {draw(order)} ({some(two)})" if one == two and draw(st.integers(0, 3)) == 0 else ""
        return f"({some(one)}) {draw(order)} ({some(two)}){chained}"

    def called(names: list[str], of: str) -> str:
        name = draw(st.sampled_from(names))
        function = FUNCTIONS[name]
        count = draw(st.integers(function.least, min(function.most, 3)))
        return f"{name}({', '.join(some(of) for _ in range(count))})"

    def chosen() -> str:
        return f"({some(kind)}) if ({some('truth')}) else ({some(kind)})"

    operators = st.sampled_from(["+", "-", "*", "/", "//", "%", "**"])
    math = ["log", "log1p", "exp", "sqrt", "abs", "floor", "ceil", "round", "clip", "min", "max", "number"]
    forms = [chosen, lambda: called(list(ALIKE), kind)]
    if kind == "number":
        forms += [lambda: f"({some(kind)}) {draw(operators)} ({some(kind)})"] * 3
        forms += [lambda: called(math, "number")] * 3
        forms += [
            lambda: f"-({some(kind)})",
            lambda: f"-({some('truth')})",
            lambda: called(["number", "length"], "text"),
            lambda: called(["year", "month", "day", "weekday", "hour", "minute"], "time"),
        ]
    elif kind == "text":
        forms += [lambda: f"({some(kind)}) + ({some(kind)})", lambda: called(["lower", "upper", "strip"], "text")]
    elif kind == "truth":
        forms += [compared] * 3
        forms += [
            lambda: f"({some(kind)}) {draw(st.sampled_from(['and', 'or']))} ({some(kind)})",
            lambda: f"not ({some(kind)})",
            lambda: called(["is_missing"], draw(st.sampled_from(list(KINDS)))),
            lambda: called(["contains", "startswith", "endswith"], "text"),
        ]
    return draw(st.sampled_from(forms))()


features = st.sampled_from(["number", "number", "truth", "text"]).flatmap(
    lambda kind: st.tuples(expressions(kind, 3), st.just("categorical" if kind == "text" else "numeric"))
)


def schema_of(*derived: tuple[str, str]) -> FeatureSchema:
    made = (
        FeatureColumn(name=f"f{n}", kind=kind, expression=expression) for n, (expression, kind) in enumerate(derived)
    )
    return FeatureSchema(task="regression", target="z", inputs=INPUTS, features=tuple(made), data_version="v")


def typed(table_rows: list[tuple]) -> dict[str, np.ndarray]:
    dtypes = {"number": np.float64, "boolean": np.float64, "string": object, "timestamp": "datetime64[us]"}
    columns = zip(*table_rows, strict=True)
    return {
        column.name: np.array(values, dtype=dtypes[column.type]) for column, values in zip(INPUTS, columns, strict=True)
    }


def assert_as_derived(schema: FeatureSchema, columns: dict[str, np.ndarray]) -> None:
    expected = derive(pd.DataFrame(columns), schema)
    found = compile_rows(schema)(columns)
    assert list(found) == list(expected.columns)
    for feature in schema.features:
        wanted = expected[feature.name].to_numpy()
        got = found[feature.name]
        assert got.dtype == (np.float64 if feature.kind == "numeric" else object), feature
        for row, (one, other) in enumerate(zip(wanted, got, strict=True)):
            missing = [value is None or value != value for value in (one, other)]
            given_row = {name: values[row] for name, values in columns.items()}
            assert all(missing) or one == other, (feature.expression, given_row, one, other)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(features, min_size=5, max_size=5), rows)
def test_any_expression_over_any_rows_is_what_duckdb_makes_of_it(derived, table_rows):
    assert_as_derived(schema_of(*derived), typed(table_rows))


def shapes(name: str) -> list[str]:
    """A function applied to columns, in every kind that it takes."""
    function, names = FUNCTIONS[name], {"a number": "xy", "a text": "su", "true or false": "bc", "a time": "de"}
    made = []
    for kind in function.kind(0):
        arguments = (names[kind] * 2)[: max(function.least, min(function.most, 3))]
        made.append(f"{name}({', '.join(arguments)})")
    return [f"is_missing({call})" if "d" in call and name in ALIKE else call for call in made]


ROWS = [
    (2.5, -3.0, "aß", "a", True, False, np.datetime64("2020-02-29T23:59:59", "us"), np.datetime64("1969-12-31", "us")),
    (-2.5, 0.0, " 7_0 ", "ΑΣ", False, None, np.datetime64("0001-01-01", "us"), np.datetime64(2**63 - 1, "us")),
    (1e300, 1e-300, "x", None, None, True, None, np.datetime64(-(2**62), "us")),
    (None, 710.0, None, "İ", True, True, np.datetime64("9999-12-31", "us"), None),
]


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_is_what_duckdb_makes_of_it(name):
    derived = [(call, "categorical" if name in ("lower", "upper", "strip") else "numeric") for call in shapes(name)]
    derived = [(call, "categorical" if "s" in call[len(name) :] and name in ALIKE else kind) for call, kind in derived]
    assert_as_derived(schema_of(*derived), typed(ROWS))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0.1 + 0.2", 0.1 + 0.2),  # doubles, where SQL takes constants for decimals
        ("9999999999.5 * 9999999999.5 * 9999999999.5 * 1e9", 9999999999.5 * 9999999999.5 * 9999999999.5 * 1e9),
        ("1e308 * 10", None),
        ("x == None", 0.0),
        ("None == None", 1.0),
        ("y == number(None)", None),
        ("-None == x", None),
        ("x < None", None),
        ("x / 0", None),
        ("is_missing(x * 1e308 - x * 1e308)", 0.0),  # NaN is no missing value
        ("x * 1e308 * 10 - x * 1e308 * 10 > 5", 1.0),  # and is greater than any number
        ("False and b", 0.0),
        ("c and False", 0.0),
        ("True or c", 1.0),
        ("c and True", None),
        ("1 if c else 2", 2.0),
        ("is_missing(not c)", 1.0),
        ("(not b) < True", 1.0),
        ("is_missing(x not in (y, 1))", 1.0),
        ("round(-2.5)", -3.0),
        ("-7 % 3", 2.0),
        ("7 // -2", -4.0),
        ("(-8) ** (1 / 3)", None),
        ("0 ** -1", None),
        ("coalesce(clip(None, x, 3), 7)", 7.0),
    ],
)
def test_corners_of_the_language(expression, expected):
    schema = schema_of((expression, "numeric"))
    columns = typed([(2.5, None, None, None, True, None, None, None)])
    assert_as_derived(schema, columns)
    (found,) = compile_rows(schema)(columns)["f0"]
    assert (None if found != found else found) == expected


@pytest.fixture(scope="module")
def database():
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def by_duckdb(database: duckdb.DuckDBPyConnection, expression: str, texts: list[str]) -> list:
    database.register("given", pa.table({"s": pa.array(texts)}))
    return [value for (value,) in database.execute(f"SELECT {expression} FROM given").fetchall()]


@pytest.mark.parametrize("case", ["lower", "upper"])
def test_every_character_has_the_case_that_duckdb_gives_it(database, case):
    characters = "".join(chr(code) for code in range(1, 0x110000) if not 0xD800 <= code <= 0xDFFF)
    (expected,) = by_duckdb(database, f"{case}(s)", [characters])
    found = getattr(scalars, case)(characters)
    assert [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]] == []


spelled_numbers = st.text(alphabet="0123456789_.eE+-infa x", max_size=9)


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(st.lists(spelled_numbers, min_size=150, max_size=150))
def test_texts_are_read_as_numbers_as_duckdb_reads_them(database, spelled):
    stripped = "trim(s, ' \t\n\r\v\f')"
    expected = by_duckdb(database, f"try_cast({stripped} AS DOUBLE)", spelled)
    finite = [None if value is None or not np.isfinite(value) else value for value in expected]
    assert [scalars.number(scalars.strip(text)) for text in spelled] == finite


def pieces(*choices: str) -> st.SearchStrategy[str]:
    return st.sampled_from(choices)


def rarely(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.just(""), st.just(""), strategy)


years = st.one_of(st.integers(0, 12000).map(str), pieces("2020", "0044", "294247", "290308", "5881580", "000000002020"))
two_digits = st.one_of(st.integers(1, 12).map(str), st.integers(0, 62).map("{:02}".format), pieces("001", ""))
clocks = st.tuples(
    pieces(" ", "T", " ", "T", "", "  ", "\t", "t"),
    st.one_of(two_digits, pieces("24", "025")),
    st.just(":"),
    st.one_of(two_digits, pieces("00")),
    rarely(st.tuples(st.just(":"), two_digits, rarely(pieces(".", ".5", ".123456", ".9999999999"))).map("".join)),
    rarely(
        pieces(
            "Z", "+02", "-11:30", "+0530", "+01:02:03", "+2", "+02: ", " UTC", " gmt", " Europe/Berlin", " Foo", " +02"
        )
    ),
    rarely(pieces(" ", "\n", "x", " x")),
).map("".join)


@st.composite
def spelled_moments(draw: st.DrawFn) -> str:
    by = draw(pieces("-", "-", "-", "/", " ", "\\", "."))
    date = by.join([draw(years), draw(two_digits), draw(two_digits)])
    before = draw(rarely(pieces("-", " ", "\n-", "x")))
    return before + date + draw(rarely(pieces(" (BC)", "\t(bc)", "(BC)"))) + draw(rarely(clocks))


specials = pieces(
    "epoch", "EPOCH ", "infinity", "-infinity", " Inf", "-inf\n", "-epoch", "now", "today", "infinityx", ""
)


@settings(max_examples=EXAMPLES // 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(*[spelled_moments()] * 9, specials), min_size=80, max_size=80))
def test_texts_are_read_as_moments_as_duckdb_reads_them(database, spelled):
    cast = "CAST(try_cast(s AS TIMESTAMPTZ) AS TIMESTAMP)"
    infinite = f"CASE WHEN isinf({cast}) THEN IF({cast} > '2000-01-01', 1, -1) * 9223372036854775807 END"
    expected = by_duckdb(database, f"coalesce({infinite}, epoch_us({cast}))", spelled)
    for text, moment in zip(spelled, expected, strict=True):
        assert scalars.moment(text) == moment, text


def test_inputs_that_are_features_are_handed_through():
    schema = schema_of(("x + 1", "numeric"))
    kept = FeatureColumn(name="s", kind="categorical"), FeatureColumn(name="d", kind="numeric")
    schema = schema.model_copy(update={"features": (kept[0], *schema.features, kept[1])})
    columns = typed(ROWS)
    found = compile_rows(schema)(columns)
    assert list(found) == ["s", "f0", "d"]
    assert found["s"] is columns["s"]
    assert found["d"] is columns["d"]
    assert compile_rows(schema.model_copy(update={"features": kept})) is None


def test_half_a_surrogate_pair_is_refused_with_the_column():
    with pytest.raises(BadInput, match="Column 'u' holds text that is not valid Unicode"):
        compile_rows(schema_of(("length(u)", "numeric")))(typed([(1.0, 1.0, "a", "\ud800", True, True, None, None)]))


@pytest.mark.parametrize("expression", ["x +", "nothing", "s * 2", "year(s)", "lambda: 1", "d", "__import__('os')"])
def test_what_is_no_expression_is_refused_as_at_training(expression):
    schema = schema_of((expression, "numeric"))
    with pytest.raises(BadInput) as offline:
        derive(pd.DataFrame(typed(ROWS)), schema)
    with pytest.raises(BadInput) as online:
        compile_rows(schema)
    said = [str(refusal.value).partition("; the columns are")[0] for refusal in (online, offline)]
    assert said[0] == said[1]


def test_no_table_library_is_imported():
    code = (
        "import sys, numpy as np\n"
        "from components.features.rowwise import compile_rows\n"
        "from components.features.schema import FeatureColumn, FeatureSchema, InputColumn\n"
        "features = (FeatureColumn(name='f', kind='numeric', expression='round(x, 1) if x > 0.1 else 2'),)\n"
        "inputs = (InputColumn(name='x', type='number'),)\n"
        "schema = FeatureSchema(task='regression', target='z', inputs=inputs, features=features, data_version='v')\n"
        "print(compile_rows(schema)({'x': np.array([1.25, 0.0])})['f'].tolist())\n"
        "print({'pandas', 'pyarrow', 'ibis', 'duckdb', 'sqlglot'} & set(sys.modules))\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == ["[1.3, 2.0]", "set()"]
