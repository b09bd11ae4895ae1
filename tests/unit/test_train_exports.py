"""Other forms of the graph: what they weigh, what they lose, and where they do not apply."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from components.errors import BadInput
from components.features.schema import FeatureColumn, FeatureSchema, InputColumn
from components.train.contract import Data
from components.train.exports import check_kinds, export
from components.train.feature_set import Split
from components.train.graph import Draft
from components.train.parity import compare, onnx_predictions
from components.train.run import train
from serving.bundle import verify
from serving.schema import BundleManifest
from tests.feature_sets import feature_set, mixed_frame

KINDS = ("int8", "fp16", "ort")
ROWS = 400


@dataclass(frozen=True)
class Net:
    """A small network as a graph, with rows and what it predicts of them."""

    graph: object
    schema: FeatureSchema
    valid: Split
    scores: np.ndarray


def net(task: str, scale: float = 1.0) -> Net:
    """Numbers brought to unit scale in float32, an embedding of text, three layers of float32."""
    from onnx import TensorProto

    random = np.random.default_rng(0)
    numbers = [f"x{index}" for index in range(8)]
    schema = FeatureSchema(
        task=task,
        target="target",
        classes=("no", "yes") if task == "binary" else (),
        inputs=(*(InputColumn(name=n, type="number") for n in numbers), InputColumn(name="c", type="string")),
        features=(
            *(FeatureColumn(name=n, kind="numeric") for n in numbers),
            FeatureColumn(name="c", kind="categorical"),
        ),
        data_version="v",
    )

    def weights(*shape):
        return draft.constant((random.normal(size=shape) / np.sqrt(shape[0])).astype("float32"))

    draft = Draft()
    unit = draft.constant(np.array(scale, "float32"))
    columns = [draft.node("Div", draft.node("Cast", name, to=TensorProto.FLOAT), unit) for name in numbers]
    code = draft.node("Cast", draft.encode("c", {"a": 0.0, "b": 1.0}, 2.0), to=TensorProto.INT64)
    text = draft.node("Reshape", draft.node("Gather", weights(3, 16), code), draft.constant(np.array([-1, 16])))
    hidden = draft.node("Concat", *columns, text, axis=1)
    hidden = draft.node("Relu", draft.node("Gemm", hidden, weights(24, 128), weights(128)))
    hidden = draft.node("Relu", draft.node("Gemm", hidden, weights(128, 128), weights(128)))
    ends = 2 if task == "binary" else 1
    raw = draft.node("Cast", draft.node("MatMul", hidden, weights(128, ends)), to=TensorProto.DOUBLE)
    if task == "binary":
        draft.node("Softmax", raw, axis=1, output="probabilities")
        draft.node("ArgMax", "probabilities", axis=1, keepdims=0, output="label")
    else:
        draft.node("Identity", raw, output="value")
    graph = draft.finish(["label", "probabilities"] if task == "binary" else ["value"], schema)
    frame = pd.DataFrame({name: random.normal(size=ROWS) * scale for name in numbers})
    frame["c"] = random.choice(["a", "b", "z"], ROWS)
    scores = onnx_predictions(graph.SerializeToString(), frame, schema)
    noise = random.normal(size=ROWS)
    target = (scores[:, 1] + noise * 0.2 > 0.5).astype("int64") if task == "binary" else scores + noise * 0.1
    return Net(graph, schema, Split(frame, target), scores)


@pytest.fixture(scope="module")
def binary():
    return net("binary")


def made_of(one, folder, kinds=KINDS):
    return export(one.graph, kinds, folder, one.valid, one.scores, one.schema)


def test_each_form_of_a_network_is_written_with_its_size_and_its_loss(binary, tmp_path):
    made = made_of(binary, tmp_path)
    whole = len(binary.graph.SerializeToString())
    assert [made[kind].file for kind in KINDS] == [
        "exports/model.int8.onnx",
        "exports/model.fp16.onnx",
        "exports/model.ort",
    ]
    for one in made.values():
        assert one.bytes == (tmp_path / one.file).stat().st_size
        assert (one.rows, one.metric, one.reason) == (ROWS, "roc_auc", "")
        assert one.p999_abs <= one.max_abs
    assert made["fp16"].bytes < 0.65 * whole
    assert made["int8"].bytes < 0.45 * whole
    assert 0 < made["fp16"].max_abs < 0.005
    assert 0 < made["int8"].max_abs < 0.05
    assert made["ort"].max_abs < 1e-6
    assert abs(made["int8"].change) < 0.01
    assert made["ort"].change == 0


def test_the_loss_is_that_of_the_file_as_a_device_uses_it(binary, tmp_path):
    made = made_of(binary, tmp_path)
    for kind, at_once in (("int8", 1), ("fp16", 0)):
        given = onnx_predictions(str(tmp_path / made[kind].file), binary.valid.inputs, binary.schema, at_once)
        assert made[kind].max_abs == np.abs(given - binary.scores).max()


def test_int8_holds_its_weights_as_integers(binary, tmp_path):
    import onnx

    made_of(binary, tmp_path, ["int8"])
    graph = onnx.load(tmp_path / "exports" / "model.int8.onnx").graph
    assert sum(node.op_type == "MatMulInteger" for node in graph.node) == 3
    assert not any(node.op_type in ("Gemm", "MatMul") for node in graph.node)


def test_half_precision_leaves_numbers_as_they_came_in_alone(tmp_path):
    large = net("binary", scale=1e9)  # as timestamps are, far beyond what half precision holds
    made = made_of(large, tmp_path, ["fp16"])
    assert made["fp16"].file
    assert made["fp16"].max_abs < 0.005


def test_regression_is_measured_by_its_own_metric(tmp_path):
    made = made_of(net("regression"), tmp_path)
    assert all(one.metric == "rmse" and one.value > 0 for one in made.values())
    assert made["ort"].change == pytest.approx(0, abs=1e-6)


def test_predictions_that_are_not_finite_keep_no_file(binary, tmp_path):
    broken = Split(binary.valid.inputs.assign(x0=1e300), binary.valid.target)
    made = export(binary.graph, ["fp16"], tmp_path, broken, binary.scores, binary.schema)["fp16"]
    assert made.file == ""
    assert "predictions are not finite" in made.reason
    assert not list((tmp_path / "exports").iterdir())


def test_a_long_split_is_measured_on_evenly_spaced_rows(binary, tmp_path, monkeypatch):
    monkeypatch.setattr("components.train.exports.ROWS", 150)
    assert made_of(binary, tmp_path, ["ort"])["ort"].rows == 134


def test_an_auc_of_one_class_is_left_open_and_survives_the_manifest(binary, tmp_path):
    one_class = Split(binary.valid.inputs, np.zeros(ROWS, "int64"))
    made = export(binary.graph, ["ort"], tmp_path, one_class, binary.scores, binary.schema)["ort"]
    assert (made.value, made.change) == (None, None)
    assert type(made).model_validate_json(made.model_dump_json()) == made


def test_a_kind_that_there_is_not_is_refused_before_anything_is_written(binary, tmp_path):
    with pytest.raises(BadInput, match=r"no export 'int4': did you mean 'int8'\?"):
        made_of(binary, tmp_path, ["ort", "int4"])
    with pytest.raises(BadInput, match="no export 'quantised'"):
        check_kinds(["quantised"])
    assert not list(tmp_path.iterdir())


def test_a_graph_that_onnxruntime_cannot_run_is_a_reason_and_no_crash(binary, tmp_path):
    broken = type(binary.graph)()
    broken.CopyFrom(binary.graph)
    next(node for node in broken.graph.node if node.op_type == "Softmax").op_type = "Sofamax"
    made = export(broken, KINDS, tmp_path, binary.valid, binary.scores, binary.schema)
    assert all(one.file == "" and "could not make or run it" in one.reason for one in made.values())
    parity = compare(broken, binary.valid.inputs, binary.scores, binary.schema, 1e-6)
    assert not parity.holds
    assert "onnxruntime could not run the graph" in parity.reason


def test_without_a_graph_there_is_a_reason(binary, tmp_path):
    made = export(None, KINDS, tmp_path, binary.valid, binary.scores, binary.schema)
    assert all("no ONNX graph that holds parity" in one.reason for one in made.values())


@pytest.mark.parametrize("trainer", ["hist_gradient_boosting", "linear"])
def test_doubles_have_nothing_to_shrink_but_an_ort_form_that_lies_in_the_bundle(trainer, tmp_path):
    import onnx

    features = feature_set(tmp_path / "features", mixed_frame(300), "binary")
    chosen = {"max_iter": 5} if trainer == "hist_gradient_boosting" else {}
    train(features, tmp_path / "bundle", trainer=trainer, hyperparameters=chosen)
    data, bundle = Data.read(features), tmp_path / "bundle"
    graph = onnx.load(bundle / "model.onnx")
    scores = onnx_predictions(str(bundle / "model.onnx"), data.valid.inputs, data.schema)
    made = export(graph, KINDS, bundle, data.valid, scores, data.schema)
    assert (
        made["int8"].reason
        == made["fp16"].reason
        == ("not applicable: the graph has no float32 layer, only trees or doubles")
    )
    assert made["ort"].max_abs < 1e-12
    rewritten(bundle, made)
    assert verify(bundle).exports["ort"].file in verify(bundle).files


def rewritten(bundle, made):
    from serving.bundle import digest_files

    manifest = BundleManifest.read(bundle)
    manifest = manifest.model_copy(update={"exports": made, "files": digest_files(bundle)})
    (bundle / "bundle.json").write_text(manifest.model_dump_json())
