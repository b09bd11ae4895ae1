"""A contract is pandera's schema, and finds the rows that pandera finds."""

import datetime
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import duckdb
import ibis
import pandera.errors
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pandera.errors import SchemaErrorReason as Reason

from components.ingest import snapshot as snapshots
from components.ingest.engine import ROW
from components.validate import quarantine
from components.validate.contract import Contract
from components.validate.counting import profile
from components.validate.facts import facts
from components.validate.pandera_schema import schema
from components.validate.reader import Reader
from components.validate.rules import doubtful, undecided

NOW = datetime.datetime(2026, 1, 1)

ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-3, 30),
        st.none() | st.floats(-5, 5, width=32),
        st.none() | st.sampled_from(["a", "b", "ab12", "x-1", "ä", "longer text", "A'b"]),
        st.none() | st.booleans(),
        st.none() | st.datetimes(datetime.datetime(2025, 1, 1), datetime.datetime(2025, 12, 31)),
        st.integers(0, 6),
    ),
    min_size=1,
    max_size=25,
)

RULES = st.fixed_dictionaries(
    {},
    optional={
        "i": st.fixed_dictionaries({"min": st.integers(-2, 3), "max": st.integers(4, 25), "nullable": st.booleans()}),
        "f": st.fixed_dictionaries({"min": st.floats(-4, 0), "max": st.floats(0, 4)}),
        "s": st.fixed_dictionaries(
            {},
            optional={
                "allowed": st.lists(st.sampled_from(["a", "b", "ä"]), min_size=1, max_size=3),
                "pattern": st.sampled_from(["[a-z]+", "[a-z0-9-]+", "a|b"]),
                "min_length": st.integers(0, 3),
                "max_length": st.integers(1, 6),
                "nullable": st.booleans(),
            },
        ),
        "t": st.fixed_dictionaries({"min": st.dates(datetime.date(2025, 1, 2), datetime.date(2025, 6, 1))}),
        "keys": st.sampled_from([[["k"]], [["k", "b"]], [["s", "k"]]]),
        "rules": st.sampled_from([{"small": "i <= 3 * k"}, {"either": 'f > 0 or s == "a"'}, {"year": "month(t) < 7"}]),
    },
)

TYPES = {"i": "integer", "f": "number", "s": "string", "b": "boolean", "t": "timestamp", "k": "integer"}
STORED = {"i": "BIGINT", "f": "DOUBLE", "s": "VARCHAR", "b": "BOOLEAN", "t": "TIMESTAMP", "k": "BIGINT"}


def contract_of(given_rules: dict) -> Contract:
    columns = {name: {"type": kind, **given_rules.get(name, {})} for name, kind in TYPES.items()}
    table = {key: given_rules[key] for key in ("keys", "rules") if key in given_rules}
    return Contract.model_validate({"dataset": "d", "columns": columns, **table})


def snapshot_of(folder: Path, rows: list[tuple]) -> snapshots.Snapshot:
    folder.mkdir(exist_ok=True)
    with duckdb.connect() as connection:
        declared = ", ".join(f"{name} {kind}" for name, kind in STORED.items())
        connection.execute(f"CREATE TABLE t ({declared})")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute(f"COPY t TO '{folder / 'part-00000.parquet'}' (FORMAT parquet)")
        nulls = connection.execute(f"SELECT {', '.join(f'count(*) - count({n})' for n in STORED)} FROM t").fetchone()
    return snapshots.Snapshot(
        version="v",
        source_uri="s",
        files=(),
        options={},
        rows=len(rows),
        bytes=1,
        columns=tuple(
            snapshots.Column(name=name, type=kind, nulls=count)
            for (name, kind), count in zip(STORED.items(), nulls, strict=True)
        ),
        parts=(snapshots.Part(name="part-00000.parquet", rows=len(rows), bytes=1, md5=""),),
    )


@dataclass
class Broken:
    """Rows that break something, by what they break: of columns the values, of keys theirs, of rules the row."""

    columns: Counter
    keys: Counter
    rules: set[int]


def ours(folder: Path, rows: list[tuple], contract: Contract) -> Broken:
    described = snapshot_of(folder, rows)
    with duckdb.connect() as connection:
        table = snapshots.relation(connection, folder, described)
        reader = Reader(connection, table, facts(connection, table, described, folder), TYPES)
        rules = undecided(reader, contract)
        counted = profile(connection, reader, also={rule: f"count_if({rule.broken})" for rule in rules})
        broken = [rule for rule in rules if counted.also[rule]]
        broken += doubtful(connection, reader, contract, counted.profile, NOW)
        quarantine.write(connection, reader, broken, described.parts, folder)
    values = {number: dict(zip(TYPES, row, strict=True)) for number, row in enumerate(rows, 1)}
    found = Broken(Counter(), Counter(), set())
    for row, column, _, reason, *_ in duckdb.sql(f"FROM '{folder / quarantine.FILE}'").fetchall():
        if reason == "occurs more than once":
            found.keys[tuple(str(values[row][name]) for name in column.split(", "))] += 1
        elif reason.startswith("breaks "):
            found.rules.add(row)
        else:
            found.columns[column, _plain(values[row][column])] += 1
    return found


def panderas(folder: Path, contract: Contract) -> Broken:
    backend = ibis.duckdb.connect()
    source = f"read_parquet('{folder / 'part-00000.parquet'}', file_row_number = true)"
    backend.raw_sql(f"CREATE TABLE t AS SELECT file_row_number + 1 AS {ROW}, * EXCLUDE (file_row_number) FROM {source}")
    found = Broken(Counter(), Counter(), set())
    try:
        schema(contract).validate(backend.table("t"), lazy=True)
    except pandera.errors.SchemaErrors as errors:
        for error in errors.schema_errors:
            cases = _rows(error.failure_cases)
            if error.reason_code is Reason.DUPLICATES:
                (key,) = contract.keys
                values = [tuple(row[name] for name in key) for row in cases]
                # As in SQL, rows with a missing value in a key are not compared; pandera takes missing for a value.
                found.keys.update(tuple(map(str, one)) for one in values if None not in one)
            elif ROW in cases[0]:
                found.rules |= {row[ROW] for row in cases}
            else:
                assert error.reason_code in (Reason.DATAFRAME_CHECK, Reason.SERIES_CONTAINS_NULLS), error
                found.columns.update((column, _plain(value)) for row in cases for column, value in row.items())
    return found


def _rows(cases) -> list[dict]:
    if not hasattr(cases, "to_pyarrow"):  # a frame with a row in each of its cells
        return list(cases["failure_case"])
    return cases.to_pyarrow().to_pylist()


def _plain(value: object) -> str:
    return str(value.replace(fold=0)) if isinstance(value, datetime.datetime) else str(value)


@settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=ROWS, given_rules=RULES)
def test_the_rows_set_aside_are_those_that_pandera_finds(tmp_path, rows, given_rules):
    contract = contract_of(given_rules)
    assert ours(tmp_path / "s", rows, contract) == panderas(tmp_path / "s", contract)
