"""Explanations: against closed forms, the definition, and shap; within the time; for bundles of any framework."""

import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import BadInput
from serving.background import Background
from serving.bundle import load
from serving.explain import NoBackground, TooSlow, explain, reply
from serving.explain.game import Game
from serving.explain.methods import EXACT_COLUMNS
from serving.explain.sampling import estimate
from serving.server.served import Served
from tests.serving_bundle import rows, schema, write_bundle, write_manifest

WIDE = EXACT_COLUMNS + 4
GUIDE = Path(__file__).parents[2] / "docs" / "explain.md"


def game(function, explained, background, seconds=60.0):
    """A game over a function of a matrix (rows, columns)."""
    pool = {
        f"c{place}": np.concatenate([explained[:, place], background[:, place]]) for place in range(len(explained.T))
    }
    made = Game(
        lambda columns: function(np.stack(list(columns.values()), axis=1)),
        pool,
        len(explained),
        time.monotonic() + seconds,
    )
    made.begin(None)
    return made


def estimated(function, explained, background, *, precision=0.01, seed=0, seconds=60.0):
    return estimate(game(function, explained, background, seconds), precision, np.random.default_rng(seed))


def draws(columns, *, explained=3, background=20, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(explained, columns)), random.normal(size=(background, columns))


def tangled(a):
    """Three columns act together, and two others; the last does nothing."""
    return np.tanh(a[:, 0] * a[:, 1] * a[:, 2]) + a[:, 3] * a[:, 4] + a[:, 1] ** 2


@pytest.mark.parametrize("columns", [1, 2, EXACT_COLUMNS, WIDE])
def test_of_a_linear_model_they_are_the_coefficients_times_the_distance_from_the_mean(columns):
    explained, background = draws(columns)
    coefficients = np.arange(columns) - 2.0
    found = estimated(lambda a: a @ coefficients + 5.0, explained, background)
    assert found.contributions == pytest.approx(coefficients * (explained - background.mean(axis=0)), abs=1e-12)
    assert found.errors == pytest.approx(0.0, abs=1e-12)
    assert found.end == ("exact" if columns <= EXACT_COLUMNS else "precision")


def test_few_columns_are_explained_as_the_definition_says():
    explained, background = draws(6, explained=2, background=3)
    background[0, 1] = explained[0, 1]  # a column that does not differ
    wanted = np.zeros((2, 6))
    for row, other, order in itertools.product(range(2), range(3), itertools.permutations(range(6))):
        now = background[other].copy()
        before = tangled(now[None])[0]
        for column in order:
            now[column] = explained[row, column]
            after = tangled(now[None])[0]
            wanted[row, column] += (after - before) / (3 * math.factorial(6))
            before = after
    found = estimated(tangled, explained, background)
    assert (found.end, found.permutations) == ("exact", 0)
    assert found.contributions == pytest.approx(wanted, abs=1e-12)


def tree(a):
    """A regression tree for the diabetes data, times 100."""
    bmi, pressure, sugar = a[:, 2], a[:, 3], a[:, 8]
    left = np.where(sugar < 0.3, np.where(pressure < 2.0, 100.0, 140.0), 165.0 + 5 * a[:, 1])
    right = np.where(bmi < 7.0, 190.0 + a[:, 5] * a[:, 6], np.where(pressure < 3.0, 220.0, 260.0))
    return np.where(bmi < 1.0, left, right)


BY_SHAP = [  # shap 0.51: shap.explainers.Exact(tree, shap.maskers.Independent(rows 0-39))(rows 50, 123 and 400)
    [0, -3.971739802, -29.746330117, -6, 0, 0.775059592, 0.231652155, 0, -13.17502501, 0],
    [0, 3.574565822, -3.265907246, -1.166666667, 0, -49.918044537, -47.681504995, 0, 13.702236989, 0],
    [0, -1.985869901, 23.682072834, 9.166666667, 0, -3.77524146, -10.525548692, 0, -3.520141865, 0],
]


@pytest.mark.parametrize("is_sampled", [False, True])
def test_a_tree_is_explained_as_shap_explains_it(is_sampled, monkeypatch):
    from sklearn.datasets import load_diabetes

    if is_sampled:
        monkeypatch.setattr("serving.explain.sampling.EXACT_COLUMNS", 0)
    data = load_diabetes(return_X_y=True)[0] * 100
    found = estimated(tree, data[[50, 123, 400]], data[:40], precision=0.005)
    assert found.end == ("precision" if is_sampled else "exact")
    assert found.contributions == pytest.approx(np.array(BY_SHAP), abs=1.0 if is_sampled else 1e-8)
    assert (np.abs(found.contributions - BY_SHAP) <= 4.5 * found.errors + 1e-8).all()


def test_the_standard_errors_are_those_that_the_estimates_have(monkeypatch):
    explained, background = draws(6)
    truth = estimated(tangled, explained, background).contributions[:, :3]
    monkeypatch.setattr("serving.explain.sampling.EXACT_COLUMNS", 0)
    off = []
    for seed in range(40):
        found = estimated(tangled, explained, background, precision=0.05, seed=seed)
        off.append((found.contributions[:, :3] - truth) / found.errors[:, :3])
    assert 0.75 < np.sqrt(np.mean(np.square(off))) < 1.3


@given(
    seed=st.integers(0, 10_000),
    columns=st.integers(3, WIDE),
    precision=st.sampled_from([0.5, 0.1]),
    is_cut=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_dummies_twins_and_sums_are_as_they_must_be(seed, columns, precision, is_cut):
    explained, background = draws(columns, explained=2, background=7, seed=seed)
    explained[:, 1], background[:, 1] = explained[:, 0], background[:, 0]  # twins, below

    def function(a):
        nonlocal calls
        calls += 1
        if is_cut and calls > 3:
            one.deadline = 0.0
        return np.sin(a[:, 0] + a[:, 1]) * (1 + a[:, 2:-1].sum(axis=1))  # the last column is a dummy

    calls, one = 0, None
    one = game(function, explained, background)
    found = estimate(one, precision, np.random.default_rng(seed))
    assert found.contributions.sum(axis=1) == pytest.approx(one.full - one.empty.mean(axis=1), abs=1e-9)
    assert (found.contributions[:, -1] == 0).all()
    assert (found.errors[:, -1] == 0).all()
    apart = np.abs(found.contributions[:, 0] - found.contributions[:, 1])
    assert (apart <= 6 * (found.errors[:, 0] + found.errors[:, 1]) + 1e-9).all() or found.end == "seconds"


def slow(a):
    time.sleep(0.0002 * len(a))
    return tangled(a)


@pytest.mark.parametrize("columns", [EXACT_COLUMNS, WIDE])
def test_a_slow_model_is_explained_within_the_time_as_well_as_it_allows(columns):
    explained, background = draws(columns, explained=1, background=100)
    began = time.monotonic()
    found = estimated(slow, explained, background, precision=0.0, seconds=0.4)
    assert time.monotonic() - began < 2
    assert found.end == "seconds"
    assert 2 <= found.background < 100
    assert found.contributions.sum(axis=1) == pytest.approx(tangled(explained) - tangled(background).mean())
    assert (found.errors[:, 0] > 0).all()


def test_later_rounds_that_the_time_cuts_off_change_nothing():
    explained, background = draws(WIDE, explained=1, background=5)
    found = estimated(slow, explained, background, precision=0.0, seconds=0.4)
    assert (found.end, found.background) == ("seconds", 5)
    assert found.permutations % 10 == 0
    assert found.contributions.sum(axis=1) == pytest.approx(tangled(explained) - tangled(background).mean())


def test_a_model_too_slow_for_the_time_is_said_to_be():
    explained, background = draws(WIDE)
    with pytest.raises(TooSlow, match="3 rows of 14 columns takes longer"):
        estimated(slow, explained, background, seconds=0.001)


def with_background(folder, count=10):
    Background(_raw(count)).write(folder)
    made = json.loads((folder / "bundle.json").read_text())
    write_manifest(folder, **{key: made[key] for key in ("task", "classes", "runtime", "prediction_bins")})
    return Served("model", "1", load(folder))


def _raw(count):
    from serving.inputs import coerce, columns_of

    return coerce(columns_of(rows(count), schema()), schema())


CASES = [("binary", "onnx"), ("multiclass", "onnx"), ("regression", "onnx"), ("binary", "native")]


@pytest.mark.parametrize(("task", "runtime"), CASES)
def test_raw_rows_of_a_bundle_are_explained_by_their_raw_columns(tmp_path, task, runtime):
    write_bundle(tmp_path / "b", task, runtime)
    served = with_background(tmp_path / "b")
    raw = rows(40).iloc[[0, 31, 39]]  # row 39 lacks its size, row 0 more
    columns = {name: raw[name].astype(object).where(raw[name].notna(), None).tolist() for name in raw}
    found = explain(served, columns, 3, seconds=30)
    scores = served.score_columns(columns)
    base = served.score_columns(served.model.background.columns).mean(axis=0)
    for row, one in enumerate(found):
        assert one.ended == "exact"
        assert list(one.contributions) == list(raw)
        assert one.base_value + sum(one.contributions.values()) == pytest.approx(one.prediction, abs=1e-9)
        if task == "regression":
            assert one.of is None
            assert (one.prediction, one.base_value) == pytest.approx((scores[row], base))
        else:
            best = int(scores[row].argmax())
            assert one.of == served.model.manifest.classes[best]
            assert (one.prediction, one.base_value) == pytest.approx((scores[row, best], base[best]))


def test_a_class_may_be_chosen_and_of_two_the_other_is_the_opposite(tmp_path):
    write_bundle(tmp_path / "b")
    served = with_background(tmp_path / "b")
    columns = {name: values[:2] for name, values in _raw(2).items()}
    no, yes = (explain(served, columns, 2, seconds=30, of=label)[1] for label in ("No", "Yes"))
    assert no.contributions == pytest.approx({name: -value for name, value in yes.contributions.items()}, abs=1e-6)
    with pytest.raises(BadInput, match="no class 'Maybe'; its classes are No, Yes"):
        explain(served, columns, 2, seconds=1, of="Maybe")


def test_the_reply_is_json_whatever_happened(tmp_path):
    write_bundle(tmp_path / "b")
    served = with_background(tmp_path / "b", count=1)
    columns = {name: values[:1] for name, values in _raw(9).items()}
    told = json.loads(json.dumps(reply(explain(served, columns, 1, seconds=30)), allow_nan=False))
    (one,) = told["explanations"]
    (shown,) = json.loads(GUIDE.read_text().split("```json")[1].split("```")[0])["explanations"]
    assert list(one) == list(shown)
    assert sum(shown["contributions"].values()) == pytest.approx(shown["prediction"] - shown["base_value"])
    assert set(one["contributions"]) == set(one["standard_errors"]) == set(columns)


def test_what_cannot_be_explained_is_said(tmp_path):
    write_bundle(tmp_path / "b")
    columns = _raw(2)
    with pytest.raises(NoBackground, match="no background rows to explain against: train it again"):
        explain(Served("model", "1", load(tmp_path / "b")), columns, 2, seconds=1)
    served = with_background(tmp_path / "b")
    with pytest.raises(BadInput, match="'mean_radius', row 1: 'wide' is not a number"):
        explain(served, {**columns, "mean_radius": [1.0, "wide"]}, 2, seconds=1)
    with pytest.raises(BadInput, match="65 rows to explain; the most is 64"):
        explain(served, _raw(65), 65, seconds=1)
    assert explain(served, {name: values[:0] for name, values in columns.items()}, 0, seconds=1) == []
