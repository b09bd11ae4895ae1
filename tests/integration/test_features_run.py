"""Feature sets from checked snapshots."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.errors import BadInput
from components.features.expressions import derive
from components.features.run import FeatureSet, run
from components.features.schema import SPLITS, FeatureSchema
from components.ingest.run import run as ingest
from components.validate import run as validation
from tests.no_report import NoReport

DATA = Path(__file__).parents[3] / "shared" / "data"


@dataclass
class Place:
    folder: Path

    def check(self, source: str, target: str, dataset: str = "d") -> None:
        ingest(source, "", {}, self.folder / "s")
        outputs = [self.folder / "q", self.folder / "c", self.folder / "r.html"]
        validation.run(self.folder / "s", dataset, target, 0.05, "", *outputs)

    def features(
        self, target: str, spec: str = "", task: str = "auto", key: str = "", seed: int = 0, **more: Any
    ) -> FeatureSet:
        inputs = [self.folder / "s", self.folder / "q", self.folder / "c"]
        return run(*inputs, target, spec, task, key, seed, self.folder / "f", **more)

    def make(self, source: str, target: str, **changes: Any) -> FeatureSet:
        self.check(source, target)
        return self.features(target, **changes)

    def csv(self, frame: pd.DataFrame, name: str = "d.csv") -> str:
        frame.to_csv(self.folder / name, index=False)
        return str(self.folder / name)

    def table(self, split: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "f" / f"{split}.parquet")

    def splits(self, key: str) -> dict[Any, str]:
        return {value: split for split in SPLITS for value in self.table(split)[key]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("SLUICEWAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLUICEWAY_STORE", raising=False)
    monkeypatch.setattr(validation, "Reporter", NoReport)
    return Place(tmp_path)


def customers(rows: int = 400, start: int = 0) -> pd.DataFrame:
    index = range(start, start + rows)
    return pd.DataFrame(
        {
            "customerID": [f"c{i:05d}" for i in index],
            "tenure": [i % 70 for i in index],
            "plan": [("basic", "plus", "max")[i % 3] for i in index],
            "charge": [" " if i % 50 == 3 else f"{i * 0.5}" for i in index],
            "vip": [("true", "false")[i % 2] for i in index],
            "since": [f"20{10 + i % 15}-03-0{1 + i % 9}" for i in index],
            "note": [f"free text number {i} of the customer" for i in index],
            "same": ["x" for _ in index],
            "nothing": [None for _ in index],
            "churn": [("No", "Yes", "No")[i % 3] for i in index],
        }
    )


SPEC = """
derive:
  monthly: charge / tenure
  veteran: year(since) < 2015
  grade: upper(plan)
drop: [tenure]
"""


def test_columns_become_features_or_are_left_out_with_a_reason(place):
    made = place.make(place.csv(customers()), "churn", spec=SPEC)
    schema = made.schema
    assert {column.name: column.reason.split(" with")[0] for column in schema.dropped} == {
        "customerID": "identifier",
        "tenure": "dropped by the feature spec",
        "since": "timestamp; use parts of it in an expression of the feature spec",
        "note": "text",
        "same": "constant",
        "nothing": "all values are missing",
    }
    assert [(column.name, column.kind) for column in schema.features] == [
        ("plan", "categorical"),
        ("charge", "numeric"),
        ("vip", "numeric"),
        ("monthly", "numeric"),
        ("veteran", "numeric"),
        ("grade", "categorical"),
    ]
    assert {column.name: column.type for column in schema.inputs} == {
        "tenure": "number",
        "plan": "string",
        "charge": "number",
        "vip": "boolean",
        "since": "timestamp",
    }
    assert (schema.task, schema.classes, made.classes) == ("binary", ("No", "Yes"), {"No": 267, "Yes": 133})
    assert FeatureSchema.read(place.folder / "f") == schema


def test_the_tables_hold_inputs_features_and_the_class_index_in_the_source_order(place):
    source = customers()
    made = place.make(place.csv(source), "churn", spec=SPEC)
    tables = {split: place.table(split) for split in SPLITS}
    assert {split: len(table) for split, table in tables.items()} == made.schema.rows
    assert sum(made.schema.rows.values()) == 400
    train = tables["train"]
    assert list(train.columns) == ["tenure", "plan", "charge", "vip", "since", "monthly", "veteran", "grade", "churn"]
    assert str(train.dtypes["churn"]) == "int64"
    assert str(train.dtypes["charge"]) == "float64"
    assert sum(table["charge"].isna().sum() for table in tables.values()) == 8
    charges = train["charge"].dropna()
    assert charges.is_monotonic_increasing
    first = source.iloc[int(charges.iloc[0] * 2)]
    assert (train.iloc[0]["grade"], train.iloc[0]["churn"]) == (first["plan"].upper(), int(first["churn"] == "Yes"))


def test_the_stored_features_equal_those_derived_from_a_request(place):
    source = customers()
    made = place.make(place.csv(source), "churn", spec=SPEC)
    test = place.table("test")
    names = [column.name for column in made.schema.features]
    pd.testing.assert_frame_equal(derive(test, made.schema), test[names])
    ids = source["customerID"][source["charge"].isin(test["charge"].map(str))]
    request = source[source["customerID"].isin(ids)].reset_index(drop=True)
    stored = test[test["charge"].notna()].reset_index(drop=True)
    pd.testing.assert_frame_equal(derive(request, made.schema), stored[names])


@pytest.mark.parametrize("keyed", ["by identifier", "by content"])
def test_appending_rows_moves_no_row_even_when_a_columns_type_changes(place, keyed):
    def frame(rows: int) -> pd.DataFrame:
        made = customers(rows).drop(columns=["nothing"])
        made["number"] = range(rows)
        return made if keyed == "by identifier" else made.drop(columns=["customerID"])

    place.check(place.csv(frame(400)), "churn")
    place.features("churn")
    before = place.splits("number")
    grown = pd.concat([frame(400).astype({"number": object}), frame(900).iloc[400:].astype({"number": object})])
    grown.iloc[-1, grown.columns.get_loc("number")] = 899.5  # whole numbers become doubles
    grown.iloc[-2, grown.columns.get_loc("tenure")] = None
    ingest(place.csv(grown), "", {}, place.folder / "s")
    outputs = [place.folder / "q", place.folder / "c", place.folder / "r.html"]
    validation.run(place.folder / "s", "d", "churn", 1.0, "", *outputs)
    pd.DataFrame({"row": pd.Series(dtype="int64")}).to_parquet(place.folder / "q" / "quarantine.parquet")
    place.features("churn")
    after = place.splits("number")
    assert len(after) == 900
    assert {value: after[value] for value in before} == before
    assert len({after[value] for value in after}) == 3


def test_a_corrected_label_moves_no_row_and_another_seed_is_another_split(place):
    frame = customers().drop(columns=["customerID", "note", "nothing"])
    frame["charge"] = [i * 0.5 for i in range(400)]
    place.make(place.csv(frame), "churn")
    before = place.splits("charge")
    frame["churn"] = frame["churn"].map({"Yes": "No", "No": "Yes"})
    place.make(place.csv(frame), "churn")
    assert place.splits("charge") == before
    place.features("churn", seed=1)
    assert place.splits("charge") != before


def test_rows_with_the_same_split_key_stay_together(place):
    place.check(place.csv(customers()), "churn")
    made = place.features("churn", key="tenure")
    assert made.schema.split == {"key": ["tenure"], "seed": 0}
    tenures = [set(place.table(split)["tenure"]) for split in SPLITS]
    assert sum(map(len, tenures)) == 70
    assert "tenure" in [column.name for column in made.schema.features]
    keyed = place.features("churn", spec="key: [tenure]")
    assert keyed.schema.split == made.schema.split
    assert "tenure" not in [column.name for column in keyed.schema.features]


def test_quarantined_rows_and_rows_without_a_target_are_left_out_and_counted(place):
    frame = customers()
    frame.loc[7, "churn"] = None
    place.check(place.csv(frame), "churn")
    frame.loc[[3, 5], "tenure"] = 9999
    place.check(place.csv(frame), "churn")
    made = place.features("churn")
    assert (made.quarantined, made.unlabelled, made.rows) == (2, 1, 397)
    assert max(place.table(split)["tenure"].max() for split in SPLITS) < 9999


def test_a_number_is_regression_and_few_whole_numbers_are_classes_unless_said_otherwise(place):
    frame = customers()
    frame["target"] = [i % 4 for i in range(400)]
    place.check(place.csv(frame), "target")
    classes = place.features("target")
    assert (classes.schema.task, classes.schema.classes) == ("multiclass", ("0", "1", "2", "3"))
    number = place.features("target", task="regression")
    assert (number.schema.task, number.schema.classes) == ("regression", ())
    assert str(place.table("train").dtypes["target"]) == "float64"
    with pytest.raises(BadInput, match=r"4 classes .* not binary"):
        place.features("target", task="binary")
    frame["target"] = [i % 4 + 0.5 for i in range(400)]
    place.check(place.csv(frame), "target", dataset="other")
    assert place.features("target").schema.task == "regression"


def test_classes_that_are_numbers_are_ordered_as_numbers(place):
    frame = customers()
    frame["churn"] = [i % 12 for i in range(400)]
    made = place.make(place.csv(frame), "churn")
    assert made.schema.classes == tuple(str(i) for i in range(12))


def test_a_class_that_is_not_in_train_is_refused(place):
    frame = customers()
    place.check(place.csv(frame), "churn")
    test_row = next(i for i in range(400) if split_of(f"c{i:05d}") == "test")
    frame.loc[test_row, "churn"] = "Perhaps"
    place.check(place.csv(frame), "churn", dataset="other")
    with pytest.raises(BadInput, match="Class 'Perhaps' of 'churn' has 1 rows and none of them in the train split"):
        place.features("churn")
    assert not (place.folder / "f").exists()


def split_of(key: str) -> str:
    import hashlib

    share = int(hashlib.md5(f"0|{key}".encode()).hexdigest()[:8], 16) / 2**32
    return "train" if share < 0.70 else "valid" if share < 0.85 else "test"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"spec": "derive: {plan: tenure + 1}"}, "'plan' is already a column"),
        ({"spec": "derive: {leak: length(churn)}"}, "reads the target"),
        ({"spec": "derive: {one: 1 + 1}"}, "reads no column"),
        ({"spec": "derive: {bad: tenure +* 1}"}, "position"),
        ({"spec": "derive: {bad: nope + 1}"}, "there is no column 'nope'"),
        ({"spec": "drop: [nope]"}, "drop names the column 'nope'"),
        ({"spec": "drop: [churn]"}, "drop names the target"),
        ({"spec": "derived: {}"}, "feature_spec is wrong at derived"),
        ({"spec": "derive: ["}, "not valid YAML"),
        ({"spec": "just text"}, "must be a YAML mapping"),
        ({"spec": "drop: [tenure, plan, charge, vip]"}, "No feature is left"),
        ({"key": "nope"}, "split_key names the column 'nope'"),
        ({"key": "churn"}, "split_key is the target"),
        ({"task": "ranking"}, "There is no task 'ranking'"),
        ({"task": "regression"}, "cannot be predicted as a number"),
    ],
)
def test_wrong_parameters_are_refused_in_one_sentence(place, changes, says):
    place.check(place.csv(customers()), "churn")
    with pytest.raises(BadInput) as caught:
        place.features("churn", **changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_few_rows_are_refused(place):
    place.check(place.csv(customers(3)), "churn")
    with pytest.raises(BadInput, match="split is empty"):
        place.features("churn")


@pytest.mark.parametrize(
    ("name", "task", "classes", "features"),
    [
        ("breast_cancer", "binary", ("benign", "malignant"), 30),
        ("wine", "multiclass", ("class_0", "class_1", "class_2"), 13),
        ("digits", "multiclass", tuple("0123456789"), 61),
        ("diabetes", "regression", (), 10),
    ],
)
def test_the_built_in_sets_pass(place, name, task, classes, features):
    made = place.make(f"sklearn://{name}", "target")
    assert (made.schema.task, made.schema.classes, len(made.schema.features)) == (task, classes, features)
    assert (made.quarantined, made.unlabelled) == (0, 0)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not on this machine")
def test_the_telco_set(place):
    made = place.make(str(DATA / "telco_churn.csv"), "Churn")
    assert (made.rows, made.schema.classes, made.schema.task) == (7043, ("No", "Yes"), "binary")
    assert [(column.name, column.reason) for column in made.schema.dropped] == [("customerID", "identifier")]
    assert made.schema.split["key"] == ["customerID"]
    kinds = {column.name: column.kind for column in made.schema.features}
    assert (len(kinds), kinds["TotalCharges"], kinds["Partner"]) == (19, "numeric", "categorical")
    assert sum(place.table(split)["TotalCharges"].isna().sum() for split in SPLITS) == 11


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not on this machine")
def test_the_electricity_set(place):
    made = place.make(str(DATA / "electricity.csv"), "class")
    assert (made.rows, made.schema.classes, len(made.schema.features)) == (45312, ("0", "1"), 6)
    assert made.classes == {"0": 26075, "1": 19237}


BY_TIME = "{time: day, split: {by: time, gap: 3 seconds}, derive: {again: col('day')}}"


def test_a_split_by_time_trains_on_the_past_and_tests_on_the_future(place):
    frame = pd.DataFrame({"day": [n // 3 for n in range(300)], "x": range(300), "y": [n % 2 for n in range(300)]})
    shuffled = frame.sample(frac=1, random_state=0)
    made = place.make(place.csv(shuffled), "y", spec=BY_TIME.replace(", gap: 3 seconds", ""))
    days = {split: place.table(split)["day"] for split in SPLITS}
    assert days["train"].max() < days["valid"].min()
    assert days["valid"].max() < days["test"].min()
    assert made.schema.split["time"] == "day"
    assert made.schema.rows == {"train": 210, "valid": 45, "test": 45}


def test_rows_in_the_gap_before_a_later_split_are_left_out_and_counted(place):
    frame = pd.DataFrame({"day": [n // 3 for n in range(300)], "x": range(300), "y": [n % 2 for n in range(300)]})
    made = place.make(place.csv(frame.sample(frac=1, random_state=0)), "y", spec=BY_TIME)
    days = {split: place.table(split)["day"] for split in SPLITS}
    assert (days["train"].max(), days["valid"].min(), days["valid"].max(), days["test"].min()) == (66, 70, 81, 85)
    assert made.schema.split["left_out"] == 300 - sum(made.schema.rows.values()) == 18
    assert "day" not in [column.name for column in made.schema.features]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{time: nope, split: {by: time}}", "time names the column 'nope'"),
        (BY_TIME, "2 rows have no usable time in 'day'"),
        ("split: {by: time}", "split by time needs to know when a row was"),
        ("split: {gap: 1 day}", "a split has a gap only by time"),
        ("order: rows", "feature_spec has no order any more"),
    ],
)
def test_a_time_that_cannot_be_used_is_named(place, spec, said):
    frame = pd.DataFrame({"day": [None, None, *range(98)], "x": range(100), "y": [n % 2 for n in range(100)]})
    with pytest.raises(BadInput) as caught:
        place.make(place.csv(frame), "y", spec=spec)
    assert said in str(caught.value)


def test_a_table_of_hundreds_of_columns_without_a_key_is_split_by_whole_rows(place):
    frame = pd.DataFrame({f"c{n}": [(row * (n + 1)) % 1009 / 7 for row in range(300)] for n in range(500)})
    made = place.make(place.csv(frame.assign(label=frame["c0"] > 20)), "label")
    assert made.rows == 300
    assert len(made.schema.features) == 500
