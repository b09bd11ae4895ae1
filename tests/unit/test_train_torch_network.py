"""The network as a bundle holds it: plain data, weights, and a graph that agrees with both."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from components.errors import BadBundle, BadInput
from components.train.contract import Data, Run
from components.train.parity import UNSEEN, compare, probes
from components.train.torch.trainer import TRAINER
from serving.schema import ARCHITECTURE_FILE, NATIVE_FILES
from serving.torch_model import load, squashed
from tests.feature_sets import feature_set, mixed_frame, sklearn_frame

WEIGHTS = NATIVE_FILES["torch"]


def trained(folder, frame, task, **chosen):
    data = Data.read(feature_set(folder, frame, task))
    return data, TRAINER.fit(data, TRAINER.parameters(task) | {"epochs": 3, "width": 32} | chosen, Run(1, "cpu"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("mixed"), mixed_frame(), "binary")


@pytest.fixture
def saved(mixed, tmp_path):
    mixed[1].save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("embedding", ["none", "piecewise", "periodic"])
@pytest.mark.parametrize(("name", "task"), [("mixed", "binary"), ("wine", "multiclass"), ("diabetes", "regression")])
def test_graph_and_model_agree_on_real_and_made_up_rows(tmp_path, name, task, embedding):
    frame = mixed_frame() if name == "mixed" else sklearn_frame(name)
    data, fitted = trained(tmp_path, frame, task, numeric_embedding=embedding, blocks=2)
    rows = pd.concat([data.valid.inputs, probes(data.valid.inputs, data.schema, fitted, 1)], ignore_index=True)
    for position, value in enumerate([1e300, -1e300, np.finfo("float64").tiny, np.nan, 1e-320]):
        rows.loc[position, data.columns("numeric")] = value
    predicted = fitted.predict(rows)
    assert np.isfinite(predicted).all()
    parity = compare(fitted.graph(data.schema), rows, predicted, data.schema, 1e-5)
    assert parity.holds, parity.reason
    if task != "regression":
        assert parity.max_abs < 1e-6
        assert np.abs(predicted.sum(axis=1) - 1).max() < 1e-12


def test_one_member_and_no_block_are_a_network_too(tmp_path):
    data, fitted = trained(tmp_path, mixed_frame(), "binary", members=1, blocks=0)
    rows = data.valid.inputs
    assert compare(fitted.graph(data.schema), rows, fitted.predict(rows), data.schema, 1e-6).holds


def test_columns_that_never_vary_or_are_never_there_do_not_matter(tmp_path):
    frame = mixed_frame().assign(constant=5.0, nothing=np.nan, rare=[f"r{n}" for n in range(600)])
    data, fitted = trained(tmp_path, frame, "binary")
    rows = data.valid.inputs
    changed = rows.assign(constant=-7e8, rare="r1")
    assert (fitted.predict(rows) == fitted.predict(changed)).all()
    assert compare(fitted.graph(data.schema), rows, fitted.predict(rows), data.schema, 1e-6).holds


def test_a_table_without_any_value_is_refused(tmp_path):
    frame = mixed_frame()[["age", "target"]].assign(age=np.nan)
    with pytest.raises(BadInput, match="there is nothing to learn from"):
        trained(tmp_path, frame, "binary")


def test_numbers_are_squashed_in_order_and_without_overflow():
    values = np.array([-np.inf, -1e308, -1.0, 0.0, 1.0, 2.0, 1e308, np.inf, np.nan])
    squashed_ = squashed(values, np.array(1.0), np.array(2.0))
    assert (np.diff(squashed_[:-1]) >= 0).all()
    assert np.abs(squashed_).max() <= 3
    assert squashed_[-1] == squashed_[4] == 0.0


def test_unseen_categories_are_one_and_missing_ones_are_another(mixed):
    data, fitted = mixed
    rows = data.valid.inputs
    unseen = fitted.predict(rows.assign(plan=UNSEEN))
    assert (unseen == fitted.predict(rows.assign(plan="Pro"))).all()
    assert (unseen != fitted.predict(rows.assign(plan=""))).any()  # it was in the train split


def test_a_saved_model_predicts_the_same_to_the_bit_in_any_chunks(mixed, saved):
    data, fitted = mixed
    wanted = fitted.predict(data.train.inputs)
    columns = {name: data.train.inputs[name].to_numpy() for name in data.train.inputs}
    loaded = load(saved, data.schema)
    assert (loaded.predict(columns) == wanted).all()
    assert loaded.predict({name: values[:0] for name, values in columns.items()}).shape == (0, 2)


def test_only_plain_data_is_saved(saved):
    assert sorted(path.name for path in saved.iterdir()) == [ARCHITECTURE_FILE, WEIGHTS]
    assert not (saved / WEIGHTS).read_bytes().startswith((b"\x80", b"PK"))


ARCHITECTURES = {
    "another version": ({"version": 2}, "version"),
    "an unknown field": ({"loader": "os.system"}, "loader"),
    "an unknown embedding": ({"numeric_embedding": "eval"}, "numeric_embedding"),
    "a wider network": ({"width": 33}, "is float32 of shape .* says float32 of"),
    "a deeper network": ({"blocks": 2}, "lacks 'net.blocks.1"),
    "a network of any size": ({"width": 10**9}, "width"),
    "a large network": ({"width": 65_536}, "is float32 of shape"),
    "other features": ({"numeric": []}, "takes other features"),
    "another task": ({"task": "regression"}, "predicts for another task"),
    "more outputs": ({"outputs": 2}, "binary has one output"),
}


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_an_architecture_that_is_not_the_models_is_refused(mixed, saved, case):
    changed, reason = ARCHITECTURES[case]
    architecture = json.loads((saved / ARCHITECTURE_FILE).read_text())
    (saved / ARCHITECTURE_FILE).write_text(json.dumps(architecture | changed))
    began = time.monotonic()
    with pytest.raises(BadBundle, match=reason):
        load(saved, mixed[0].schema)
    assert time.monotonic() - began < 5


def test_a_category_that_is_there_twice_is_refused(mixed, saved):
    architecture = json.loads((saved / ARCHITECTURE_FILE).read_text())
    architecture["categorical"][0]["vocabulary"][1] = architecture["categorical"][0]["vocabulary"][0]
    (saved / ARCHITECTURE_FILE).write_text(json.dumps(architecture))
    with pytest.raises(BadBundle, match="a category is there twice"):
        load(saved, mixed[0].schema)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda arrays: arrays | {"more": np.zeros(1)}, "holds 'more'"),
        (lambda arrays: {name: value for name, value in arrays.items() if name != "net.head"}, "lacks 'net.head'"),
        (lambda arrays: arrays | {"net.head": arrays["net.head"].astype("float64")}, "net.head is float64"),
        (lambda arrays: arrays | {"target": np.array([0.0, np.nan])}, "target holds a value that is not finite"),
    ],
)
def test_weights_that_are_not_the_architectures_are_refused(mixed, saved, change, reason):
    save_file(change(load_file(saved / WEIGHTS)), saved / WEIGHTS)
    with pytest.raises(BadBundle, match=reason):
        load(saved, mixed[0].schema)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 100])
def test_what_is_no_safetensors_file_is_refused(mixed, saved, content):
    (saved / WEIGHTS).write_bytes(content)
    with pytest.raises(BadBundle, match="is not a safetensors file"):
        load(saved, mixed[0].schema)
