"""Exports for devices: a client with onnxruntime and numpy alone predicts what the server predicts."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from components.errors import BadBundle, BadInput
from components.features.schema import FILE as FEATURES_FILE
from components.features.schema import FeatureColumn, FeatureSchema, InputColumn
from components.train.run import train
from pipelines.cli import app
from serving.bundle import digest_files, load
from serving.edge.export import export
from serving.edge.manifest import EdgeManifest
from tests.feature_sets import feature_set, mixed_frame
from tests.serving_bundle import write_bundle
from tests.serving_process import Server

CLIENT = Path(__file__).parents[2] / "examples" / "edge" / "client.py"
GUIDE = Path(__file__).parents[2] / "docs" / "edge.md"
ALONE = (
    "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__');"
    "found = {'onnx', 'pandas', 'serving', 'components', 'pydantic'} & set(sys.modules); assert not found, found"
)


def on_device(folder, rows):
    """What the client prints, started away from the repository with nothing but its libraries."""
    command = [sys.executable, "-I", "-c", ALONE, str(CLIENT), str(folder)]
    done = subprocess.run(command, input=json.dumps(rows), capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout))


@pytest.fixture(scope="module")
def client():
    spec = importlib.util.spec_from_file_location("client", CLIENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A torch bundle, and raw rows of its test split as a request has them."""
    home = tmp_path_factory.mktemp("network")
    features = feature_set(home / "features", mixed_frame(400), "binary")
    train(features, home / "bundle", trainer="torch", hyperparameters={"epochs": 3, "width": 64}, device="cpu")
    return home / "bundle", raw(features)


def raw(features):
    table = pd.read_parquet(features / "test.parquet").drop(columns="target").head(30)
    return json.loads(table.to_json(orient="records", date_format="iso"))


def test_a_device_predicts_what_the_server_answers_within_what_the_export_says(network, tmp_path):
    bundle, rows = network
    plain, small = (
        export(bundle, tmp_path / name, quantize=quantize) for name, quantize in (("plain", False), ("small", True))
    )
    server = Server(bundle, "1", tmp_path / "server.log")
    server.start()
    try:
        server.wait()
        url = f"http://{server.address}/v1/models/ours:predict"
        told = httpx.post(url, json={"instances": rows}).json()["predictions"]
        answered = np.array([list(one["probabilities"].values()) for one in told])
    finally:
        server.kill()
    assert plain.parity.source == small.parity.source == "background"
    assert plain.parity.rows == 100
    assert np.abs(on_device(tmp_path / "plain", rows) - answered).max() <= plain.parity.tolerance <= 1e-5
    off = np.abs(on_device(tmp_path / "small", rows) - answered).max()
    assert plain.parity.max_abs < small.parity.max_abs <= small.parity.tolerance == 0.05
    assert 0 < off <= 0.05
    assert small.files["model.ort"].bytes < 0.75 * plain.files["model.ort"].bytes


def test_the_manifest_names_the_model_its_inputs_and_every_file(network, tmp_path):
    bundle, _ = network
    made = export(bundle, tmp_path / "edge")
    assert EdgeManifest.model_validate_json((tmp_path / "edge" / "edge.json").read_text()) == made
    assert made.recipe_digest == load(bundle).manifest.recipe_digest
    assert [(one.name, one.dtype, one.takes) for one in made.inputs] == [
        ("age", "float64", "number"),
        ("city", "string", "string"),
        ("plan", "string", "string"),
        ("spend", "float64", "number"),
    ]
    assert set(made.files) == {"model.ort", "features.json", "required_operators.config"}
    found = digest_files(tmp_path / "edge")
    assert {name: one for name, one in found.items() if name != "edge.json"} == made.files
    operators = (tmp_path / "edge" / "required_operators.config").read_text()
    assert "LayerNormalization" in operators
    assert str(tmp_path) not in operators


def test_every_type_of_column_reaches_the_model_as_on_the_server(tmp_path, client):
    frame = mixed_frame(300)
    frame["since"] = pd.date_range("2020-01-01", periods=300, freq="31h").where(frame.index % 9 != 0)
    frame["flag"] = pd.Series(np.where(frame.index % 8 == 0, None, frame.index % 3 == 0), dtype="boolean")
    types = {"age": "number", "spend": "number", "since": "timestamp", "flag": "boolean"}
    features = feature_set(tmp_path / "features", frame, "binary")
    schema = FeatureSchema.read(features)
    columns = [(one.name, types.get(one.name, "string")) for one in schema.inputs]
    changed = schema.model_copy(
        update={
            "inputs": tuple(InputColumn(name=name, type=kind) for name, kind in columns),
            "features": tuple(
                FeatureColumn(name=name, kind="categorical" if kind == "string" else "numeric")
                for name, kind in columns
            ),
        }
    )
    (features / FEATURES_FILE).write_text(changed.model_dump_json())
    train(features, tmp_path / "bundle", trainer="linear")
    made = export(tmp_path / "bundle", tmp_path / "edge")
    assert {one.takes for one in made.inputs} == {"number", "string", "boolean", "timestamp"}
    rows = raw(features)
    assert {None, True, False} <= {row["flag"] for row in rows}
    rows[0]["plan"] = "  "
    wanted = load(tmp_path / "bundle").predict_columns({name: [row[name] for row in rows] for name in rows[0]})
    assert client.predict(tmp_path / "edge", rows) == pytest.approx(wanted, abs=made.parity.tolerance)


def test_a_derived_column_is_named_with_its_expression_for_the_device_to_compute(tmp_path, client):
    frame = mixed_frame(300)[["age", "spend", "target"]].assign(double=lambda it: it["spend"] * 2)
    features = feature_set(tmp_path / "features", frame, "binary")
    schema = FeatureSchema.read(features)
    derived = FeatureColumn(name="double", kind="numeric", expression="spend * 2")
    changed = schema.model_copy(update={"inputs": schema.inputs[:2], "features": (*schema.features[:2], derived)})
    (features / FEATURES_FILE).write_text(changed.model_dump_json())
    train(features, tmp_path / "bundle", trainer="linear")
    made = export(tmp_path / "bundle", tmp_path / "edge")
    assert (made.inputs[2].takes, made.inputs[2].expression) == ("derived", "spend * 2")
    wanted = load(tmp_path / "bundle").predict_columns({"age": [30.0], "spend": [50.0]})
    assert client.predict(tmp_path / "edge", [{"age": 30.0, "spend": 50.0, "double": 100.0}]) == pytest.approx(
        wanted, abs=1e-6
    )
    with pytest.raises(KeyError, match="double"):
        client.predict(tmp_path / "edge", [{"age": 30.0, "spend": 50.0}])


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    return write_linear(tmp_path_factory.mktemp("linear") / "b")


def write_linear(folder):
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory):
    from tests.serving_bundle import rows

    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    rows(20).to_csv(path, index=False)
    return path


def test_a_bundle_without_background_rows_is_compared_on_those_of_a_file(linear, rows_file, tmp_path):
    with pytest.raises(BadInput, match="keeps no rows to compare on: name a CSV or Parquet file"):
        export(linear, tmp_path / "edge")
    made = export(linear, tmp_path / "edge", rows=rows_file)
    assert (made.parity.rows, made.parity.source) == (20, "rows.csv")
    with pytest.raises(BadInput, match=r"absent\.csv cannot be read as raw rows"):
        export(linear, tmp_path / "edge", rows=tmp_path / "absent.csv")


def test_what_cannot_be_exported_is_said_and_writes_nothing(tmp_path, linear, rows_file):
    write_bundle(tmp_path / "native", runtime="native")
    with pytest.raises(BadInput, match="no ONNX graph to export: it is served by sklearn itself"):
        export(tmp_path / "native", tmp_path / "edge", rows=rows_file)
    features = feature_set(tmp_path / "features", mixed_frame(200), "binary")
    train(features, tmp_path / "trees", hyperparameters={"max_iter": 3})
    with pytest.raises(BadInput, match="nothing to quantise"):
        export(tmp_path / "trees", tmp_path / "edge", quantize=True)
    broken = write_linear(tmp_path / "broken")
    with (broken / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BadBundle, match=r"model\.onnx is altered"):
        export(broken, tmp_path / "edge", rows=rows_file)
    assert not (tmp_path / "edge").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="exists and is no earlier export"):
        export(linear, tmp_path / "mine", rows=rows_file)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_an_export_that_predicts_otherwise_is_refused_and_the_earlier_one_stays(network, tmp_path):
    bundle, _ = network
    before = export(bundle, tmp_path / "edge")
    with pytest.raises(BadInput, match=r"predicts otherwise than the server: by up to .* on 100 rows of background"):
        export(bundle, tmp_path / "edge", quantize=True, tolerance=1e-9)
    assert EdgeManifest.model_validate_json((tmp_path / "edge" / "edge.json").read_text()) == before


def test_the_client_refuses_a_model_that_was_altered(network, tmp_path, client):
    export(network[0], tmp_path / "edge")
    with (tmp_path / "edge" / "model.ort").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ValueError, match="is not what was exported"):
        client.predict(tmp_path / "edge", [])


def test_the_command_says_what_was_written(network, tmp_path):
    told = CliRunner().invoke(app, ["export", str(network[0]), "--to", str(tmp_path / "edge"), "--quantize"])
    assert told.exit_code == 0, told.output
    assert "8-bit; predictions differ by at most" in told.output
    as_json = CliRunner().invoke(app, ["export", str(network[0]), "--to", str(tmp_path / "edge"), "--json"])
    assert EdgeManifest.model_validate_json(as_json.stdout).quantized is False
    failed = CliRunner().invoke(app, ["export", str(tmp_path), "--to", str(tmp_path / "other")])
    assert failed.exit_code == 1
    assert "is not a model bundle" in failed.output


def test_the_guide_shows_the_client_that_was_run():
    assert GUIDE.read_text().split("```python\n")[1].split("```")[0] == CLIENT.read_text()
