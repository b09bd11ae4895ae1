"""The ONNX graph of a network against the network, where graphs go wrong."""

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from components.train.contract import Data, Run
from components.train.keras.device import Device
from components.train.keras.fit import fit
from components.train.keras.settings import Settings
from components.train.parity import UNSEEN, compare, probes
from tests.feature_sets import feature_set, mixed_frame, sklearn_frame

CPU = Device(("CPU:0",), "fp32", 10**9, "On the CPU;")
TOLERANCE = 1e-5
FRAMES = {
    "binary": lambda: mixed_frame(400).assign(stamp=1.7e9 + np.arange(400) * 60.0, empty=np.nan, same=1.0),
    "multiclass": lambda: sklearn_frame("wine"),  # names with slashes
    "regression": lambda: sklearn_frame("diabetes"),
}


@pytest.fixture(scope="module", params=FRAMES)
def made(request, tmp_path_factory):
    """A data set and a network of its task, trained until its weights are far from where they began."""
    task = request.param
    data = Data.read(feature_set(tmp_path_factory.mktemp(task), FRAMES[task](), task))
    return data, fit(data, Settings(epochs=8, width=16, blocks=1, learning_rate=0.01), Run(0), CPU)


def test_graph_and_model_agree_on_real_and_made_up_rows(made):
    data, fitted = made
    rows = pd.concat([data.valid.inputs, probes(data.valid.inputs, data.schema, fitted, 1)], ignore_index=True)
    scores = fitted.predict(rows)
    assert scores.std() > 0.05
    parity = compare(fitted.graph(data.schema), rows, scores, data.schema, TOLERANCE)
    assert parity.rows == len(rows)
    assert parity.holds, parity.reason


def test_graph_and_model_agree_on_values_beyond_all_others(made):
    data, fitted = made
    numbers = data.columns("numeric")
    extreme = [np.nan, 0.0, -0.0, 5e-324, 1e-30, 1e38, 3.5e38, 1e308, -1e308, 1.7976931348623157e308, 0.1, -1e-300]
    rows = data.valid.inputs.iloc[np.resize(np.arange(20), len(extreme) * len(numbers))].reset_index(drop=True)
    for index, name in enumerate(numbers):
        rows.loc[index * len(extreme) : (index + 1) * len(extreme) - 1, name] = extreme
    for name, values in {"plan": ["", UNSEEN, "Pro", "pro "], "city": ["", UNSEEN]}.items():
        if name in rows:
            rows[name] = np.resize(np.array([*values, "pro", "city 1"], object), len(rows))
    scores = fitted.predict(rows)
    assert np.isfinite(scores).all()
    parity = compare(fitted.graph(data.schema), rows, scores, data.schema, TOLERANCE)
    assert parity.holds, parity.reason


def test_a_graph_of_other_weights_does_not_hold(made):
    data, fitted = made
    layer = fitted.core.get_layer("output")
    kernel, bias = layer.get_weights()
    wanted = fitted.predict(data.valid.inputs)
    layer.set_weights([kernel * 1.01, bias])
    parity = compare(fitted.graph(data.schema), data.valid.inputs, wanted, data.schema, TOLERANCE)
    layer.set_weights([kernel, bias])
    assert not parity.holds


def test_one_input_per_feature_under_the_columns_own_name(made):
    data, fitted = made
    session = onnxruntime.InferenceSession(fitted.graph(data.schema).SerializeToString())
    kinds = {"numeric": "tensor(double)", "categorical": "tensor(string)"}
    assert [(given.name, given.type, given.shape) for given in session.get_inputs()] == [
        (feature.name, kinds[feature.kind], ["N", 1]) for feature in data.schema.features
    ]
    frame = data.valid.inputs
    label, *scores = session.run(None, {name: frame[[name]].to_numpy() for name in frame})
    if data.schema.task == "regression":
        assert label.shape == (len(frame), 1)
    else:
        assert label.tolist() == scores[0].argmax(axis=1).tolist()
        assert scores[0].sum(axis=1) == pytest.approx(1)


def test_the_ends_of_the_bins_are_where_parity_is_probed(made):
    data, fitted = made
    edges = fitted.edges()
    inputs = data.train.inputs
    assert set(edges) == {name for name in data.columns("numeric") if inputs[name].nunique() > 1}
    for name, values in edges.items():
        assert values.min() == pytest.approx(inputs[name].min())
        assert values.max() == pytest.approx(inputs[name].max())


def test_an_unseen_category_counts_as_the_average_one(made):
    data, fitted = made
    if not fitted.encoding.vocabularies:
        pytest.skip("no categories")
    vocabulary = fitted.encoding.vocabularies["plan"]
    rows = data.valid.inputs.head(1)
    given = {word: fitted.predict(rows.assign(plan=word))[0, 1] for word in (*vocabulary.words, UNSEEN)}
    unseen = given.pop(UNSEEN)
    assert min(given.values()) < unseen < max(given.values())
