"""A Keras file is read only when it holds nothing but what training writes."""

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from components.errors import BadBundle
from components.train.contract import Data, Run
from components.train.keras.trainer import TRAINER
from serving.bundle import model_frame
from serving.keras_model import CLASSES, check, load
from tests.feature_sets import feature_set, mixed_frame

TINY = {"epochs": 1, "width": 4, "blocks": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model of the trainer: its file, its schema, and the fitted network."""
    folder = tmp_path_factory.mktemp("keras")
    data = Data.read(feature_set(folder / "features", mixed_frame(200), "binary"))
    fitted = TRAINER.fit(data, TRAINER.parameters("binary") | TINY, Run(0))
    fitted.save(folder)
    return folder / "model.keras", data, fitted


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, parts: dict[str, bytes], **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def forged(tmp_path: Path, made, change) -> Path:
    """The model with its configuration changed in place."""
    parts = members(made[0])
    config = json.loads(parts["config.json"])
    change(config)
    return written(tmp_path / "model.keras", parts | {"config.json": json.dumps(config).encode()})


def layers(config, kind):
    """Every node of this class, at any depth."""
    found, left = [], [config]
    while left:
        node = left.pop()
        left += node if isinstance(node, list) else node.values() if isinstance(node, dict) else []
        if isinstance(node, dict) and node.get("class_name") == kind:
            found.append(node)
    return found


def test_what_training_wrote_predicts_the_same_after_loading(made):
    path, data, fitted = made
    model = load(path, data.schema)
    rows = data.valid.inputs
    scores = model.predict([rows[name].to_numpy() for name in rows])
    assert scores.dtype == np.float64
    assert scores.shape == (len(rows), 2)
    assert (scores == fitted.predict(rows)).all()


def test_the_list_names_what_a_model_holds_and_no_more_of_keras(made):
    named = {
        f"{node['module']}.{node['class_name']}"
        for kind in {name.rpartition(".")[2] for name in CLASSES}
        for node in layers(json.loads(members(made[0])["config.json"]), kind)
    }
    assert named <= CLASSES
    assert not [name for name in CLASSES if not name.startswith("keras.")]
    assert not {"Lambda", "TFSMLayer", "TorchModuleWrapper"} & {name.rpartition(".")[2] for name in CLASSES}


LAMBDA = {
    "module": "keras.layers",
    "class_name": "Lambda",
    "registered_name": None,
    "config": {"name": "evil", "function": {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}}},
}
EVIL = {
    "keras.layers.Lambda": LAMBDA,
    "os.system": {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
    "builtins.eval": {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "eval"},
    "__lambda__": {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}},
    "__typespec__": {"class_name": "__typespec__", "spec_name": "x", "module": "os", "config": []},
    "keras.layers.TFSMLayer": {
        "module": "keras.layers",
        "class_name": "TFSMLayer",
        "config": {"filepath": "gs://evil/model"},
        "registered_name": None,
    },
    "keras.src.utils.file_utils.get_file": {
        "module": "keras.src.utils.file_utils",
        "class_name": "get_file",
        "config": {"origin": "http://evil"},
        "registered_name": None,
    },
    "the registered name evil>Dense": {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {"units": 1},
        "registered_name": "evil>Dense",
    },
    "mine.Dense": {"module": "mine", "class_name": "Dense", "config": {"units": 1}, "registered_name": None},
}


@pytest.mark.parametrize("name", EVIL)
def test_a_class_or_function_outside_the_list_is_named_wherever_it_hides(tmp_path, made, name):
    def as_a_layer(config):
        config["config"]["layers"].append(EVIL[name])

    def inside_an_argument(config):
        layers(config, "Dense")[0]["config"]["kernel_initializer"] = {"deep": [EVIL[name]]}

    for change in (as_a_layer, inside_an_argument):
        path = forged(tmp_path, made, change)
        with pytest.raises(BadBundle, match=f"may not hold.*{name}"):
            load(path, made[1].schema)


def test_a_vocabulary_that_is_a_file_is_refused(tmp_path, made):
    def change(config):
        layers(config, "StringLookup")[0]["config"]["vocabulary"] = "/etc/passwd"

    with pytest.raises(BadBundle, match="the vocabulary file /etc/passwd"):
        load(forged(tmp_path, made, change), made[1].schema)


def test_a_compiled_model_is_refused(tmp_path, made):
    path = forged(tmp_path, made, lambda config: config.update(compile_config={"optimizer": "sgd"}))
    with pytest.raises(BadBundle, match="a compiled model"):
        check(path)


@pytest.mark.parametrize("name", ["assets/notes.txt", "../../etc/cron.d/evil", "/etc/evil", "model.h5", "evil.py"])
def test_a_member_that_no_model_has_is_named(tmp_path, made, name):
    path = written(tmp_path / "model.keras", members(made[0]) | {name: b"x"})
    with pytest.raises(BadBundle, match=r"holds '.*', which no Keras model"):
        load(path, made[1].schema)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path, made):
    path = written(tmp_path / "model.keras", members(made[0]))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", b"{}")
    with pytest.raises(BadBundle, match=r"'config\.json'"):
        check(path)


def test_compressed_members_are_refused_before_they_are_read(tmp_path, made):
    bomb = members(made[0]) | {"model.weights.h5": b"\0" * 10_000_000}
    path = written(tmp_path / "model.keras", bomb, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(BadBundle, match="compressed"):
        check(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", b"\x89HDF\r\n\x1a\n" + b"\0" * 100], ids=["empty", "text", "legacy h5"]
)
def test_what_is_no_zip_is_no_keras_file(tmp_path, made, content):
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(BadBundle, match="is not a Keras file"):
        load(tmp_path / "model.keras", made[1].schema)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, made, share):
    whole = made[0].read_bytes()
    (tmp_path / "model.keras").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BadBundle, match="is not a Keras file"):
        load(tmp_path / "model.keras", made[1].schema)


@pytest.mark.parametrize("config", [b"[]", b"{", b"{}", b"null", b"[" * 100_000])
def test_a_configuration_that_is_none_is_refused(tmp_path, made, config):
    path = written(tmp_path / "model.keras", members(made[0]) | {"config.json": config})
    with pytest.raises(BadBundle):
        load(path, made[1].schema)


def weights(made, change) -> bytes:
    stream = io.BytesIO(members(made[0])["model.weights.h5"])
    with h5py.File(stream, "r+") as file:
        change(file)
    return stream.getvalue()


def external(file):
    file.create_dataset("x", (1,), "float32", external=[("/etc/passwd", 0, 4)])


def virtual(file):
    layout = h5py.VirtualLayout((1,), "float32")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (1,))
    file.create_virtual_dataset("x", layout)


def bomb(file):
    file.create_dataset("x", (100_000_000,), "float32", chunks=(1_000_000,), compression="gzip", fillvalue=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/other.h5", "/")), "link elsewhere at .*x"),
        (lambda file: file.__setitem__("x", h5py.SoftLink("/layers")), "link elsewhere at .*x"),
        (external, "/x are not a plain array"),
        (virtual, "/x are not a plain array"),
        (bomb, "/x are not a plain array"),
        (lambda file: file.create_dataset("x", (2**40,), "float32"), "/x are not a plain array"),
        (lambda file: file.create_dataset("x", data="text"), "/x are not a plain array"),
    ],
)
def test_weights_that_lie_elsewhere_or_unpack_are_refused(tmp_path, made, change, said):
    parts = members(made[0]) | {"model.weights.h5": weights(made, change)}
    with pytest.raises(BadBundle, match=said):
        load(written(tmp_path / "model.keras", parts), made[1].schema)


def test_weights_of_another_network_are_refused(tmp_path, made):
    def change(config):
        layers(config, "Dense")[-1]["config"]["units"] += 1

    with pytest.raises(BadBundle, match="does not load as a Keras model"):
        load(forged(tmp_path, made, change), made[1].schema)


def test_a_model_of_other_features_is_refused(made):
    schema = made[1].schema
    fewer = schema.model_copy(update={"features": schema.features[1:]})
    with pytest.raises(BadBundle, match="not the bundle's features"):
        load(made[0], fewer)


def test_many_rows_are_predicted_in_parts_that_join(made):
    path, data, _ = made
    model = load(path, data.schema)
    frame = data.valid.inputs
    rows = frame.iloc[np.resize(np.arange(len(frame)), 20_000)].reset_index(drop=True)
    scores = model.predict([rows[name].to_numpy() for name in rows])
    assert len(scores) == 20_000
    once = model.predict([frame[name].to_numpy() for name in frame])
    assert np.abs(scores[: len(frame)] - once).max() < 1e-6


def test_raw_rows_with_unseen_missing_and_extreme_values_give_probabilities(made):
    path, data, _ = made
    model = load(path, data.schema)
    frame = model_frame(data.valid.inputs, data.schema).head(4)
    frame["age"] = [np.nan, 1e308, -1e308, 5e-324]
    frame["city"] = ["", "nowhere", "line\nbreak", "\N{SNOWMAN}"]
    scores = model.predict([frame[name].to_numpy() for name in frame])
    assert np.isfinite(scores).all()
    assert scores.sum(axis=1) == pytest.approx(1)
