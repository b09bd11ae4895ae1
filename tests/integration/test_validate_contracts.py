"""What contracts can say, each with a snapshot that breaks it."""

import datetime
import json
from pathlib import Path

import duckdb
import pytest
import yaml

from components.errors import BadInput
from components.ingest.run import run as ingest
from components.store import Store, contract_digest
from components.validate import run as validation
from components.validate import versions
from components.validate.contract import dumps, loads
from components.validate.run import Validation, run
from components.validate.schema_diff import Change
from tests.no_report import NoReport

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
DATA = Path(__file__).parents[3] / "shared" / "data"

ORDERS = """
SELECT 'o-' || lpad(i::VARCHAR, 5, '0') AS code, i % 7 AS shop, i AS number, uuid()::VARCHAR AS session,
    TIMESTAMP '2026-02-01' + to_minutes(i) AS started, TIMESTAMP '2026-02-01' + to_minutes(i + i % 90) AS ended,
    CASE WHEN i % 5 = 0 THEN NULL ELSE (i * 37 % 100)::DOUBLE END AS amount, 'p' || i || '@example.org' AS contact,
    i % 2 = 0 AS paid, 'zone ' || (i % 200) AS zone
FROM range(1200) t(i)"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLUICEWAY_STORE", raising=False)
    monkeypatch.setattr(validation, "Reporter", NoReport)
    return tmp_path


def check(place: Path, query: str, target: str = "paid", share: float = 0.05, dataset: str = "orders") -> Validation:
    duckdb.execute(f"COPY ({query}) TO '{place / 'data.parquet'}' (FORMAT parquet)").fetchall()
    ingest(str(place / "data.parquet"), "", {}, place / "snapshot")
    return run(place / "snapshot", dataset, target, share, "", place / "q", place / "c", place / "r.html", NOW)


def say(place: Path, **words: object) -> None:
    """Write a contract: words of the table, and of columns as ``column__word``."""
    content: dict = {"dataset": "orders", "columns": {}}
    types = {"code": "string", "shop": "integer", "number": "integer", "session": "string", "started": "timestamp"}
    types |= {"ended": "timestamp", "amount": "number", "contact": "string", "paid": "boolean", "zone": "string"}
    content["columns"] = {name: {"type": kind} for name, kind in types.items()}
    for key, value in words.items():
        column, _, word = key.partition("__")
        if word:
            content["columns"][column][word] = value
        else:
            content[key] = value
    path = place / "home" / "store" / "contracts" / "orders.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))


def set_aside(place: Path) -> list[tuple]:
    return duckdb.sql(f"SELECT * EXCLUDE (source, source_row) FROM '{place}/q/quarantine.parquet'").fetchall()


def changed(**columns: str) -> str:
    """The orders with other values in some rows."""
    return f"SELECT * REPLACE ({', '.join(f'{sql} AS {name}' for name, sql in columns.items())}) FROM ({ORDERS})"


def test_the_first_contract_has_patterns_lengths_keys_and_marks_and_holds_again(place):
    contract = check(place, ORDERS).contract
    columns = contract.columns
    assert columns["code"].pattern == "[a-z]+-[0-9]+"
    assert columns["session"].pattern.startswith("[0-9a-fA-F]{8}-")
    assert (columns["code"].unique, columns["number"].max, columns["started"].min) == (True, None, None)
    assert (columns["zone"].pattern, columns["zone"].max_length) == ("[a-z]+ [0-9]+", 100)
    assert columns["contact"].personal == "e-mail"
    assert columns["started"].max_ahead == "1 day"
    assert columns["amount"].max_missing == 0.5
    again = check(place, ORDERS.replace("2026-02-01", "2026-02-20").replace("range(1200)", "range(1200, 2400)"))
    assert (again.quarantined, again.is_new, again.personal) == (0, False, {"contact": "e-mail"})


@pytest.mark.parametrize(
    ("words", "columns", "rows"),
    [
        (
            {"code__pattern": "o-[0-9]{5}"},
            {"code": "CASE number WHEN 3 THEN 'o-12' WHEN 7 THEN 'xo-00007' ELSE code END"},
            [(4, "code", "o-12", "not of the form o-[0-9]{5}"), (8, "code", "xo-00007", "not of the form o-[0-9]{5}")],
        ),
        (
            {"zone__min_length": 3, "zone__max_length": 20},
            {"zone": "CASE number WHEN 1 THEN 'z' WHEN 2 THEN repeat('z', 21) ELSE zone END"},
            [
                (2, "zone", "z", "shorter than 3 characters"),
                (3, "zone", "z" * 21, "longer than 20 characters"),
            ],
        ),
        (
            {"shop__allowed": [0, 1, 2, 3, 4, 5, 6]},
            {"shop": "CASE number WHEN 9 THEN 12 ELSE shop END"},
            [(10, "shop", "12", "not one of 0, 1, 2, 3, 4, …")],
        ),
        (
            {"keys": [["shop", "started"]]},
            {"started": "CASE number WHEN 14 THEN TIMESTAMP '2026-02-01 00:07:00' ELSE started END"},
            [(15, "shop, started", "0, 2026-02-01 00:07:00", "occurs more than once")],
        ),
        (
            {"rules": {"in_order": "started <= ended"}},
            {"ended": "CASE number WHEN 20 THEN started - INTERVAL 1 DAY ELSE ended END"},
            [(21, "started, ended", "2026-02-01 00:20:00, 2026-01-31 00:20:00", "breaks in_order: started <= ended")],
        ),
        (
            {"started__max_ahead": "1 hour"},
            {"started": "CASE number WHEN 5 THEN TIMESTAMP '2026-03-01 13:00:01' ELSE started END"},
            [(6, "started", "2026-03-01 13:00:01", "more than 1 hour in the future")],
        ),
        (
            {"started__min": datetime.datetime(2026, 2, 1)},
            {"started": "CASE number WHEN 5 THEN TIMESTAMP '1970-01-01' ELSE started END"},
            [(6, "started", "1970-01-01 00:00:00", "below 2026-02-01")],
        ),
        (
            {"number__unique": True},
            {"number": "CASE WHEN number IN (30, 40) THEN 20 ELSE number END"},
            [(31, "number", "20", "occurs more than once"), (41, "number", "20", "occurs more than once")],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_rows_that_break_a_rule_are_set_aside(place, words, columns, rows):
    say(place, **words)
    assert check(place, changed(**columns)).quarantined == len(rows)
    assert set_aside(place) == rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"started__max_age": "36 hours"}, "The newest started is 2026-02-01 19:59 UTC, 4 weeks ago"),
        ({"amount__max_missing": 0.1}, "20.0% of the values of amount are missing, more than the 10.0%"),
        ({"rows": {"max": 1000}}, "1,200 rows"),
        ({"shop__max": 5, "shop__max_share": 0.1}, r"171 of 1,200 rows \(14.2%\) break the data contract in shop"),
        ({"rules": {"x": "amount + 1"}}, "rule 'x' must be true or false"),
        ({"rules": {"x": "started <= "}}, "rules: 'x'"),
        ({"code__min": 3}, "wrong at columns.code: min is for columns of type integer or number or timestamp"),
        ({"started__max_age": "soon"}, "'soon' is no duration"),
        ({"keys": [["nothing"]]}, "wrong at keys: there is no column 'nothing'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_concerns_the_whole_stops_the_run_in_one_sentence(place, words, message):
    say(place, **words)
    with pytest.raises(BadInput, match=message) as caught:
        check(place, ORDERS, share=1)
    assert "\n" not in str(caught.value)


def test_a_renamed_column_is_told_as_lines_and_as_data(place):
    say(place)
    with pytest.raises(BadInput, match=r"- amount \(number\) is missing \(renamed to total\?\).*\+ total \(number\)"):
        check(place, f"SELECT * RENAME (amount AS total) FROM ({ORDERS})")
    found = check(place, f"SELECT *, 1.5 AS extra FROM ({ORDERS})")
    assert found.changes == (Change("extra", "added", now="number", stored="DECIMAL(2,1)"),)
    json.dumps([vars(change) for change in found.changes])


def test_a_column_that_turns_into_text_half_way_is_named(place):
    say(place)
    with pytest.raises(BadInput, match=r"~ number was integer and is now string"):
        check(place, changed(number="CASE WHEN number < 500 THEN number::VARCHAR ELSE 'n/a ' || number END"))
    found = check(place, changed(number="CASE WHEN number < 1190 THEN number::VARCHAR ELSE 'n/a' END"))
    assert found.broken == (("number not a number", 10),)


def test_a_hundred_columns_of_categories_are_counted_within_the_memory_that_there_is(place):
    texts = ", ".join(f"'of {n}: ' || hash(i * {n + 1}) % {n % 50 + 3} AS c{n}" for n in range(95))
    found = check(place, f"SELECT i % 2 = 0 AS paid, {texts} FROM range(200_000) t(i)")
    assert {len(found.contract.columns[f"c{n}"].allowed or ()) for n in (0, 49, 94)} == {3, 52, 47}


def test_a_thousand_columns_of_categories_are_each_listed(place):
    texts = ", ".join(f'chr((97 + (i + {n}) % {n % 20 + 2})::INTEGER) AS "c\'{n}"' for n in range(1_010))
    query = f"SELECT i % 2 = 0 AS paid, {texts} FROM range(250) t(i)"
    found = check(place, query)
    for n in (0, 500, 1_009):
        assert found.contract.columns[f"c'{n}"].allowed == tuple("abcdefghijklmnopqrstuv"[: n % 20 + 2])
    assert check(place, query).quarantined == 0


def test_many_columns_are_checked_in_bounded_memory(place):
    wide = ", ".join(f"(i + {n}) % {n % 90 + 2} AS c{n}" for n in range(400))
    query = f"SELECT i % 2 = 0 AS paid, {wide} FROM range(250) t(i)"
    assert check(place, query).is_new
    assert check(place, query).quarantined == 0


@pytest.mark.parametrize(("name", "target"), [("electricity", "class"), ("telco_churn", "Churn")])
def test_the_next_ordinary_snapshots_keep_an_inferred_contract(place, name, target):
    path = DATA / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"no ../shared/data/{path.name} here")
    source = f"read_csv('{path}', all_varchar = {str(name == 'telco_churn').lower()})"
    pieces = [f"FROM {source} LIMIT 9062 OFFSET {9062 * part}" for part in range(5)]
    if name == "telco_churn":
        pieces = [f"FROM {source} WHERE hash(customerID) % 2 = {part}" for part in range(2)]
    for piece in pieces:
        found = check(place, piece, target, dataset=name)
        assert found.quarantined <= 0.005 * found.rows


def test_a_contract_is_set_from_a_file_and_every_version_kept(place, monkeypatch):
    check(place, ORDERS)
    store = Store(str(place / "home" / "store"))
    first = versions.read(store, "orders")
    edited = loads(dumps(first).replace("max_missing: 0.5", "max_missing: 0.3"), "here")
    done = versions.replace(store, edited, "here")
    assert (done.contract.version, versions.read(store, "orders").columns["amount"].max_missing) == (2, 0.3)
    assert "-    max_missing: 0.5" in done.diff
    assert "+    max_missing: 0.3" in done.diff
    assert versions.read(store, "orders", 1) == first
    assert versions.replace(store, edited, "here").diff == (), "setting the same again changes nothing"
    assert check(place, ORDERS).contract.version == 2
    for wrong, message in ({"rules": {"x": "nothing > 1"}}, "'nothing'"), ({"keys": ()}, ""):
        if message:
            with pytest.raises(BadInput, match=message):
                versions.replace(store, edited.model_copy(update=wrong), "here")
    with pytest.raises(BadInput, match="pattern of code"):
        columns = edited.columns | {"code": edited.columns["code"].model_copy(update={"pattern": "(?=x)"})}
        versions.replace(store, edited.model_copy(update={"columns": columns}), "here")


def test_an_outcome_that_depends_on_the_time_is_kept_for_an_hour_only(place):
    store = Store(str(place / "home" / "store"))
    say(place)
    assert contract_digest(store, "orders") == contract_digest(store, "orders")
    plain = contract_digest(store, "orders")
    say(place, started__max_age="1 day")
    content = store.read("contracts/orders.yaml")
    import hashlib

    assert contract_digest(store, "orders") not in (plain, hashlib.sha256(content).hexdigest())
