"""What the network reads of the columns, and that the saved model reads the same."""

import numpy as np
import pandas as pd
import pytest

from components.errors import BadInput
from components.train.contract import Data
from components.train.feature_set import Split
from components.train.keras import encoding as module
from components.train.keras.encoding import BINS, Encoding
from tests.feature_sets import feature_set, mixed_frame


def encoded(tmp_path, frame, task="binary"):
    data = Data.read(feature_set(tmp_path, frame, task))
    return data, Encoding.fit(data.train, data.schema)


def numbers_of(values) -> tuple[Encoding, np.ndarray]:
    """An encoding of one numeric column, and the column standardised."""
    from components.features.schema import FeatureColumn, FeatureSchema, InputColumn

    schema = FeatureSchema(
        task="regression",
        target="y",
        inputs=(InputColumn(name="x", type="number"),),
        features=(FeatureColumn(name="x", kind="numeric"),),
        data_version="v",
    )
    split = Split(pd.DataFrame({"x": np.asarray(values, "float64")}), np.arange(len(values), dtype="float64"))
    made = Encoding.fit(split, schema)
    return made, made.encode(split).numbers[:, 0]


def test_unseen_and_missing_categories_have_codes_of_their_column(tmp_path):
    data, made = encoded(tmp_path, mixed_frame())
    rows = data.train.inputs.head(3).assign(plan=["pro", "", "Pro"], city=["nowhere", "city 1", ""])
    codes = made.codes(rows)
    city, plan = made.offsets
    assert codes[0, 0] == city
    assert codes[2, 0] == city  # no city was missing in the train split
    assert codes[2, 1] == plan
    assert len({*codes[:, 1]}) == 3
    assert codes.max() < made.size


def test_the_rarest_of_too_many_categories_share_the_unseen_code(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_CATEGORIES", 5)
    data, made = encoded(tmp_path, mixed_frame())
    vocabulary = made.vocabularies["city"]
    counts = data.train.inputs["city"].value_counts()
    assert len(vocabulary.words) == 5
    assert sum(vocabulary.counts) == counts.head(5).sum()
    assert vocabulary.others == counts.iloc[5:].sum()
    assert (made.codes(data.train.inputs)[:, 0] == made.offsets[0]).sum() == vocabulary.others


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).lognormal(0, 4, 500),
        1.7e9 + np.arange(500.0),  # a time in seconds
        np.arange(500) * 1e-200,
        np.arange(-250, 250) * 1e300,
        [*[0.0] * 490, *range(10)],
    ],
    ids=["skewed", "time", "tiny", "huge", "mostly nought"],
)
def test_any_scale_gives_bins_that_float32_tells_apart(values):
    made, standardised = numbers_of(values)
    numbers = made.numbers
    assert np.isfinite(standardised).all()
    assert 1 <= len(numbers.low) <= BINS
    assert (numbers.width > 0).all()
    assert ((numbers.low + numbers.width) - numbers.low > 0).all()
    assert numbers.low[0] == standardised.min()


def test_gaps_are_told_to_the_network_only_where_the_train_split_has_some():
    assert numbers_of([1.0, 2.0, np.nan, 4.0])[0].numbers.gaps.tolist() == [0]
    assert numbers_of([1.0, 2.0, 3.0, 4.0])[0].numbers.gaps.tolist() == []


@pytest.mark.parametrize("values", [[np.nan] * 5, [3.0] * 5])
def test_a_column_that_says_nothing_is_not_learnt_from_and_alone_is_refused(tmp_path, values):
    frame = mixed_frame(100)[["plan", "target"]].assign(empty=np.resize(values, 100))
    _, made = encoded(tmp_path, frame)
    assert made.numbers.inputs == 0
    with pytest.raises(BadInput, match="nothing to learn from"):
        encoded(tmp_path / "alone", frame.drop(columns="plan"))


def test_the_target_of_a_regression_is_standardised(tmp_path):
    frame = mixed_frame().drop(columns="target").rename(columns={"spend": "target"})
    data, made = encoded(tmp_path, frame, "regression")
    target = made.encode(data.train).target
    assert (target.mean(), target.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))
