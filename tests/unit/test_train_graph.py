"""The ONNX graph against the model it was made of, where float32 graphs go wrong."""

from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from components.train.contract import Data, NoGraph, Run
from components.train.hyperparameters import checked
from components.train.parity import EXTREME, UNSEEN, compare, probes
from components.train.sklearn.fitted import FittedPipeline
from components.train.trainers import find
from tests.feature_sets import feature_set, mixed_frame, sklearn_frame

EXACT = 1e-12
TRAINERS = ["hist_gradient_boosting", "linear", "random_forest"]
SMALL = {"hist_gradient_boosting": {"max_iter": 60}, "random_forest": {"n_estimators": 20}}


def fitted(folder: Path, frame: pd.DataFrame, task, trainer="hist_gradient_boosting", **chosen):
    data = Data.read(feature_set(folder, frame, task))
    chosen = SMALL.get(trainer, {}) | chosen
    model = find(trainer).fit(data, checked(trainer, find(trainer), data.schema, chosen), Run(0))
    return data.schema, model, data.valid.inputs


def difference(schema, model, frame) -> float:
    parity = compare(model.graph(schema), frame, model.predict(frame), schema, EXACT)
    assert parity.rows == len(frame)
    assert parity.holds, parity.reason
    return parity.max_abs


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(
    ("name", "task"), [("breast_cancer", "binary"), ("wine", "multiclass"), ("diabetes", "regression")]
)
def test_graph_and_model_agree_on_real_and_made_up_rows(tmp_path, name, task, trainer):
    schema, model, valid = fitted(tmp_path, sklearn_frame(name), task, trainer)
    made_up = probes(valid, schema, model, 1)
    largest = difference(schema, model, pd.concat([valid, made_up]))
    assert largest < 1e-9


@pytest.mark.parametrize("trainer", TRAINERS)
def test_unseen_and_missing_categories_and_missing_numbers_agree(tmp_path, trainer):
    schema, model, valid = fitted(tmp_path, mixed_frame(), "binary", trainer)
    rows = valid.copy()
    rows["plan"] = np.resize(np.array(["basic", "plus", "pro", "", UNSEEN, "Pro", " pro"], object), len(rows))
    rows["city"] = np.resize(np.array(["city 1", UNSEEN, ""], object), len(rows))
    rows.loc[::2, "age"] = np.nan
    rows.loc[::3, "spend"] = np.nan
    assert difference(schema, model, rows) < EXACT


def test_the_graph_takes_the_models_branch_at_and_beside_every_threshold(tmp_path):
    # 0.1 steps: most thresholds are doubles that float32 moves to the other side of a value.
    frame = mixed_frame().assign(age=lambda f: f["age"].round(1))
    schema, model, valid = fitted(tmp_path, frame, "binary")
    trees = np.concatenate([tree.nodes for (tree,) in model.pipeline.named_steps["model"]._predictors])
    inner = trees[(trees["is_leaf"] == 0) & (trees["is_categorical"] == 0)]
    edges = np.unique(inner["num_threshold"])
    near = np.concatenate([edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)])
    rows = valid.iloc[np.resize(np.arange(len(valid)), len(near))].reset_index(drop=True).assign(age=near, spend=near)
    assert len(np.unique(near.astype("float32"))) < len(near)  # a float32 graph could not tell them apart
    assert difference(schema, model, rows) < EXACT


@pytest.mark.parametrize(("name", "task"), [("mixed", "binary"), ("wine", "multiclass"), ("diabetes", "regression")])
def test_a_forests_graph_rounds_to_float32_before_it_compares(tmp_path, name, task):
    frame = mixed_frame() if name == "mixed" else sklearn_frame(name)
    schema, model, valid = fitted(tmp_path, frame, task, "random_forest", n_estimators=50)
    for column, edges in model.edges().items():
        steps = [edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)]
        for _ in range(3):
            steps += [np.nextafter(steps[-2], -np.inf), np.nextafter(steps[-1], np.inf)]
        near = np.concatenate(steps)
        rows = valid.iloc[np.resize(np.arange(len(valid)), len(near))].reset_index(drop=True).assign(**{column: near})
        assert difference(schema, model, rows) < EXACT * max(1.0, np.abs(model.predict(rows)).max())


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(("name", "task"), [("mixed", "binary"), ("wine", "multiclass")])
def test_a_calibrated_model_and_its_graph_agree(tmp_path, name, task, trainer, method):
    frame = mixed_frame() if name == "mixed" else sklearn_frame(name)
    schema, model, valid = fitted(tmp_path, frame, task, trainer, calibration=method)
    assert type(model.pipeline.steps[-1][1]).__name__ == "CalibratedClassifierCV"
    rows = pd.concat([valid, probes(valid, schema, model, 4)])
    parity = compare(model.graph(schema), rows, model.predict(rows), schema, 1e-9)
    assert parity.holds, parity.reason


def test_isotonic_steps_do_not_depend_on_the_last_digits_of_a_score(tmp_path):
    random = np.random.default_rng(0)
    grade = random.integers(10, size=2000)
    target = np.where(random.random(2000) < 0.1 + grade / 12, "yes", "no")
    frame = pd.DataFrame({"grade": grade + 1e-11 * random.random(2000), "target": target})
    _, model, valid = fitted(tmp_path, frame, "binary", "linear", calibration="isotonic")
    (calibrator,) = model.pipeline.steps[-1][1].calibrated_classifiers_[0].calibrators
    assert np.diff(calibrator.X_thresholds_).min() > 1e-6
    scores = model.predict(valid)
    assert scores.min() > 0
    assert scores.max() < 1


def test_a_wide_ranging_number_keeps_its_digits_in_a_forest(tmp_path):
    # Seconds since 1970: float32 knows them to the nearest 128.
    seconds = 1.7e9 + np.arange(1000.0)
    frame = pd.DataFrame({"seen": seconds, "target": np.where(np.arange(1000) % 100 < 50, "yes", "no")})
    schema, model, valid = fitted(tmp_path, frame, "binary", "random_forest", min_samples_leaf=1)
    truth = (np.arange(1000) % 100 < 50)[(valid["seen"] - 1.7e9).to_numpy(int)]
    assert ((model.predict(valid)[:, 1] > 0.5) == truth).mean() > 0.95
    assert difference(schema, model, pd.concat([valid, probes(valid, schema, model, 5)])) < EXACT


def test_several_classes_do_not_repeat_a_forests_trees(tmp_path):
    schema, model, _ = fitted(tmp_path, sklearn_frame("digits"), "multiclass", "random_forest", n_estimators=10)
    (trees,) = [node for node in model.graph(schema).graph.node if node.op_type == "TreeEnsemble"]
    (roots,) = [given.ints for given in trees.attribute if given.name == "tree_roots"]
    assert len(roots) == 10


def test_more_categories_than_bins_are_grouped_the_same_way(tmp_path):
    random = np.random.default_rng(0)
    frame = mixed_frame(2000)
    frame["city"] = [f"city {int(n)}" for n in random.zipf(1.3, 2000).clip(max=900)]
    assert frame["city"].nunique() > 255
    for trainer in TRAINERS:
        schema, model, valid = fitted(tmp_path / trainer, frame, "binary", trainer)
        assert difference(schema, model, pd.concat([valid, probes(valid, schema, model, 2)])) < EXACT


@pytest.mark.parametrize("columns", [["age"], ["plan"], ["plan", "city"], ["empty", "age"]])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_few_columns_and_an_all_missing_one_agree(tmp_path, columns, trainer):
    frame = mixed_frame().assign(empty=np.nan)[[*columns, "target"]]
    schema, model, valid = fitted(tmp_path, frame, "binary", trainer)
    assert difference(schema, model, pd.concat([valid, probes(valid, schema, model, 3)])) < EXACT


def test_trees_of_a_single_leaf_agree(tmp_path):
    frame = sklearn_frame("diabetes")
    schema, model, valid = fitted(tmp_path, frame, "regression", min_samples_leaf=1000, early_stopping=False)
    assert difference(schema, model, valid) < 1e-9


@pytest.mark.parametrize("loss", ["poisson", "gamma", "absolute_error"])
def test_other_losses_agree(tmp_path, loss):
    schema, model, valid = fitted(tmp_path, sklearn_frame("diabetes"), "regression", loss=loss)
    assert difference(schema, model, valid) < 1e-9


def test_one_input_per_feature_under_its_own_name(tmp_path):
    schema, model, valid = fitted(tmp_path, mixed_frame(), "binary")
    session = onnxruntime.InferenceSession(model.graph(schema).SerializeToString())
    assert [(given.name, given.type, given.shape) for given in session.get_inputs()] == [
        ("age", "tensor(double)", ["N", 1]),
        ("city", "tensor(string)", ["N", 1]),
        ("plan", "tensor(string)", ["N", 1]),
        ("spend", "tensor(double)", ["N", 1]),
    ]
    label, probabilities = session.run(None, {name: valid[[name]].to_numpy() for name in valid})
    assert label.tolist() == probabilities.argmax(axis=1).tolist()
    assert probabilities.sum(axis=1) == pytest.approx(1)


def test_a_graph_that_moves_a_threshold_does_not_hold(tmp_path):
    schema, model, valid = fitted(tmp_path, mixed_frame(), "binary")
    wanted = model.predict(valid)
    for (tree,) in model.pipeline.named_steps["model"]._predictors:
        tree.nodes["num_threshold"] += 0.5
    parity = compare(model.graph(schema), valid, wanted, schema, 1e-6)
    assert not parity.holds
    assert parity.max_abs > 1e-3
    assert "differ by up to" in parity.reason


@pytest.mark.parametrize("name", ["linear", "hist_gradient_boosting"])
def test_huge_predictions_do_not_excuse_the_others(tmp_path, name):
    schema, model, valid = fitted(tmp_path, sklearn_frame("diabetes"), "regression", name)
    rows = pd.concat([valid, valid.head(5).assign(bmi=1e30)], ignore_index=True)
    wanted = model.predict(rows)
    graph = model.graph(schema)
    wanted[-5:] *= 1 + 1e-9  # of 1e30, as another order of summation would give
    assert compare(graph, rows, wanted, schema, 1e-6).holds
    wanted[0] += 0.1
    assert not compare(graph, rows, wanted, schema, 1e-6).holds


def test_probes_hold_what_breaks_graphs(tmp_path):
    schema, model, valid = fitted(tmp_path, mixed_frame(), "binary", "random_forest")
    made_up = probes(valid, schema, model, 0)
    assert {UNSEEN, ""} <= set(made_up["plan"])
    assert made_up["age"].isna().any()
    assert {1e30, -1e30, 1e-300, 1e39} <= set(made_up["age"]) | set(made_up["spend"])
    extreme = made_up[["age", "spend"]].abs().isin(np.abs(EXTREME))
    assert 0.1 < extreme.any(axis=1).mean() < 0.3
    assert not extreme.all(axis=1).any()
    at_edge = np.isin(made_up["age"], model.edges()["age"])
    beside = (
        np.isclose(made_up["age"].to_numpy()[:, None], model.edges()["age"], rtol=1e-6, atol=0).any(axis=1) & ~at_edge
    )
    assert at_edge.mean() > 0.05
    assert beside.mean() > 0.05
    assert (model.predict(made_up) >= 0).all()


def test_an_estimator_without_a_graph_says_which(tmp_path):
    from sklearn.dummy import DummyClassifier
    from sklearn.pipeline import Pipeline

    schema, model, _ = fitted(tmp_path, mixed_frame(), "binary")
    other = Pipeline([("prepare", model.pipeline.named_steps["prepare"]), ("model", DummyClassifier())])
    with pytest.raises(NoGraph, match="no ONNX graph for DummyClassifier"):
        FittedPipeline(other).graph(schema)
