"""The rows of training data that a bundle keeps: which, how many, and how they come back."""

import datetime
import json

import numpy as np
import pandas as pd
import pytest

from components.errors import BadBundle
from components.features.schema import FeatureColumn, FeatureSchema, InputColumn
from components.train import background
from components.train.run import train
from serving.background import FILE, Background
from serving.bundle import load, verify
from tests.feature_sets import feature_set, mixed_frame

KINDS = ("number", "string", "boolean", "timestamp")
SCHEMA = FeatureSchema(
    task="binary",
    target="target",
    classes=("no", "yes"),
    inputs=tuple(InputColumn(name=f"a {kind}", type=kind) for kind in KINDS),
    features=(FeatureColumn(name="a number", kind="numeric"),),
    data_version="v",
)


def table(rows):
    """A train split with each type of column, every seventh value of each missing."""
    index = np.arange(rows)
    first = datetime.datetime(2026, 1, 1, 12, 0, 0, 123456)
    frame = pd.DataFrame(
        {
            "a number": index + 0.1,
            "a string": pd.Series([f'é "{number}"' for number in index], dtype=object),
            "a boolean": pd.Series(index % 2 == 0, dtype="boolean"),
            "a timestamp": [first + datetime.timedelta(hours=int(number)) for number in index],
            "target": index % 2,
        }
    )
    frame.loc[index % 7 == 0, list(frame)[:4]] = None
    return frame


def drawn(folder, rows, seed=0, row_group_size=None):
    folder.mkdir(exist_ok=True)
    table(rows).to_parquet(folder / "train.parquet", row_group_size=row_group_size)
    return background.draw(folder, SCHEMA, seed)


def test_rows_come_back_from_the_file_as_they_were_drawn(tmp_path):
    kept = drawn(tmp_path, 300)
    kept.write(tmp_path)
    again = Background.read(tmp_path, SCHEMA)
    assert again.rows == kept.rows == 100
    for name, values in kept.columns.items():
        assert again.columns[name].dtype == values.dtype
        np.testing.assert_array_equal(again.columns[name], values)
    json.loads((tmp_path / FILE).read_text(), parse_constant=pytest.fail)  # no NaN, which is no JSON


def test_the_seed_draws_whole_rows_without_replacement_from_all_over_the_table(tmp_path):
    first, again, other = (drawn(tmp_path, 5_000, seed, 100).columns["a number"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)
    there = first[~np.isnan(first)]
    assert len(set(there)) == len(there) > 70
    assert (np.diff(there) > 0).all()
    assert there.min() < 700
    assert there.max() > 4_300
    rows = drawn(tmp_path, 5_000, 3, 100)
    for number, text in zip(rows.columns["a number"], rows.columns["a string"], strict=True):
        assert (text is None) if np.isnan(number) else (text == f'é "{int(number)}"')


def test_a_short_table_is_kept_whole(tmp_path):
    assert drawn(tmp_path, 9).rows == 9


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return feature_set(tmp_path_factory.mktemp("f") / "features", mixed_frame(300), "binary")


def test_a_trained_bundle_keeps_the_same_rows_each_time_under_its_digests(features, tmp_path):
    made = [train(features, tmp_path / name, trainer="linear", seed=5).manifest for name in ("a", "b")]
    assert made[0].files[FILE] == made[1].files[FILE]
    model = load(tmp_path / "a")
    assert model.background.rows == 100
    assert list(model.background.columns) == ["age", "city", "plan", "spend"]
    assert model.predict_columns(model.background.columns).shape == (100, 2)
    (tmp_path / "a" / FILE).write_text("{}")
    with pytest.raises(BadBundle, match=f"{FILE} is altered"):
        verify(tmp_path / "a")


def test_no_rows_are_kept_where_none_are_wanted_and_the_model_is_the_same(features, tmp_path, monkeypatch):
    kept = train(features, tmp_path / "kept", trainer="linear").manifest
    monkeypatch.setenv("SLUICEWAY_BACKGROUND_ROWS", "0")
    made = train(features, tmp_path / "none", trainer="linear").manifest
    assert FILE not in made.files
    assert made.recipe_digest == kept.recipe_digest
    assert load(tmp_path / "none").background is None


@pytest.mark.parametrize(
    "text", ["[1, 2]", '{"a number": [1]}', "{", '{"a number": 1}', json.dumps({f"a {kind}": [] for kind in KINDS})]
)
def test_a_file_of_anything_else_is_refused(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BadBundle, match=FILE):
        Background.read(tmp_path, SCHEMA)
