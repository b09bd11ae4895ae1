"""What a cluster needs agrees with what the compiled package asks for."""

import re
from pathlib import Path

import yaml

from components import images

ROOT = Path(__file__).parents[2]


OURS = {value for value in vars(images).values() if isinstance(value, str) and value.startswith(f"{images.REGISTRY}/")}
CHOSEN_BY_RESOLVE = {
    f"{{{{$.inputs.parameters['pipelinechannel--resolve-{which}_image']}}}}" for which in ("python", "features")
}


def test_every_step_runs_in_one_of_our_images_and_installs_nothing(package):
    spec = next(yaml.safe_load_all(package.read_text()))
    executors = spec["deploymentSpec"]["executors"]
    assert {re.sub(r"-\d+$", "", name) for name in executors} == {
        *("exec-resolve", "exec-ingest", "exec-validate", "exec-features", "exec-train", "exec-search"),
        *("exec-train-job", "exec-evaluate", "exec-register", "exec-stage", "exec-rollout", "exec-settle"),
    }
    for name, executor in executors.items():
        container = executor["container"]
        assert container["image"] in {*OURS, *CHOSEN_BY_RESOLVE}, name
        assert "pip install" not in " ".join(container["command"]), name


def test_steps_that_act_on_the_world_are_never_kept(package):
    spec = next(yaml.safe_load_all(package.read_text()))
    kept = {}
    for component in (spec["root"], *spec["components"].values()):
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            kept.setdefault(re.sub(r"-\d+$", "", name), set()).add(
                task.get("cachingOptions", {}).get("enableCache", False)
            )
    for step in ("resolve", "search", "register", "stage", "rollout", "settle"):
        assert kept[step] == {False}, step
    for step in ("ingest", "validate", "features", "train", "train-job", "evaluate"):
        assert kept[step] == {True}, step


def test_the_config_map_holds_every_setting_that_the_steps_read(package):
    settings = yaml.safe_load((ROOT / "manifests" / "base" / "pipelines" / "settings.yaml").read_text())
    _, platform = yaml.safe_load_all(package.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(executors) == 16
    for name, executor in executors.items():
        (source,) = executor["configMapAsEnv"]
        assert source["configMapName"] == settings["metadata"]["name"], name
        # Where there are buckets nothing stands in for them; the overlay for a cluster without any says what does.
        read = {entry["configMapKey"] for entry in source["keyToEnv"]} - {"STORAGE_EMULATOR_HOST"}
        assert read == set(settings["data"]), name
