"""The gate's checks: what passes, what does not, and that the unmeasured never does."""

import math

import numpy as np
import pytest

from components.errors import BadInput
from components.evaluate import gate
from components.evaluate.bootstrap import Distribution
from components.evaluate.decision import Check, Decision, Measured
from components.evaluate.decision import Interval as Bounds

NAN = float("nan")


def around(value: float, spread: float = 0.01, draws: int = 400) -> Distribution:
    return Distribution(value, value + spread * np.random.default_rng(0).normal(size=draws))


def auc(minimum="auto", margin=0.02):
    return gate.policy("binary", "auto", minimum, margin, 20)


CONSTANT = Distribution(0.5, np.full(400, 0.5))


def test_better_than_chance_passes_the_automatic_floor_and_says_the_numbers():
    check = gate.floor(auc(), around(0.8), CONSTANT)
    assert check.passed
    assert "0.8 [" in check.reason
    assert "0.5 of a constant prediction" in check.reason


def test_chance_does_not_pass_the_automatic_floor():
    assert not gate.floor(auc(), around(0.505), CONSTANT).passed


@pytest.mark.parametrize(("minimum", "passed"), [("0.8", True), ("0.81", False)])
def test_a_stated_minimum_holds_for_the_value_itself(minimum, passed):
    assert gate.floor(auc(minimum), around(0.8), CONSTANT).passed is passed


def test_for_errors_less_is_better():
    policy = gate.policy("regression", "auto", "50", 0.02, 20)
    constant = Distribution(80, np.full(400, 80.0))
    assert gate.floor(policy, around(49, 1), constant).passed
    assert not gate.floor(policy, around(51, 1), constant).passed
    automatic = gate.policy("regression", "auto", "auto", 0.02, 20)
    assert gate.floor(automatic, around(70, 1), constant).passed
    assert not gate.floor(automatic, around(79.9, 1), constant).passed


def test_equal_and_better_challengers_are_not_worse():
    assert gate.not_worse(auc(), around(0.8), around(0.8), "3").passed
    assert gate.not_worse(auc(), around(0.85), around(0.8), "3").passed


def test_a_worse_challenger_is_blocked_with_both_values_in_the_reason():
    check = gate.not_worse(auc(), around(0.7), around(0.8), "3")
    assert not check.passed
    assert check.name == "not worse than champion 3"
    assert "0.7 against the champion's 0.8" in check.reason


def test_a_difference_that_may_be_chance_is_blocked_and_says_so():
    unsure = Distribution(0.8, np.random.default_rng(1).normal(0.8, 0.05, 400))
    check = gate.not_worse(auc(), unsure, Distribution(0.8, np.full(400, 0.8)), "3")
    assert not check.passed
    assert "may be chance" in check.reason


def test_the_margin_is_a_share_for_errors_and_absolute_for_rates():
    rmse = gate.policy("regression", "auto", "auto", 0.02, 20)
    steady = Distribution(100, np.full(400, 100.0))
    assert gate.not_worse(rmse, Distribution(101.9, np.full(400, 101.9)), steady, "1").passed
    assert not gate.not_worse(rmse, Distribution(102.1, np.full(400, 102.1)), steady, "1").passed


@pytest.mark.parametrize("broken", [Distribution(NAN, np.full(400, NAN)), Distribution(0.9, np.full(400, NAN))])
def test_what_is_not_a_number_fails_every_check(broken):
    assert not gate.floor(auc(), broken, CONSTANT).passed
    assert not gate.floor(auc("0.1"), broken, CONSTANT).passed
    assert not gate.not_worse(auc(), broken, around(0.5), "1").passed
    assert not gate.not_worse(auc(), around(0.9), broken, "1").passed


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[0.5, NAN], [0.4, 0.6]], "not numbers"),
        ([[0.5, 0.5], [0.5, 0.5]], "same prediction"),
        ([[0.5, 0.9], [0.4, 0.6]], "do not sum to 1"),
        ([[-0.2, 1.2], [0.4, 0.6]], "leave 0 to 1"),
    ],
)
def test_insane_probabilities_are_refused(scores, said):
    check = gate.sane_predictions("binary", np.array(scores))
    assert not check.passed
    assert said in check.reason


def test_too_few_rows_and_too_rare_a_class_are_refused():
    assert "19 test rows" in gate.enough_rows("regression", np.arange(19.0), (), 20).reason
    rare = gate.enough_rows("binary", np.r_[np.zeros(50, int), 1, 1], ("no", "yes"), 20)
    assert not rare.passed
    assert "2 test rows of class 'yes'" in rare.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metric": "rmse"}, "no metric of a binary task: use roc_auc"),
        ({"minimum": "high"}, "neither a number nor 'auto'"),
        ({"minimum": "nan"}, "not a finite number"),
        ({"margin": -0.1}, "must be 0 or more"),
        ({"margin": NAN}, "must be 0 or more"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(change, said):
    with pytest.raises(BadInput, match=said):
        gate.policy(**({"task": "binary", "metric": "auto", "minimum": "auto", "margin": 0.0, "rows": 1} | change))


def test_a_decision_survives_json_with_undefined_numbers_as_null(tmp_path):
    decision = Decision(
        passed=False,
        recipe_digest="r",
        bundle_digest="b",
        data_version="v",
        primary_metric="roc_auc",
        confidence=0.95,
        bootstrap=10,
        seed=0,
        rows=3,
        metrics={"roc_auc": Measured(value=math.nan, interval=Bounds(), higher_is_better=True)},
        checks=(Check(name="floor", passed=False, value=math.inf, reason="undefined"),),
    )
    path = tmp_path / "decision"
    path.write_text(decision.model_dump_json())
    assert "NaN" not in path.read_text()
    assert Decision.read(path) == decision
    assert decision.metrics["roc_auc"].value is None


@pytest.mark.parametrize("text", [None, "{}", "not json"])
def test_a_missing_or_broken_decision_says_what_to_do(tmp_path, text):
    path = tmp_path / "decision"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match="run the evaluate step"):
        Decision.read(path)
