"""What the features step defines once: made offline, trained on, and answered by the server that loads the bundle."""

import json
import random

import numpy as np
import pandas as pd
import pytest

from components.errors import BadInput
from components.features.schema import SPLITS, FeatureSchema
from components.ingest.resolve import resolve_tables
from components.train.run import train
from components.validate import run as validation
from serving.server.limits import Limits
from serving.server.openapi import document
from serving.server.served import Served
from tests.integration.test_features_run import Place
from tests.no_report import NoReport

SPEC = """
key: [user]
time: ts
split: {by: time, gap: 1 hours}
tables:
  users: {entity: {id: user}, time: since}
windows:
  seen: {value: count(), within: 2 days}
  mean_before: {value: mean(rating)}
joins:
  job: {table: users, column: job}
  age: {table: users, column: age, within: 400 days}
derive:
  young: age < 30
encodings:
  city_rate: {column: city, how: rate}
  city_bucket: {column: city, how: hash, buckets: 8}
"""


def ratings() -> pd.DataFrame:
    draw = random.Random(0)
    cities = ["Rome", "Zürich", "", "Oslo", "東京"]
    return pd.DataFrame(
        {
            "user": [draw.randrange(40) for _ in range(600)],
            "ts": [pd.Timestamp("2026-01-01") + pd.Timedelta(minutes=37 * n) for n in range(600)],
            "city": [draw.choice(cities) if n < 590 else "Quito" for n in range(600)],
            "late": [n % 3 == 0 for n in range(600)],
            "rating": [draw.randrange(1, 100) / 10 for _ in range(600)],
        }
    ).sample(frac=1, random_state=1)


def users() -> pd.DataFrame:
    changes = [(user, day) for user in range(30) for day in ("2025-06-01", "2026-01-05")]
    return pd.DataFrame(
        {
            "id": [f"{user}" for user, _ in changes],
            "since": [day for _, day in changes],
            "job": [("cook", "judge", None)[(user + len(day)) % 3] for user, day in changes],
            "age": [20 + user for user, _ in changes],
        }
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICEWAY_HOME", str(folder / "home"))
        patch.delenv("SLUICEWAY_STORE", raising=False)
        patch.setattr(validation, "Reporter", NoReport)
        made = Place(folder)
        made.check(made.csv(ratings()), "rating")
        tables = resolve_tables({"users": made.csv(users(), "users.csv")})
        made.features("rating", spec=SPEC, task="regression", feature_tables=tables)
        yield made


@pytest.fixture(scope="module")
def served(place):
    train(place.folder / "f", place.folder / "bundle", trainer="linear")
    return Served.load("ratings", "r1", place.folder / "bundle")


def test_windows_joins_and_encodings_are_what_the_spec_says(place):
    schema = FeatureSchema.read(place.folder / "f")
    assert {one.name: (one.type, one.kind) for one in schema.inputs} == {
        "city": ("string", "column"),
        "late": ("boolean", "column"),
        "seen": ("number", "windowed"),
        "mean_before": ("number", "windowed"),
        "job": ("string", "joined"),
        "age": ("number", "joined"),
    }
    assert schema.inputs[2].description == "count() of earlier rows by user, in the 2 days before ts"
    train_rows = place.table("train")
    rates = {city: count / len(train_rows) for city, count in train_rows["city"].value_counts().items()}
    for split in SPLITS:
        table = place.table(split)
        wanted = [rates.get(city, 0.0) if isinstance(city, str) else np.nan for city in table["city"]]
        np.testing.assert_allclose(table["city_rate"], wanted)
    late = place.table("test")
    assert set(late.loc[late["city"] == "Quito", "city_rate"]) == {0.0}  # it is not in train
    assert set(late["job"].dropna()) == {"cook", "judge"}
    assert late["age"].isna().sum() > 0  # the users that the table does not know


def test_the_server_answers_as_training_computed(place, served):
    test = place.table("test")
    names = [column.name for column in served.model.schema.inputs]
    sent = json.loads(test[names].to_json(orient="records"))
    columns = {name: [row[name] for row in sent] for name in names}
    online = served.model.predict_columns(columns)
    np.testing.assert_allclose(online, served.model.predict(test), rtol=1e-9)
    assert len(set(online)) > 10
    unknown = served.model.predict_columns({name: [None] for name in names})
    assert np.isfinite(unknown).all()  # nothing is known of an entity without a past
    with pytest.raises(BadInput, match="Input column 'seen' is missing"):
        served.model.predict_columns({name: columns[name] for name in names if name != "seen"})


def test_the_document_says_which_inputs_the_caller_looks_up(served):
    whole = document([("POST", "/v1/models/{name}:predict")], [served], "1", Limits(), has_tokens=False)
    as_object = whole["components"]["schemas"]["0.ratings.instances"]["properties"]["instances"]["items"]["anyOf"][0]
    assert "description" not in as_object["properties"]["city"]
    assert as_object["properties"]["job"]["description"].startswith("job of users by user, the newest at ts")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("windows: {n: {value: count()}}", "windows.n needs to know when a row was"),
        ("{time: ts, windows: {n: {value: count()}}}", "windows.n needs an entity"),
        ("{time: ts, key: user, windows: {n: {value: median(rating)}}}", "'median(rating)' is none of count(…)"),
        ("{time: ts, key: user, windows: {n: {value: mean(city)}}}", "mean needs numbers, and 'city' is a text"),
        ("{time: ts, key: user, windows: {n: {value: sum(nope)}}}", "there is no column 'nope'"),
        ("{time: ts, key: user, windows: {n: {value: count(), within: soon}}}", "'soon' is no duration"),
        ("{time: ts, key: user, windows: {n: {value: count(), within: 0 days}}}", "longer than nothing"),
        ("{time: ts, key: user, windows: {n: {value: count(), where: rating + 1}}}", "where must be true or false"),
        ("{time: ts, key: user, windows: {City: {value: count()}}}", "'City' is already a column"),
        (
            "{time: ts, key: user, windows: {n: {value: mean(rating), entity: city}}}",
            "which a split by user puts into different splits",
        ),
        ("{time: ts, joins: {n: {table: users, column: job}}}", "takes the table 'users', which is not among tables"),
        (
            "{time: ts, tables: {users: {entity: user, time: since}}, joins: {n: {table: users, column: job}}}",
            "feature_tables (empty) has none of it",
        ),
        ("{encodings: {n: {column: rating, how: rate}}}", "encodings.n names the target"),
        ("{encodings: {n: {column: user, how: hash}}}", "holds no texts"),
        ("{encodings: {n: {column: city, how: target}}}", "'rate', 'count' or 'hash'"),
        ("{time: city, key: user, windows: {n: {value: count()}}}", "No row has a value of 'n'"),
        ("{split: {by: order}}", "'key' or 'time'"),
        ("{time: late, split: {by: time}}", "The time column 'late' holds boolean values"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_sentence(place, spec, said):
    with pytest.raises(BadInput) as caught:
        place.features("rating", spec=spec, task="regression")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_of_one_entity_are_never_in_two_splits(place):
    made = place.features("rating", spec="{key: user, derive: {u: user + 0}}", task="regression")
    found = [set(place.table(split)["user"]) for split in SPLITS]
    assert len(set.union(*found)) == sum(map(len, found)) == 40
    assert sum(made.schema.rows.values()) == 600


def test_more_categories_than_a_model_should_carry_are_refused(place, monkeypatch):
    monkeypatch.setattr("components.features.encodings.MOST", 20)
    monkeypatch.setattr("components.features.run.MOST", 20)
    with pytest.raises(BadInput, match="user has more than 20 categories in the train split"):
        place.features("rating", spec="{encodings: {n: {column: user, how: count}}}", task="regression")


def test_a_table_that_is_no_longer_what_was_pinned_is_refused(place):
    tables = resolve_tables({"users": place.csv(users(), "users.csv")})
    place.csv(users().head(7), "users.csv")
    with pytest.raises(BadInput, match="changed between resolve"):
        place.features("rating", spec=SPEC, task="regression", feature_tables=tables)
