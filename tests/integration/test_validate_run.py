"""A snapshot is checked against its data contract: inferred at first, then kept."""

from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from components.errors import BadInput
from components.ingest import groups
from components.ingest.run import run as ingest
from components.settings import settings
from components.validate import run as validation
from components.validate.contract import Contract
from components.validate.run import Validation, run
from tests.no_report import NoReport

ROWS = [
    f"c{i:04d},{i % 50},{'Yes' if i % 3 else 'No'},{' ' if i % 40 == 7 else i * 0.5},{i % 2 == 0}" for i in range(400)
]
HEADER = "customerID,age,churn,total,active"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLUICEWAY_STORE", raising=False)
    monkeypatch.setattr(validation, "Reporter", NoReport)
    return tmp_path


def check(place: Path, rows: list[str], header: str = HEADER, **changes: Any) -> Validation:
    source = place / "data.csv"
    source.write_text("\n".join([header, *rows]) + "\n")
    ingest(str(source), "", {}, place / "snapshot")
    arguments = {"dataset": "customers", "target": "churn", "share": 0.05, "champion": "", **changes}
    return run(
        place / "snapshot",
        arguments["dataset"],
        arguments["target"],
        arguments["share"],
        arguments["champion"],
        place / "q",
        place / "c",
        place / "r.html",
    )


def refused(place: Path, rows: list[str], **changes: Any) -> str:
    with pytest.raises(BadInput) as caught:
        check(place, rows, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stored_contract(place: Path) -> Path:
    return place / "home" / "store" / "contracts" / "customers.yaml"


def set_aside(place: Path) -> list[tuple[Any, ...]]:
    return duckdb.sql(f"SELECT * EXCLUDE (source, source_row) FROM '{place}/q/quarantine.parquet'").fetchall()


def test_the_first_snapshot_of_a_data_set_gives_its_contract(place):
    found = check(place, ROWS)
    assert (found.rows, found.quarantined, found.is_new) == (400, 0, True)
    columns = found.contract.columns
    assert (columns["customerID"].identifier, columns["customerID"].unique) == (True, True)
    assert (columns["age"].type, columns["age"].min, columns["age"].max, columns["age"].nullable) == (
        "integer",
        0,
        98,
        False,
    )
    assert columns["churn"].allowed == ("No", "Yes")
    assert (columns["total"].type, columns["total"].nullable) == ("number", True)
    assert columns["active"].type == "boolean"
    assert Contract.read(place / "c") == found.contract
    assert stored_contract(place).read_text() == (place / "c" / "contract.yaml").read_text()


def test_later_snapshots_are_held_to_the_first_contract_and_bad_rows_are_named(place):
    first = check(place, ROWS)
    rows = [*ROWS, "c9001,500,Yes,1,true", "c0000,5,Maybe,1,true", "c9003,,No,abc,true", "c9004,5,No,1,perhaps"]
    found = check(place, rows)
    assert (found.rows, found.quarantined, found.is_new) == (404, 4, False)
    assert found.contract.digest == first.contract.digest
    assert set_aside(place) == [
        (401, "age", "500", "above 98"),
        (402, "churn", "Maybe", "not one of No, Yes"),
        (402, "customerID", "c0000", "occurs more than once"),
        (403, "age", None, "missing"),
        (403, "total", "abc", "not a number"),
        (404, "active", "perhaps", "not true or false"),
    ]
    lines = (place / "q" / "quarantine.csv").read_text().splitlines()
    assert lines[:2] == ["row,column,value,reason,source,source_row", "401,age,500,above 98,data.csv,401"]


def test_a_row_set_aside_is_found_in_the_file_that_it_came_from(place, monkeypatch):
    check(place, ROWS)
    monkeypatch.setattr(groups, "PART", 5_000)
    source = place / "files"
    source.mkdir()
    for number in range(4):
        rows = [row.replace("c", f"f{number}") for row in ROWS[:300]]
        rows[number * 10] = f"bad{number},500,Yes,1,true"
        (source / f"{number}.csv").write_text("\n".join([HEADER, *(rows[:90] if number > 1 else rows)]) + "\n")
    ingest(str(source), "", {}, place / "snapshot")
    found = run(*[place / "snapshot", "customers", "churn", 0.5, ""], *[place / name for name in ("q", "c", "r.html")])
    assert found.quarantined == 4
    rows = duckdb.sql(f"SELECT source, source_row FROM '{place}/q/quarantine.parquet' WHERE value = '500'").fetchall()
    assert rows == [("0.csv", 1), ("1.csv", 11), ("2.csv to 3.csv (2 files)", 21), ("2.csv to 3.csv (2 files)", 121)]


def test_too_many_bad_rows_stop_the_run_and_name_the_worst_rule(place):
    check(place, ROWS)
    message = refused(place, ROWS + [f"n{i},900,Yes,1,true" for i in range(40)])
    assert "40 of 440 rows (9.1%)" in message
    assert "age above 98 (40 rows)" in message
    assert len(set_aside(place)) == 40, "the rows can be looked at"
    assert check(place, ROWS + [f"n{i},900,Yes,1,true" for i in range(40)], share=0.1).quarantined == 40


def test_people_may_edit_the_contract(place):
    check(place, ROWS)
    content = yaml.safe_load(stored_contract(place).read_text())
    content["columns"]["age"]["max"] = 45
    stored_contract(place).write_text(yaml.safe_dump(content))
    found = check(place, ROWS, share=0.2)
    assert found.quarantined == sum(i % 50 > 45 for i in range(400))


def test_a_contract_that_was_edited_wrongly_says_where(place):
    check(place, ROWS)
    stored_contract(place).write_text(stored_contract(place).read_text().replace("type: integer", "type: whole"))
    assert "wrong at columns.age.type" in refused(place, ROWS)
    stored_contract(place).write_text("columns: [")
    assert "not valid YAML" in refused(place, ROWS)


def test_missing_and_retyped_columns_fail_with_the_difference_and_added_ones_are_reported(place):
    check(place, ROWS)
    renamed = refused(place, ROWS, header="customerID,Age,churn,total,active")
    assert "- age (integer) is missing (renamed to Age?)" in renamed
    retyped = refused(place, [row.replace(",", ",x", 1) for row in ROWS])
    assert "~ age was integer and is now string (stored as VARCHAR)" in retyped
    assert check(place, [f"{row},{i}" for i, row in enumerate(ROWS)], header=HEADER + ",extra").added == ("extra",)


def test_a_whole_number_column_may_come_as_doubles_or_text_as_long_as_the_values_fit(place):
    check(place, ROWS)
    rows = [row.replace(",12,", ",12.5,") if i == 12 else row for i, row in enumerate(ROWS)]
    assert check(place, rows).quarantined == 1
    assert set_aside(place) == [(13, "age", "12.5", "not a whole number")]
    rows = [row.replace(",12,", ",n/a,") if i == 12 else row for i, row in enumerate(ROWS)]
    check(place, rows)
    assert set_aside(place) == [(13, "age", "n/a", "not a number")]


def test_a_cut_off_export_is_noticed_by_its_row_count(place):
    check(place, ROWS)
    assert "has 30 rows, but the data contract asks for at least 40" in refused(place, ROWS[:30])


def test_a_target_that_does_not_exist_is_refused_with_near_names(place):
    message = refused(place, ROWS, target="Churn")
    assert "did you mean 'churn'?" in message
    assert "customerID, age, churn, total, active" in message
    assert not stored_contract(place).exists()


def test_a_target_with_one_class_or_no_value_is_refused(place):
    assert "only one class (Yes)" in refused(place, [f"c{i},{i},Yes,1,true" for i in range(50)])
    assert "missing in all 50 rows" in refused(place, [f"c{i},{i},,1,true" for i in range(50)])
    assert not stored_contract(place).exists(), "no contract is learned from unusable data"


def test_an_all_missing_column_is_recorded_as_empty(place):
    found = check(place, [f"c{i},{i},{'Yes' if i % 2 else 'No'},,true" for i in range(50)])
    assert found.contract.columns["total"].empty
    assert check(place, [f"c{i},{i},{'Yes' if i % 2 else 'No'},{i},true" for i in range(50)]).quarantined == 0


def test_parameters_are_checked(place):
    assert "data set name" in refused(place, ROWS, dataset="../x")
    assert "between 0 and 1" in refused(place, ROWS, share=5)


def test_the_first_of_two_runs_at_once_makes_the_contract(place, monkeypatch):
    first = validation.first_contract
    other = "dataset: customers\ncolumns:\n" + "".join(f"  {n}: {{type: string}}\n" for n in ["customerID", "churn"])

    def overtaken(*arguments):
        stored_contract(place).parent.mkdir(parents=True)
        stored_contract(place).write_text(other)
        return first(*arguments)

    monkeypatch.setattr(validation, "first_contract", overtaken)
    found = check(place, ROWS)
    assert not found.is_new
    assert list(found.contract.columns) == ["customerID", "churn"]
    assert stored_contract(place).read_text() == other


def test_codes_with_leading_zeros_are_texts(place):
    found = check(place, [f"{i:05d},{i % 9},{'Yes' if i % 2 else 'No'},1,true" for i in range(60)])
    assert found.contract.columns["customerID"].type == "string"


def test_the_sample_keeps_the_shares_of_the_classes_and_is_the_same_again(place, monkeypatch):
    from components.validate import sample

    monkeypatch.setattr(sample, "LARGEST", 100)
    found = check(place, ROWS)
    version = found.contract.inferred_from
    path = Path(settings().store) / "samples" / f"{version}.parquet"
    first = path.read_bytes()
    counts = dict(duckdb.sql(f"SELECT churn, count(*) FROM '{path}' GROUP BY 1").fetchall())
    assert counts == {"No": 33, "Yes": 66}
    assert found.sampled == 99
    check(place, ROWS)
    assert path.read_bytes() == first


def test_a_store_behind_fsspec_keeps_contracts_too(place, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_STORE", "memory://store")
    assert check(place, ROWS).is_new
    assert not check(place, ROWS).is_new
