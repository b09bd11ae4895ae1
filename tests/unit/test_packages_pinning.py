"""Images of a package: by digest from the lock, those too that only a run chooses, from whatever registry."""

import json
import re

import pytest

from components import images
from components.errors import BadInput
from components.train.schedule import Wish, schedule
from pipelines import pinning
from pipelines.packages import compile_package, documents
from pipelines.pinning import Pins, pins

OURS = sorted({value for value in vars(images).values() if isinstance(value, str) and re.search(r"/python-", value)})
DIGESTS = {images.name_of(image): f"sha256:{number:064x}" for number, image in enumerate(OURS)}


def write(path, **content):
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """The package as it is compiled where there is a lock, and the lock."""
    folder = tmp_path_factory.mktemp("locked")
    lock = write(folder / "lock.json", registry="registry.example.com:5000/ml", images=DIGESTS)
    compile_package("train-and-deploy", folder / "package.yaml", pins(lock))
    return folder / "package.yaml"


def test_a_lock_puts_a_digest_in_the_place_of_every_tag(locked):
    text = locked.read_text()
    assert images.REGISTRY not in text
    assert f":{images.VERSION}" not in text
    executors = documents(locked)[0]["deploymentSpec"]["executors"]
    control = f"registry.example.com:5000/ml/python-control@{DIGESTS['python-control']}"
    assert executors["exec-resolve"]["container"]["image"] == control
    for name, executor in executors.items():
        assert re.search(r"@sha256:[0-9a-f]{64}$|(python|features)_image", executor["container"]["image"]), name


def chosen(package, task):
    (variable,) = documents(package)[0]["deploymentSpec"]["executors"][f"exec-{task}"]["container"]["env"]
    assert variable["name"] == "SLUICEWAY_IMAGES"
    return variable["value"]


def test_a_locked_run_trains_and_serves_in_the_locked_images(locked, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_IMAGES", chosen(locked, "resolve"))
    wish = Wish("torch", {}, "auto", "auto", {}, "", 1, "nvidia.com/gpu", 1, {}, {}, [], "")
    cuda = f"registry.example.com:5000/ml/python-train-torch-cuda@{DIGESTS['python-train-torch-cuda']}"
    assert schedule(wish).image == cuda

    monkeypatch.setenv("SLUICEWAY_IMAGES", chosen(locked, "stage"))
    from components.rollout.deployment import parse_deployment
    from components.rollout.document import inference_service

    made = inference_service("churn", "gs://b/m", "1", {}, deployment=parse_deployment({"where": "knative"}))
    serving = f"registry.example.com:5000/ml/python-serving@{DIGESTS['python-serving']}"
    assert made["spec"]["predictor"]["model"]["image"] == serving


def test_every_image_that_a_run_can_choose_is_one_that_the_package_pins(locked):
    told = json.loads(chosen(locked, "resolve"))
    choices = {images.for_training(frame, gpu=gpu) for frame in ("sklearn", "torch", "tensorflow") for gpu in (0, 1)}
    assert set(told) == {
        images.name_of(image)
        for image in choices | {images.for_serving(), images.for_features("duckdb"), images.for_features("kubernetes")}
    }


def test_a_lock_without_an_image_that_the_package_names_is_refused_and_nothing_is_written(tmp_path):
    rest = {name: digest for name, digest in DIGESTS.items() if name != "python-train-torch-cuda"}
    with pytest.raises(BadInput, match=r"no digest of python-train-torch-cuda.*make images-push images-lock"):
        compile_package("train-and-deploy", tmp_path / "package.yaml", Pins(images=rest))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"images": {"python-data": "sha256:12"}}', r"images\.python-data: a digest is sha256: and 64"),
        ('{"images": {"python-data": "' + "0" * 64 + '"}}', r"images\.python-data: a digest is sha256: and 64"),
        ('{"images": {"python-data"', r"the file: .*JSON"),
        ('{"image": {}}', r"wrong at image"),
        ('{"registry": "https://ghcr.io/acme"}', r"no registry: give host and path without a scheme"),
    ],
)
def test_a_lock_that_is_none_is_refused_with_the_place(tmp_path, content, words):
    (tmp_path / "lock.json").write_text(content)
    with pytest.raises(BadInput, match=words):
        pins(tmp_path / "lock.json")


def test_a_lock_that_is_named_and_not_there_is_an_error_and_the_usual_one_need_not_be_there(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match=r"Cannot read the image lock .*none\.json: No such file"):
        pins(tmp_path / "none.json")
    monkeypatch.chdir(tmp_path)
    assert pins() == Pins()
    pinning.DEFAULT.parent.mkdir()
    write(pinning.DEFAULT, images=DIGESTS)
    assert pins().images == DIGESTS


def test_a_fork_or_a_mirror_has_its_own_registry_with_a_lock_and_without(tmp_path):
    text = f"image: {images.DATA}\nimage: {images.TRAIN_TORCH}\n"
    lock = write(tmp_path / "lock.json", images=DIGESTS)
    by_tag, by_digest = pins(registry="ghcr.io/acme/").applied(text), pins(lock, "ghcr.io/acme").applied(text)
    assert by_tag == f"image: ghcr.io/acme/python-data:{images.VERSION}\n" + (
        f"image: ghcr.io/acme/python-train-torch:{images.VERSION}\n"
    )
    assert by_digest == text.replace(images.DATA, f"ghcr.io/acme/python-data@{DIGESTS['python-data']}").replace(
        images.TRAIN_TORCH, f"ghcr.io/acme/python-train-torch@{DIGESTS['python-train-torch']}"
    )
