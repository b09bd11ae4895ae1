"""The images' Dockerfile, bake file and tools, against the names in components/images.py and what runs in them."""

import datetime
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import hcl2
import pytest
import yaml

from components import images as names
from components.errors import BadInput
from images import audit, bases, lock, slim
from images.dockerfile import DOCKERFILE, read
from pipelines.pinning import Pins, pins
from tests import manifests

ROOT = Path(__file__).parents[2]
ARGUMENTS, STAGES = read(DOCKERFILE.read_text("utf-8"))
DIGEST = "sha256:" + "a" * 64


@pytest.fixture(scope="module")
def bake():
    return hcl2.loads((ROOT / "images/docker-bake.hcl").read_text("utf-8"))


def unquoted(value):
    return value.strip('"') if isinstance(value, str) else value


@pytest.fixture(scope="module")
def targets(bake):
    (target,) = [one['"image"'] if '"image"' in one else one["image"] for one in bake["target"]]
    return [{unquoted(key): unquoted(value) for key, value in one.items()} for one in target["matrix"]["image"]], target


def named():
    return {*json.loads(names.chosen_by_runs()), names.name_of(names.DATA), names.name_of(names.CONTROL)}


def test_the_bake_file_builds_the_images_that_the_components_name_and_no_others(targets):
    assert {f"python-{one['group']}" for one in targets[0]} == named()


def test_the_groups_of_targets_are_of_images_that_there_are(bake):
    inner = {unquoted(name): body for group in bake["group"] for name, body in group.items()}
    listed = {unquoted(one) for name, body in inner.items() if name != "default" for one in body["targets"]}
    assert listed == named()
    assert {unquoted(one) for one in inner["default"]["targets"]} == {"cpu", "cuda"}


def test_each_image_has_a_group_of_dependencies_and_a_stage(targets):
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    for one in targets[0]:
        assert one["group"] in groups
        assert one["stage"] in STAGES


def test_the_dockerfile_takes_every_argument_that_the_bake_file_gives(targets):
    taken = {text.partition("=")[0] for stage in STAGES.values() for text in stage.of("ARG")}
    assert {unquoted(key) for key in targets[1]["args"]} == taken - {"PYTHON"}


def test_a_release_is_the_same_bytes_for_the_same_commit(targets):
    assert "rewrite-timestamp=true" in str(targets[1]["output"])
    assert "SOURCE_DATE_EPOCH" in DOCKERFILE.read_text("utf-8")
    assert "unchecked-hash" in DOCKERFILE.read_text("utf-8")  # compiled files go by content, not by rewritten times


def test_every_stage_stands_on_the_pinned_python_or_on_another_stage():
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+-slim-\w+@sha256:[0-9a-f]{64}", ARGUMENTS["PYTHON"])
    for stage in STAGES.values():
        assert stage.base == "${PYTHON}" or stage.base in STAGES


def above(stage):
    """A stage's instructions after those of what it stands on, down to the base image."""
    inherited = above(STAGES[stage.base]) if stage.base in STAGES else []
    return [*inherited, *stage.instructions]


@pytest.mark.parametrize("stage", ["step", "serving"])
def test_an_image_runs_as_a_numbered_user_that_is_not_root_and_writes_to_tmp_alone(stage):
    last = {}
    for one in above(STAGES[stage]):
        last[one.name] = one.text
    assert last["USER"] == "10001:10001"
    assert last["WORKDIR"] == "/tmp"
    environment = dict(pair.split("=", 1) for pair in STAGES["runtime"].of("ENV")[0].split())
    assert environment["HOME"] == "/tmp"
    assert all(environment[name].startswith("/tmp/") for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "KERAS_HOME"))


@pytest.mark.parametrize("stage", ["step", "serving"])
def test_nothing_is_installed_in_an_image_only_copied_into_it(stage):
    runs = [one.text for one in above(STAGES[stage]) if one.name == "RUN"]
    assert len(runs) == 1
    assert "pip uninstall --yes pip setuptools wheel" in runs[0]
    assert "install" not in runs[0].replace("uninstall", "")
    copied = {text.split()[0] for text in STAGES["step"].of("COPY")}
    assert copied == {"--from=libraries", "--from=code"}


def test_an_image_says_which_version_and_commit_it_is_of():
    (label,) = STAGES["step"].of("LABEL")
    for key, value in {"version": "${VERSION}", "revision": "${COMMIT}", "created": "${CREATED}"}.items():
        assert f'org.opencontainers.image.{key}="{value}"' in label


def test_the_server_starts_as_the_serving_runtime_starts_it_and_its_health_is_asked_where_the_probe_asks():
    runtime = yaml.safe_load((ROOT / "manifests/base/models/serving-runtime.yaml").read_text("utf-8"))
    container = runtime["spec"]["containers"][0]
    assert json.loads(STAGES["serving"].of("ENTRYPOINT")[0]) == container["command"]
    port, path = (container["livenessProbe"]["httpGet"][key] for key in ("port", "path"))
    assert f"127.0.0.1:{port}{path}" in STAGES["serving"].of("HEALTHCHECK")[0]
    assert STAGES["serving"].of("EXPOSE") == [str(port)]
    help_text = subprocess.run(
        [sys.executable, "-m", "serving.server", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    for option in json.loads(STAGES["serving"].of("CMD")[0]):
        assert option.partition("=")[0] in help_text.stdout


def test_the_build_is_given_just_what_the_dockerfile_copies():
    lines = (ROOT / "images/Dockerfile.dockerignore").read_text("utf-8").splitlines()
    given = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        one
        for stage in STAGES.values()
        for text in stage.of("COPY")
        if not text.startswith("--from=")
        for one in text.split()[:-1]
    }
    assert given == copied
    assert "*" in lines


@pytest.mark.parametrize("pattern", [*slim.EVERYWHERE, *slim.UNUSED["data"], *slim.API])
def test_what_is_taken_out_of_the_images_is_there_to_be_taken_out(pattern):
    packages = Path(sysconfig.get_path("purelib"))
    assert next(packages.glob(pattern), None), "the library has changed: look again at what it carries"


def test_what_looks_like_tests_and_is_used_stays_and_of_kserve_only_the_messages(tmp_path):
    files = ["evidently/tests/numerical.py", "numpy/tests/a.py", "evidently/__init__.py", "statsmodels/api.py"]
    kept = [f"kserve/{name}" for name in slim.KEPT["kserve"]]
    for name in [*files, *kept, "kserve/model.py", "kserve/protocol/grpc/server.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    freed = slim.slim("data", tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"evidently/tests/numerical.py", "evidently/__init__.py", *kept}
    assert freed == 4
    packages = Path(sysconfig.get_path("purelib"))
    assert all((packages / name).is_file() for name in kept), "KServe has changed: look where its messages are"


def pushed(folder, **digests):
    path = folder / "images.json"
    told = {name: {"containerimage.digest": value, "image.name": name} for name, value in digests.items()}
    path.write_text(json.dumps({one: body | {"image.name": f"ghcr.io/acme/{one}:1"} for one, body in told.items()}))
    return path


def test_the_lock_says_what_was_pushed(tmp_path):
    pins = lock.lock(pushed(tmp_path, **{"python-data": DIGEST}))
    assert pins.registry == "ghcr.io/acme"
    assert pins.images == {"python-data": DIGEST}
    assert f"ghcr.io/acme/python-data@{DIGEST}" in pins.applied(f"image: {names.DATA}")


@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_with_a_lock_an_overlay_names_every_image_of_ours_by_its_digest(tmp_path, overlay):
    ours = [names.name_of(image) for image in (names.SERVING, names.TRAIN_TENSORFLOW, names.DATA)]
    digests = {name: f"sha256:{number:064x}" for number, name in enumerate(sorted(ours))}
    folder = shutil.copytree(manifests.FOLDER, tmp_path / "manifests")
    metadata = pushed(tmp_path, **digests)
    command = [sys.executable, "-m", "images.lock", str(metadata), "--out", str(tmp_path / "lock.json")]
    command += ["--component", str(folder.parent / lock.COMPONENT)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    assert pins(tmp_path / "lock.json").images == digests
    text = json.dumps(manifests.rendered(str(folder / "overlays" / overlay)))
    named = re.findall(r'"(?:[^"]*/)?(python-[a-z-]+)([:@][^"]+)"', text)
    assert {name for name, _ in named} == {"python-serving", "python-train-tensorflow"}
    assert all(version == f"@{digests[name]}" for name, version in named), named
    assert f'"ghcr.io/acme/python-serving@{digests["python-serving"]}"' in text


def test_the_overlays_images_are_those_of_the_lock_that_is_here():
    lock_here = ROOT / "images/lock.json"
    written = (ROOT / lock.COMPONENT).read_text("utf-8")
    assert written == lock.component(pins(lock_here) if lock_here.exists() else Pins())


def test_a_build_that_pushed_nothing_makes_no_lock(tmp_path):
    (tmp_path / "images.json").write_text('{"python-data": {"image.name": "ghcr.io/acme/python-data:1"}}')
    with pytest.raises(BadInput, match="names none that was pushed: make images-push"):
        lock.lock(tmp_path / "images.json")
    with pytest.raises(BadInput, match="cannot be read"):
        lock.lock(tmp_path / "absent.json")


def test_the_base_is_pinned_anew_where_it_stands():
    again = bases.pinned(DOCKERFILE.read_text("utf-8"), DIGEST)
    assert read(again)[0]["PYTHON"] == f"{ARGUMENTS['PYTHON'].partition('@')[0]}@{DIGEST}"
    assert again.replace(DIGEST, ARGUMENTS["PYTHON"].partition("@")[2]) == DOCKERFILE.read_text("utf-8")
    with pytest.raises(ValueError, match="no digest"):
        bases.pinned(DOCKERFILE.read_text("utf-8"), "latest")


TODAY = datetime.date(2026, 11, 24)
FOUND = {
    "dependencies": [
        {
            "name": "pillow",
            "version": "1.0",
            "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}],
        }
    ]
}


def acceptance(until):
    return audit.accepted(f"- id: CVE-1\n  package: pillow\n  reason: no images are read\n  expires: {until}\n")


def test_a_known_vulnerability_fails_the_audit():
    assert audit.complaints(FOUND, [], TODAY) == ["pillow 1.0: CVE-1 PYSEC-1 (fixed in: 1.1)"]


def test_an_accepted_finding_is_silent_until_its_day_is_over():
    assert audit.complaints(FOUND, acceptance("2026-11-24"), TODAY) == []
    late = audit.complaints(FOUND, acceptance("2026-11-23"), TODAY)
    assert len(late) == 2
    assert "was accepted until 2026-11-23: no images are read" in late[1]


def test_an_audit_that_could_look_nothing_up_is_no_clean_audit():
    report = {"dependencies": [{"name": "pillow", "skip_reason": "Dependency not found on PyPI"}]}
    (said,) = audit.complaints(report, [], TODAY)
    assert "1 of 1 packages could not be looked up (pillow" in said


def test_the_accepted_findings_can_be_read_and_say_why():
    assert isinstance(audit.accepted(audit.ACCEPTED.read_text("utf-8")), list)
    with pytest.raises(ValueError, match="each entry is id, package, reason, expires"):
        audit.accepted("- id: CVE-1\n  package: pillow\n  expires: 2027-01-01\n")
