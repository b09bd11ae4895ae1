"""The metrics against scikit-learn's, weighted and not."""

import numpy as np
import pytest
from sklearn import metrics as reference

from components.evaluate.bootstrap import bootstrap, draws_for, percentile_interval, resamples
from components.evaluate.curves import calibration, confusion, roc
from components.evaluate.metrics import HIGHER_IS_BETTER, NAMES, measure, metrics

RANDOM = np.random.default_rng(0)


def binary(rows=400, ties=True):
    target = RANDOM.integers(2, size=rows)
    score = np.clip(RANDOM.normal(0.4 + 0.2 * target, 0.2), 0.01, 0.99)
    score = score.round(1) if ties else score
    score = np.clip(score, 0.05, 0.95)
    return target, np.c_[1 - score, score]


def expected_binary(target, scores, weight=None):
    score, label = scores[:, 1], scores.argmax(axis=1)
    return {
        "roc_auc": reference.roc_auc_score(target, score, sample_weight=weight),
        "average_precision": reference.average_precision_score(target, score, sample_weight=weight),
        "log_loss": reference.log_loss(target, scores, sample_weight=weight),
        "brier": reference.brier_score_loss(target, score, sample_weight=weight),
        "accuracy": reference.accuracy_score(target, label, sample_weight=weight),
        "f1": reference.f1_score(target, label, sample_weight=weight),
    }


@pytest.mark.parametrize("ties", [True, False])
def test_binary_metrics_are_scikit_learns(ties):
    target, scores = binary(ties=ties)
    assert measure("binary", target, scores) == pytest.approx(expected_binary(target, scores))


def test_weighted_binary_metrics_are_scikit_learns():
    target, scores = binary()
    weights = next(resamples(len(target), 5, 1))
    for name, metric in metrics("binary", target, scores):
        values = metric(weights)
        for row, value in zip(weights, values, strict=True):
            assert value == pytest.approx(expected_binary(target, scores, row)[name]), name


def test_multiclass_metrics_are_scikit_learns():
    target = RANDOM.integers(4, size=300)
    scores = RANDOM.dirichlet(np.ones(4), 300) + np.eye(4)[target] * 0.3
    scores /= scores.sum(axis=1, keepdims=True)
    label = scores.argmax(axis=1)
    assert measure("multiclass", target, scores) == pytest.approx(
        {
            "roc_auc": reference.roc_auc_score(target, scores, multi_class="ovr", average="macro"),
            "log_loss": reference.log_loss(target, scores),
            "accuracy": reference.accuracy_score(target, label),
            "f1": reference.f1_score(target, label, average="macro"),
        }
    )


def test_regression_metrics_are_scikit_learns_far_from_zero_too():
    target = RANDOM.normal(1e6, 3, 300)
    scores = target + RANDOM.normal(0, 2, 300)
    assert measure("regression", target, scores) == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(target, scores),
            "mae": reference.mean_absolute_error(target, scores),
            "r2": reference.r2_score(target, scores),
        }
    )


def test_every_metric_knows_which_way_is_good():
    assert {name for names in NAMES.values() for name in names} == set(HIGHER_IS_BETTER)


def test_an_auc_of_one_class_is_not_a_number():
    assert np.isnan(measure("binary", np.ones(5, int), np.full((5, 2), 0.5))["roc_auc"])


def test_a_prediction_that_is_not_a_number_makes_every_metric_not_a_number():
    target, scores = binary()
    scores[3] = np.nan
    assert all(np.isnan(value) for value in measure("binary", target, scores).values())


def test_resamples_draw_as_many_rows_as_there_are_and_repeat_with_the_seed():
    (first,), (again,), (other,) = (list(resamples(50, 200, seed)) for seed in (1, 1, 2))
    assert first.shape == (200, 50)
    assert (first.sum(axis=1) == 50).all()
    assert (first == again).all()
    assert (first != other).any()


def test_the_auc_interval_covers_the_truth_as_often_as_it_says():
    # Two normals a standard deviation apart: AUC = Phi(1 / sqrt 2).
    truth, covered, random = 0.7602499389065233, 0, np.random.default_rng(3)
    for seed in range(200):
        target = np.repeat([0, 1], 60)
        score = random.normal(target, 1.0)
        scores = np.c_[-score, score]
        (found,) = bootstrap("binary", target, [scores], 200, seed)
        interval = found["roc_auc"].interval()
        covered += interval.low <= truth <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


def test_a_model_compared_with_itself_differs_by_nothing():
    target, scores = binary()
    one, two = bootstrap("binary", target, [scores, scores.copy()], 100, 0)
    for name in one:
        difference = one[name].minus(two[name]).interval()
        assert (difference.low, difference.high) == (0, 0)


def test_pairing_makes_the_difference_of_like_models_far_surer_than_either():
    target, scores = binary(ties=False)
    like = np.clip(scores[:, 1] + RANDOM.normal(0, 0.01, len(target)), 0, 1)
    one, two = bootstrap("binary", target, [scores, np.c_[1 - like, like]], 300, 0)
    alone, paired = one["roc_auc"].interval(), one["roc_auc"].minus(two["roc_auc"]).interval()
    assert paired.high - paired.low < (alone.high - alone.low) / 4


def test_no_interval_where_many_resamples_lack_a_class():
    target = np.r_[np.zeros(30, int), 1]
    (found,) = bootstrap("binary", target, [np.c_[1 - target * 0.8, target * 0.8]], 200, 0)
    assert found["roc_auc"].interval().low is None
    assert percentile_interval(np.full(10, np.nan)).high is None


def test_large_tables_take_fewer_resamples_never_fewer_than_two_hundred():
    assert draws_for(1_000, 1_000) == 1_000
    assert draws_for(500_000, 1_000) == 400
    assert draws_for(10**9, 1_000) == 200
    assert draws_for(10**9, 50) == 50


def test_the_roc_curve_is_short_finite_and_has_the_same_area():
    target, scores = binary(5_000, ties=False)
    curve = roc(target == 1, scores[:, 1])
    assert len(curve.thresholds) <= 100
    assert np.isfinite(curve.thresholds).all()
    assert curve.thresholds == sorted(curve.thresholds, reverse=True)
    assert (curve.false_positive_rate[0], curve.true_positive_rate[-1]) == (0, 1)
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(reference.roc_auc_score(target, scores[:, 1]), abs=0.002)


def test_calibration_of_true_probabilities_lies_on_the_diagonal():
    score = np.random.default_rng(1).random(20_000)
    positive = np.random.default_rng(2).random(20_000) < score
    assert all(abs(mean - share) < 0.03 for mean, share in calibration(positive, score))


def test_confusion_counts_true_classes_in_rows():
    counts = confusion(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]]), ["no", "yes"])
    assert counts.counts == [[1, 1], [0, 1]]
