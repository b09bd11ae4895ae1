"""Bundles: what verifies, what is refused, and what raw rows become."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from components.errors import BadBundle, BadInput
from components.features.schema import FeatureColumn, FeatureSchema, InputColumn
from serving.bundle import digest_files, load, model_frame, verify
from serving.inputs import coerce
from tests.serving_bundle import rows, schema, write_bundle, write_manifest

CASES = [("binary", "onnx"), ("multiclass", "onnx"), ("regression", "onnx"), ("binary", "native")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return {case: (folder / "-".join(case), write_bundle(folder / "-".join(case), *case)) for case in CASES}


@pytest.fixture
def bundle(trained, tmp_path):
    source, _ = trained["binary", "onnx"]
    subprocess.run(["cp", "-r", source, tmp_path / "bundle"], check=True)
    return tmp_path / "bundle"


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_predictions_are_those_of_the_pipeline_that_was_trained(trained, case):
    folder, pipeline = trained[case]
    model = load(folder)
    frame = model_frame(rows(), schema(case[0]))
    wanted = pipeline.predict(frame) if case[0] == "regression" else pipeline.predict_proba(frame)
    found = model.predict(rows())
    assert model.runtime == case[1]
    assert found.dtype == np.float64
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.predict(pa.Table.from_pandas(rows())), found)


def test_an_intact_bundle_verifies(bundle):
    assert verify(bundle).files == digest_files(bundle)
    assert "bundle.json" not in verify(bundle).files


def test_an_altered_file_is_named(bundle):
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[100] ^= 1
    (bundle / "model.onnx").write_bytes(bytes(content))
    with pytest.raises(BadBundle, match=r"model\.onnx is altered"):
        load(bundle)


def test_a_missing_file_is_named(bundle):
    (bundle / "MLmodel").unlink()
    with pytest.raises(BadBundle, match="MLmodel is missing"):
        verify(bundle)


def test_an_extra_file_is_named(bundle):
    (bundle / "code").mkdir()
    (bundle / "code" / "evil.py").write_text("")
    with pytest.raises(BadBundle, match=r"code/evil\.py is not in the manifest"):
        verify(bundle)


@pytest.mark.parametrize("target", ["/etc/hostname", "MLmodel", "."])
def test_a_symbolic_link_is_refused_wherever_it_points(bundle, target):
    (bundle / "link").symlink_to(target)
    with pytest.raises(BadBundle, match="symbolic link, link"):
        verify(bundle)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "./MLmodel"])
def test_a_manifest_that_names_a_path_outside_is_refused(bundle, name):
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BadBundle, match="outside the bundle"):
        verify(bundle)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(BadBundle, match=r"no file bundle\.json"):
        verify(tmp_path)


def test_a_broken_manifest_says_which_field(bundle):
    (bundle / "bundle.json").write_text('{"framework": "caffe"}')
    with pytest.raises(BadBundle, match="not a valid manifest: framework"):
        verify(bundle)


def test_a_bundle_without_the_model_that_its_runtime_needs_is_refused(bundle):
    (bundle / "model.onnx").unlink()
    write_manifest(bundle, task="binary", classes=("No", "Yes"), runtime="onnx")
    with pytest.raises(BadBundle, match=r"lacks model\.onnx"):
        verify(bundle)


def test_a_native_model_with_a_function_in_it_is_refused_before_it_is_built(trained, tmp_path):
    import skops.io
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    subprocess.run(["cp", "-r", trained["binary", "native"][0], tmp_path / "bundle"], check=True)
    evil = Pipeline([("f", FunctionTransformer(np.exp)), ("m", trained["binary", "native"][1])])
    skops.io.dump(evil, tmp_path / "bundle" / "model.skops")  # skops itself trusts NumPy's functions
    write_manifest(tmp_path / "bundle", task="binary", classes=("No", "Yes"), runtime="native")
    with pytest.raises(BadBundle, match=r"may not hold: numpy\.exp"):
        load(tmp_path / "bundle")


def test_a_native_model_of_another_library_is_refused(trained, tmp_path):
    import skops.io
    from sklearn.svm import SVC

    subprocess.run(["cp", "-r", trained["binary", "native"][0], tmp_path / "bundle"], check=True)
    skops.io.dump(SVC(), tmp_path / "bundle" / "model.skops")
    write_manifest(tmp_path / "bundle", task="binary", classes=("No", "Yes"), runtime="native")
    with pytest.raises(BadBundle, match=r"sklearn\.svm\._classes\.SVC"):
        load(tmp_path / "bundle")


def test_histogram_boosting_with_categories_is_trusted(tmp_path):
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier

    from serving.trust import load_native

    data = np.column_stack([np.arange(60) % 3, np.linspace(0, 1, 60)])
    model = HistGradientBoostingClassifier(categorical_features=[0], max_iter=3).fit(data, np.arange(60) % 2)
    skops.io.dump(model, tmp_path / "model.skops")
    np.testing.assert_array_equal(load_native(tmp_path / "model.skops").predict(data), model.predict(data))


def test_a_process_that_runs_onnx_imports_no_table_library_and_writes_nothing_at_home(trained, tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from serving.bundle import load\n"
        "numbers = ('mean_radius', 'mean_texture', 'mean_smoothness', 'mean_concavity')\n"
        "columns = dict.fromkeys(numbers, [1.5, '2', None]) | {'size': ['small', None, 3], 'rough': [True, 0, 'no']}\n"
        "print(load(Path(sys.argv[1])).predict_columns(columns).shape)\n"
        "heavy = {'sklearn', 'skops', 'scipy', 'pandas', 'pyarrow', 'duckdb', 'ibis', 'kserve', 'torch'}\n"
        "print('onnxruntime' in sys.modules, heavy & set(sys.modules))\n"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", program, trained["binary", "onnx"][0]]
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    printed = subprocess.run(command, check=True, cwd=root, env=env, capture_output=True, text=True).stdout
    assert printed.splitlines() == ["(3, 2)", "True set()"]
    assert list(tmp_path.iterdir()) == []  # such as what onnxruntime would report to its maker


def test_a_missing_input_column_is_named_and_an_extra_one_ignored(trained):
    model = load(trained["binary", "onnx"][0])
    extra = rows(3).assign(customer="x")
    np.testing.assert_array_equal(model.predict(extra), model.predict(rows(3)))
    with pytest.raises(BadInput, match="'mean_texture' is missing"):
        model.predict(rows(3).drop(columns="mean_texture"))


def test_no_rows_give_no_predictions(trained):
    assert load(trained["multiclass", "onnx"][0]).predict(rows().head(0)).shape == (0, 3)


def test_text_that_reads_as_the_value_predicts_the_same_as_the_value(trained):
    model = load(trained["binary", "onnx"][0])
    plain = rows(8)
    text = plain.astype(object).where(plain.notna(), " ")
    text["mean_radius"] = plain["mean_radius"].map(lambda value: f" {value!r} ")
    text["rough"] = plain["rough"].map({True: "TRUE", False: "0"})
    np.testing.assert_array_equal(model.predict(text), model.predict(plain))


ONE_OF_EACH = FeatureSchema(
    task="regression",
    target="y",
    inputs=(
        InputColumn(name="n", type="number"),
        InputColumn(name="b", type="boolean"),
        InputColumn(name="s", type="string"),
        InputColumn(name="t", type="timestamp"),
    ),
    features=(FeatureColumn(name="n", kind="numeric"),),
    data_version="test",
)


def one_of_each(**columns):
    return coerce({"n": [0], "b": [0], "s": [""], "t": [None], **columns}, ONE_OF_EACH)


@pytest.mark.parametrize("blank", [None, "", "  ", float("nan"), "nan", float("inf")])
def test_a_blank_number_is_missing(blank):
    assert np.isnan(one_of_each(n=[blank])["n"][0])


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("n", "12 euros", "number"),
        ("n", "1_000", "number"),
        ("n", [1], "number"),
        ("b", "perhaps", "boolean"),
        ("b", 2, "boolean"),
        ("s", {"a": 1}, "string"),
        ("t", "tomorrow", "timestamp"),
        ("t", 3, "timestamp"),
    ],
)
def test_a_value_of_another_type_is_named_with_column_and_row(column, value, kind):
    good = {"n": 1, "b": True, "s": "", "t": "2024-05-01"}
    columns = {name: [first, value if name == column else first] for name, first in good.items()}
    with pytest.raises(BadInput, match=rf"'{column}', row 1: .* is not a {kind}"):
        coerce(columns, ONE_OF_EACH)


def test_numbers_in_a_text_column_become_their_text():
    column = coerce({"n": [0] * 5, "b": [0] * 5, "s": [5, 5.0, 2.5, True, None], "t": [None] * 5}, ONE_OF_EACH)["s"]
    assert column.tolist() == ["5", "5", "2.5", "true", None]


def test_timestamps_with_a_zone_are_converted_to_utc():
    column = one_of_each(t=["2024-05-01T12:00:00+02:00"])["t"]
    assert column[0] == np.datetime64("2024-05-01T10:00:00", "us")


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(BadInput, match="'b' has 2 rows, others have 1"):
        one_of_each(b=[0, 1])


def test_the_model_frame_has_nan_for_missing_numbers_and_empty_text_for_missing_categories():
    features = FeatureSchema(
        task="regression",
        target="y",
        inputs=(),
        features=(
            FeatureColumn(name="c", kind="categorical"),
            FeatureColumn(name="i", kind="numeric"),
            FeatureColumn(name="flag", kind="numeric"),
            FeatureColumn(name="code", kind="categorical"),
        ),
        data_version="test",
    )
    frame = pd.DataFrame(
        {
            "i": pd.array([1, None], dtype="Int64"),
            "c": ["x", None],
            "flag": [True, False],
            "code": [3.0, np.nan],
            "left out": [0, 0],
        },
        index=[7, 9],
    )
    found = model_frame(frame, features)
    assert list(found.columns) == ["c", "i", "flag", "code"]
    assert found["i"].dtype == found["flag"].dtype == np.float64
    assert found.loc[7].tolist() == ["x", 1.0, 1.0, "3"]
    assert found.loc[9, ["c", "code"]].tolist() == ["", ""]
    assert np.isnan(found.loc[9, "i"])


def test_derived_features_are_computed_from_the_request(tmp_path):
    import skops.io
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import Pipeline

    features = FeatureSchema(
        task="regression",
        target="y",
        inputs=(InputColumn(name="a", type="number"), InputColumn(name="b", type="number")),
        features=(FeatureColumn(name="total", kind="numeric", expression="a + b"),),
        data_version="test",
    )
    model = Pipeline([("m", Ridge(alpha=1e-9))]).fit(pd.DataFrame({"total": [0.0, 10.0]}), [0.0, 20.0])
    (tmp_path / "b").mkdir()
    skops.io.dump(model, tmp_path / "b" / "model.skops")
    (tmp_path / "b" / "features.json").write_text(features.model_dump_json())
    write_manifest(tmp_path / "b", task="regression", runtime="native")
    found = load(tmp_path / "b").predict_columns({"a": [1, "2"], "b": [2, 3.5]})
    np.testing.assert_allclose(found, [6.0, 11.0], atol=1e-6)
