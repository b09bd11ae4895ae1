"""A release promises an interface, and the lint holds later packages against it."""

import functools
import json
import tempfile
from pathlib import Path

import pytest
from kfp import compiler, dsl
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.lint.versions import allows_breaking
from tests.unit.test_lint_rules import IMAGE, sound


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def count(rows: dsl.Input[dsl.Dataset], by: str = "day") -> int:
    return 1


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def load(uri: str, rows: dsl.Output[dsl.Dataset]) -> str:
    return uri


def released(uri: str, by: str = "day"):
    sound(count(rows=sound(load(uri=uri)).outputs["rows"], by=by))


def with_more(uri: str, by: str = "day", top: int = 3):
    @dsl.component(base_image=IMAGE, install_kfp_package=False)
    def load(uri: str, rows: dsl.Output[dsl.Dataset], head: dsl.Output[dsl.Dataset], top: int = 3) -> str:
        return uri

    sound(count(rows=sound(load(uri=uri, top=top)).outputs["rows"], by=by))


def renamed_parameter(url: str, by: str = "day"):
    sound(count(rows=sound(load(uri=url)).outputs["rows"], by=by))


def of_another_type(uri: str, by: int = 1):
    sound(count(rows=sound(load(uri=uri)).outputs["rows"], by=f"{by}"))


def newly_required(uri: str, by: str):
    sound(count(rows=sound(load(uri=uri)).outputs["rows"], by=by))


def component_without_its_output(uri: str, by: str = "day"):
    @dsl.component(base_image=IMAGE, install_kfp_package=False)
    def load(uri: str, table: dsl.Output[dsl.Dataset]):
        print(uri)

    sound(count(rows=sound(load(uri=uri)).outputs["table"], by=by))


def component_of_another_artifact(uri: str, by: str = "day"):
    @dsl.component(base_image=IMAGE, install_kfp_package=False)
    def load(uri: str, rows: dsl.Output[dsl.Model], more: str = "") -> str:
        return uri

    @dsl.component(base_image=IMAGE, install_kfp_package=False)
    def count(rows: dsl.Input[dsl.Artifact], by: str = "day") -> int:
        return 1

    sound(count(rows=sound(load(uri=uri)).outputs["rows"], by=by))


def component_that_requires_more(uri: str, by: str = "day"):
    @dsl.component(base_image=IMAGE, install_kfp_package=False)
    def count(rows: dsl.Input[dsl.Dataset], to: str, by: str = "day") -> int:
        return 1

    sound(count(rows=sound(load(uri=uri)).outputs["rows"], by=by, to=by))


BREAKING = [
    (renamed_parameter, ["no longer takes uri (renamed to url?)", "requires the new input url"]),
    (of_another_type, ["takes by as NUMBER_INTEGER, not STRING"]),
    (newly_required, ["now requires by"]),
    (
        component_without_its_output,
        ["load no longer gives rows (renamed to table?)", "load no longer gives Output"],
    ),
    (component_of_another_artifact, ["load gives rows as system.Model, not system.Dataset"]),
    (component_that_requires_more, ["count requires the new input to"]),
]


@functools.cache
def package(wire):
    wire.__doc__ = "Count.\n\nArgs:\n    uri: Where.\n    url: Where.\n    by: How.\n    top: How many."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "package.yaml"
        compiler.Compiler().compile(dsl.pipeline(name="load", description="Counts.")(wire), str(path))
        return path.read_text()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository whose pipeline was released as 0.3.1."""
    monkeypatch.chdir(tmp_path)
    at(tmp_path, "0.3.1", released)
    result = CliRunner().invoke(app, ["lint", "--release"])
    assert result.exit_code == 0, result.output
    return tmp_path


def at(repository, version, wire):
    """Take the repository to a version and another wiring of its pipeline."""
    (repository / "pyproject.toml").write_text(f'[project]\nname = "mine"\nversion = "{version}"\n')
    (repository / "build").mkdir(exist_ok=True)
    (repository / "build" / "load.yaml").write_text(package(wire))


def findings(*options):
    result = CliRunner().invoke(app, ["lint", "--format", "json", *options])
    return json.loads(result.stdout)["findings"]


def test_what_was_released_and_what_only_adds_to_it_is_compatible(repository):
    assert findings() == []
    at(repository, "0.3.2", with_more)
    assert findings() == []


@pytest.mark.parametrize(("wire", "words"), BREAKING, ids=lambda value: getattr(value, "__name__", None))
def test_a_breaking_change_needs_a_new_version(repository, wire, words):
    at(repository, "0.3.2", wire)
    found = findings()
    assert {one["rule"] for one in found} == {"SW012"}
    assert len(found) == len(words)
    for word in words:
        (one,) = [one for one in found if word in one["message"]]
        assert one["message"].endswith("raise the version to 0.4.0.")
    at(repository, "0.4.0", wire)
    assert findings() == []


def test_a_version_is_released_with_one_interface(repository):
    at(repository, "0.3.1", with_more)
    result = CliRunner().invoke(app, ["lint", "--release"])
    assert result.exit_code == 1
    assert "0.3.1 was released with another interface" in result.stderr


def test_a_breaking_change_is_not_released_under_a_version_that_forbids_it(repository):
    kept = (repository / "released" / "load.json").read_text()
    at(repository, "0.3.2", newly_required)
    assert CliRunner().invoke(app, ["lint", "--release"]).exit_code == 1
    assert (repository / "released" / "load.json").read_text() == kept


def test_a_released_interface_that_was_damaged_is_named(repository):
    (repository / "released" / "load.json").write_text('{"pipeline": "load"')
    result = CliRunner().invoke(app, ["lint"])
    assert result.exit_code == 1
    assert "load.json is not what `sluiceway lint --release` writes" in result.stderr


@pytest.mark.parametrize(
    ("before", "now", "allowed"),
    [
        ("0.3.1", "0.3.9", False),
        ("0.3.1", "0.4.0", True),
        ("0.3.1", "1.0.0", True),
        ("1.2.3", "1.9.0", False),
        ("1.2.3", "2.0.0", True),
        ("1.2.3", "0.9.0", False),
    ],
)
def test_before_one_the_minor_version_breaks_and_after_it_the_major(before, now, allowed):
    assert allows_breaking(before, now) is allowed
