"""What a cluster needs agrees with what the compiled package asks for."""

import re
from pathlib import Path

import yaml

from components import images

ROOT = Path(__file__).parents[2]


def test_every_image_that_a_component_names_has_a_build_target():
    targets = set(re.findall(r"^FROM base AS (\S+)$", (ROOT / "images" / "Dockerfile").read_text(), re.MULTILINE))
    named = {image.split("/")[-1].split(":")[0] for image in (images.DATA, images.TRAIN_SKLEARN, images.CONTROL)}
    assert named == targets


def test_every_step_runs_in_one_of_our_images_and_installs_nothing(package):
    spec = next(yaml.safe_load_all(package.read_text()))
    executors = spec["deploymentSpec"]["executors"]
    assert len(executors) == 10
    for name, executor in executors.items():
        container = executor["container"]
        assert container["image"] in {images.DATA, images.TRAIN_SKLEARN, images.CONTROL}, name
        assert "pip install" not in " ".join(container["command"]), name


def test_steps_that_act_on_the_world_are_never_kept(package):
    spec = next(yaml.safe_load_all(package.read_text()))
    kept = {}
    for component in (spec["root"], *spec["components"].values()):
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            kept[name] = task.get("cachingOptions", {}).get("enableCache", False)
    for step in ("resolve", "register", "stage", "rollout", "settle"):
        assert not kept[step], step
    for step in ("ingest", "validate", "features", "train", "evaluate"):
        assert kept[step], step


def test_the_config_map_holds_every_setting_that_the_steps_read(package):
    settings = yaml.safe_load((ROOT / "manifests" / "base" / "settings.yaml").read_text())
    _, platform = yaml.safe_load_all(package.read_text())
    for name, executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
        (source,) = executor["configMapAsEnv"]
        assert source["configMapName"] == settings["metadata"]["name"], name
        assert {entry["configMapKey"] for entry in source["keyToEnv"]} == set(settings["data"]), name
