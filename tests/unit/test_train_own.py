"""A trainer of the user's own: how it is found, what it is given, what it may return."""

import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.errors import BadBundle, BadInput
from components.train.recipe import recipe
from components.train.run import train
from components.train.trainers import find
from serving.bundle import load
from tests.feature_sets import feature_set, mixed_frame, sklearn_frame

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_trainer"

HEAD = """
from components.train.own import Onnx, trainer
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

def numbers(data):
    return ColumnTransformer([("numbers", SimpleImputer(), data.columns("numeric"))])
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of a user's own that can be imported."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    (tmp_path / "code").mkdir()

    def write(text: str, name: str = "theirs") -> str:
        (tmp_path / "code" / f"{name}.py").write_text(HEAD + textwrap.dedent(text))
        sys.modules.pop(name, None)
        return name

    yield write
    for name in ("theirs", "my_trainers"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return feature_set(tmp_path_factory.mktemp("mixed"), mixed_frame(), "binary")


GOOD = """
@trainer(framework="sklearn", space={"c": {"low": 0.1, "high": 10.0}})
def logistic(data, run, *, c: float = 1.0, rounds: int = 500):
    model = LogisticRegression(C=c, max_iter=rounds, random_state=run.seed)
    return Pipeline([("prepare", numbers(data)), ("model", model)]).fit(data.train.inputs, data.train.target)
"""


@pytest.mark.parametrize(
    ("name", "chosen"), [("extra_trees", {"n_estimators": 20}), ("small_network", {"epochs": 3, "hidden": 8})]
)
def test_the_example_trains_and_serves(tmp_path, mixed, monkeypatch, name, chosen):
    if name == "small_network":
        pytest.importorskip("torch")
    monkeypatch.syspath_prepend(EXAMPLE)
    made = train(mixed, tmp_path / "bundle", trainer=f"my_trainers:{name}", hyperparameters=chosen, seed=5)
    assert made.manifest.framework == ("sklearn" if name == "extra_trees" else "onnx")
    assert made.manifest.runtime == "onnx"
    assert made.manifest.parity is not None
    assert made.manifest.parity.rows > 500
    assert made.manifest.recipe["parameters"].items() >= chosen.items()
    assert len(made.history.epochs) == (0 if name == "extra_trees" else 3)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(EXAMPLE)])
    sys.modules.pop("my_trainers")
    scores = load(tmp_path / "bundle").predict(pd.read_parquet(mixed / "test.parquet"))
    assert scores.sum(axis=1) == pytest.approx(1)
    assert "my_trainers" not in sys.modules


def test_the_example_does_regression_and_several_classes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    for name, task in (("diabetes", "regression"), ("wine", "multiclass")):
        folder = feature_set(tmp_path / name, sklearn_frame(name), task)
        chosen = {"n_estimators": 10}
        made = train(folder, tmp_path / "b", trainer="my_trainers:extra_trees", hyperparameters=chosen)
        assert made.manifest.runtime == "onnx"


def test_keyword_only_arguments_are_the_hyperparameters(tmp_path, mixed, module):
    name = f"{module(GOOD)}:logistic"
    trainer = find(name)
    assert trainer.parameters("binary") == {"c": 1.0, "rounds": 500}
    assert trainer.space("binary") == {"c": {"low": 0.1, "high": 10.0}}
    made = train(mixed, tmp_path / "b", trainer=name, hyperparameters={"rounds": 300.0, "c": 2})
    assert made.manifest.recipe["parameters"] == {"c": 2, "rounds": 300}
    with pytest.raises(BadInput, match=r"no hyperparameter 'round': did you mean 'rounds'"):
        train(mixed, tmp_path / "b", trainer=name, hyperparameters={"round": 3})
    with pytest.raises(BadInput, match=r"'rounds' of theirs:logistic is 'many': Input should be a valid integer"):
        train(mixed, tmp_path / "b", trainer=name, hyperparameters={"rounds": "many"})


def test_changed_code_is_another_recipe(module, mixed):
    from components.train.contract import Data

    schema = Data.read(mixed).schema
    given = (f"{module(GOOD)}:logistic", "sklearn", {}, 0, 1e-6)
    before = recipe(schema, *given)
    assert recipe(schema, *given) == before
    module(GOOD.replace("500", "501"))
    assert recipe(schema, *given) != before
    assert "code" not in recipe(schema, "linear", *given[1:])["versions"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere_at_all:f", r"no module 'nowhere_at_all' here .* PYTHONPATH; on a cluster set train_image"),
        ("theirs.deeper:f", r"cannot be imported|no module 'theirs.deeper'"),
        ("theirs:logistics", r"no 'logistics': did you mean 'logistic'"),
        ("theirs:numbers", r"theirs:numbers is no trainer: mark the function with @trainer"),
        ("theirs:", r"must read package.module:function"),
        (":logistic", r"must read package.module:function"),
        ("../theirs:logistic", r"must read package.module:function"),
        ("os:getcwd", r"os:getcwd is no trainer"),
        ("os:nothing", r"no function marked with @trainer"),
    ],
)
def test_a_name_that_leads_to_no_trainer_says_why(module, name, said):
    module(GOOD)
    with pytest.raises(BadInput, match=said):
        find(name)


def test_what_the_users_module_lacks_is_named(module):
    name = module("import a_library_nobody_has\n" + GOOD)
    with pytest.raises(BadInput, match=r"cannot be imported: No module named 'a_library_nobody_has'"):
        find(f"{name}:logistic")


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("data, run, depth=3", "after the star"),
        ("data, run, *, depth", "with a default"),
        ("data", "must take"),
        ("data, run, **more", "after the star"),
    ],
)
def test_a_signature_that_cannot_be_checked_is_refused(module, signature, said):
    name = module(f'@trainer(framework="sklearn")\ndef mine({signature}):\n    return None\n')
    with pytest.raises(BadInput, match=said):
        find(f"{name}:mine")


def test_an_unknown_framework_is_refused(module):
    name = module('@trainer(framework="xgboost")\ndef mine(data, run):\n    return None\n')
    with pytest.raises(BadInput, match=r"'xgboost'\): it must be one of sklearn, torch, tensorflow, onnx"):
        find(f"{name}:mine")


RETURNS = {
    "nothing": ("sklearn", "None", r"returned nothing; with framework='sklearn' it must return a fitted scikit-learn"),
    "another kind": ("onnx", "LogisticRegression()", r"returned a LogisticRegression; with framework='onnx'"),
    "not fitted": ("sklearn", 'Pipeline([("p", numbers(data)), ("m", LogisticRegression())])', r"not fitted"),
    "class names": (
        "sklearn",
        'Pipeline([("p", numbers(data)), ("m", LogisticRegression())])'
        ".fit(data.train.inputs, [['zero', 'one'][t] for t in data.train.target])",
        r"knows the classes one, zero; fit it on data.train.target",
    ),
    "no missing values": (
        "sklearn",
        'Pipeline([("p", ColumnTransformer([("n", "passthrough", ["spend"])])), ("m", LogisticRegression())])'
        ".fit(data.train.inputs, data.train.target)",
        r"fails on rows without values.*NaN",
    ),
    "no probabilities": (
        "sklearn",
        'Pipeline([("p", numbers(data)), ("m", Perceptron())]).fit(data.train.inputs, data.train.target)',
        r"a Perceptron, which has no probabilities",
    ),
}


@pytest.mark.parametrize("case", RETURNS)
def test_what_cannot_be_a_bundles_model_is_refused(tmp_path, mixed, module, case):
    framework, returned, said = RETURNS[case]
    name = module(
        f"""
        from sklearn.linear_model import Perceptron

        @trainer(framework="{framework}")
        def mine(data, run):
            return {returned}
        """
    )
    with pytest.raises(BadInput, match=said):
        train(mixed, tmp_path / "bundle", trainer=f"{name}:mine")
    assert not (tmp_path / "bundle").exists()


def test_a_type_that_is_not_on_the_list_is_refused_by_name(tmp_path, mixed, module):
    name = module(
        """
        from sklearn.naive_bayes import GaussianNB

        @trainer(framework="sklearn")
        def mine(data, run):
            return Pipeline([("p", numbers(data)), ("m", GaussianNB())]).fit(data.train.inputs, data.train.target)
        """
    )
    with pytest.raises(BadBundle, match=r"sklearn.naive_bayes.GaussianNB.*serving/trust.py.*can be an ONNX graph"):
        train(mixed, tmp_path / "bundle", trainer=f"{name}:mine")


def test_a_pipeline_without_a_graph_here_is_served_by_scikit_learn(tmp_path, mixed, module):
    name = module(
        """
        from sklearn.preprocessing import FunctionTransformer

        @trainer(framework="sklearn")
        def mine(data, run):
            steps = [("p", numbers(data)), ("again", SimpleImputer(add_indicator=True)), ("m", LogisticRegression())]
            return Pipeline(steps).fit(data.train.inputs, data.train.target)
        """
    )
    made = train(mixed, tmp_path / "bundle", trainer=f"{name}:mine")
    assert made.manifest.runtime == "native"
    assert made.manifest.parity is not None
    assert "SimpleImputer that adds" in made.manifest.parity.reason
    assert load(tmp_path / "bundle").predict(pd.read_parquet(mixed / "test.parquet")).shape[1] == 2


GRAPH = """
import numpy as np
from components.train.contract import Data
from components.train.graph import Draft, probabilities

@trainer(framework="onnx")
def mine(data, run, *, off: float = 0.0, compared: bool = True):
    draft = Draft()
    age = draft.node("Where", draft.node("IsNaN", "age"), draft.constant(np.array(40.0)), "age")
    last = draft.node("Sigmoid", draft.node("Div", age, draft.constant(np.array(-1e3))))
    shares = draft.node("Concat", draft.node("Sub", draft.constant(np.array(1.0)), last), last, axis=1)
    model = draft.finish(probabilities(draft, shares), data.schema)

    def predict(frame):
        last = 1 / (1 + np.exp(np.clip(frame["age"].fillna(40.0).to_numpy() / 1e3, -700, 700))) + off
        return np.stack([1 - last, last], axis=1)

    return Onnx(model, predict if compared else None, {"trees": 1.0})
"""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_graph_is_compared_with_what_it_was_made_of(tmp_path, mixed, module):
    name = f"{module(GRAPH)}:mine"
    made = train(mixed, tmp_path / "bundle", trainer=name)
    assert made.manifest.parity is not None
    assert 0 <= made.manifest.parity.max_abs < 1e-9
    assert made.metrics["trees"] == 1
    assert load(tmp_path / "bundle").predict(pd.read_parquet(mixed / "test.parquet")).shape[1] == 2
    with pytest.raises(BadInput, match=r"graph of theirs:mine is not the model .* differ by up to 0.001"):
        train(mixed, tmp_path / "other", trainer=name, hyperparameters={"off": 1e-3})
    assert train(mixed, tmp_path / "third", trainer=name, hyperparameters={"compared": False}).manifest.parity


def test_mlflow_loads_a_graph_of_ones_own(tmp_path, mixed, module):
    import mlflow

    train(mixed, tmp_path / "bundle", trainer=f"{module(GRAPH)}:mine")
    rows = pd.read_parquet(mixed / "test.parquet")
    model = load(tmp_path / "bundle")
    frame = rows[[feature.name for feature in model.schema.features]].fillna({"plan": ""})
    given = mlflow.pyfunc.load_model(str(tmp_path / "bundle")).predict(frame)
    assert np.abs(given - model.predict(rows)).max() < 1e-12
    assert mlflow.onnx.load_model(str(tmp_path / "bundle")).graph.input[0].name == "age"


def test_a_keras_model_takes_raw_columns(tmp_path, mixed, module):
    pytest.importorskip("tensorflow")
    name = module(
        """
        @trainer(framework="tensorflow")
        def mine(data, run):
            from serving.keras_model import tensorflow
            tensorflow()
            import keras
            given = [
                keras.Input((1,), name=f.name, dtype="float64" if f.kind == "numeric" else "string")
                for f in data.schema.features
            ]
            numbers = [
                keras.ops.cast(keras.ops.where(keras.ops.isnan(one), 0.0, keras.ops.clip(one, 0, 99)), "float32")
                for one in given if one.dtype == "float64"
            ]
            shares = keras.layers.Dense(2, activation="softmax")(keras.ops.concatenate(numbers, axis=1))
            return keras.Model(given, shares)
        """
    )
    made = train(mixed, tmp_path / "bundle", trainer=f"{name}:mine")
    assert made.manifest.runtime == "native"
    scores = load(tmp_path / "bundle").predict(pd.read_parquet(mixed / "test.parquet"))
    assert scores.sum(axis=1) == pytest.approx(1, abs=1e-6)
