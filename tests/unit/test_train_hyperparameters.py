"""Hyperparameters against the estimator's own."""

import pytest

from components.errors import BadInput
from components.features.schema import FeatureColumn, FeatureSchema, InputColumn
from components.train.hyperparameters import checked
from components.train.trainers import find

SCHEMA = FeatureSchema(
    task="binary",
    target="churn",
    classes=("No", "Yes"),
    inputs=(InputColumn(name="age", type="number"),),
    features=(FeatureColumn(name="age", kind="numeric"),),
    data_version="v1",
)
BOOSTING = "hist_gradient_boosting"


def test_a_misspelt_name_is_refused_with_the_near_match():
    with pytest.raises(BadInput, match=r"no hyperparameter 'learning_rat'.*did you mean 'learning_rate'"):
        checked(BOOSTING, find(BOOSTING), SCHEMA, {"learning_rat": 0.1})


def test_an_unknown_name_lists_the_valid_ones():
    with pytest.raises(BadInput, match=r"'zzz'.*l2_regularization.*max_leaf_nodes"):
        checked(BOOSTING, find(BOOSTING), SCHEMA, {"zzz": 1})


def test_an_unknown_trainer_is_refused_with_the_near_match():
    with pytest.raises(BadInput, match=r"no trainer 'lineer'.*'linear'"):
        find("lineer")


def test_the_seed_is_not_a_hyperparameter():
    with pytest.raises(BadInput, match="parameter 'seed'"):
        checked(BOOSTING, find(BOOSTING), SCHEMA, {"random_state": 3})


def test_whole_doubles_from_kfp_become_counts_and_rates_stay_rates():
    parameters = checked(BOOSTING, find(BOOSTING), SCHEMA, {"max_iter": 200.0, "max_depth": 3.0, "learning_rate": 1.0})
    assert (parameters["max_iter"], type(parameters["max_iter"])) == (200, int)
    assert (parameters["max_depth"], type(parameters["max_depth"])) == (3, int)
    assert type(parameters["learning_rate"]) is float


def test_class_weights_are_named_by_label():
    assert checked(BOOSTING, find(BOOSTING), SCHEMA, {"class_weight": {"Yes": 3.0}})["class_weight"] == {1: 3.0}
    with pytest.raises(BadInput, match="class 'Maybe'"):
        checked(BOOSTING, find(BOOSTING), SCHEMA, {"class_weight": {"Maybe": 3.0}})


def test_what_is_not_chosen_comes_from_the_defaults():
    parameters = checked(BOOSTING, find(BOOSTING), SCHEMA, {"learning_rate": 0.2})
    assert parameters["learning_rate"] == 0.2
    assert parameters["early_stopping"] is True
    assert parameters["min_samples_leaf"] == 20
