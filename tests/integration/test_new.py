"""Skeletons, in a repository of a user's own and in this one, are compiled, linted, checked and tested for real."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example.com/churn:0.1.0"


COMMANDS = """
import json, sys, pytest
from pipelines.cli import app

for command in json.loads(sys.argv[1]):
    assert not app(command, standalone_mode=False), command
sys.exit(pytest.main(sys.argv[2:]))
"""


def written_and_checked(folder, commands, *tests):
    """Call the command in a folder, and the tests that are there then, all in one process; then check the style."""
    if (folder / "pipelines").exists():  # what is in the suite's own catalog is known to the next process
        new = done([sys.executable, "-m", "pipelines.cli", *commands.pop()], folder)
    else:
        new = ""
    commands = [*commands, ["compile", "weekly-words"], ["lint"]]
    python = [sys.executable, "-c", COMMANDS, json.dumps(commands), "-q", "-p", "no:cacheprovider", *tests]
    said = new + done(python, folder)
    assert "failed" not in said
    ruff = shutil.which("ruff", path=Path(sys.executable).parent)
    files = [line.removeprefix("wrote ") for line in said.splitlines() if line.startswith("wrote ")]
    python_files = [file for file in files if file.endswith(".py")]
    assert len(python_files) >= 5
    done([ruff, "check", *python_files], folder)
    done([ruff, "format", "--check", *python_files], folder)
    return said


def done(command, folder):
    quick = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run(command, cwd=folder, env=quick, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_pipeline_in_a_repository_of_ones_own_passes_everything_at_once(tmp_path):
    said = written_and_checked(
        tmp_path,
        [
            ["new", "component", "count-words", "--package", "churn", "--image", IMAGE],
            ["new", "pipeline", "weekly-words", "--component", "count-words"],
        ],
    )
    assert "build/weekly-words.yaml" in said
    assert "4 passed" in said
    assert "| `text` | string |" in (tmp_path / "docs" / "components" / "count_words.md").read_text()
    # As a user's mypy sees it that has the wheel, which says that it is typed; kfp says nothing of itself.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\ndisallow_untyped_decorators = false\nfollow_imports = silent\n"
        f"mypy_path = {ROOT}\n[mypy-kfp.*]\nignore_missing_imports = true\n"
    )
    assert "no issues found in 10 source files" in done([sys.executable, "-m", "mypy", "."], tmp_path)


def test_the_wheel_says_that_its_packages_are_typed():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "py.typed" in told["package-data"]["*"]
    assert all((ROOT / name.rstrip("*") / "py.typed").exists() for name in told["packages"]["find"]["include"])


def test_a_pipeline_in_this_repository_passes_everything_at_once(tmp_path):
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    said = written_and_checked(tmp_path, [["new", "pipeline", "weekly-words"]], "tests/unit")
    assert "build/weekly-words.yaml" in said
    assert 'Entry("weekly-words", "pipelines.weekly_words")' in (tmp_path / "pipelines" / "catalog.py").read_text()


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A user's repository with a component, and the command called in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*command):
        return CliRunner().invoke(app, ["new", *command])

    assert run("component", "clean", "--package", "mine", "--image", IMAGE).exit_code == 0
    yield run
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def contents(folder):
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("component", "clean"), "is there already"),
        (("component", "Clean"), "can name no component"),
        (("component", "class"), "word of Python's own"),
        (("component", "json"), "word of Python's own"),
        (("component", "x" * 41), "can name no component"),
        (("component", "other", "--package", "components"), "cannot be the package"),
        (("component", "other", "--package", "theirs"), "give --image"),
        (("component", "other", "--image", IMAGE), "says which image"),
        (("pipeline", "weekly", "--component", "none"), "cannot be imported"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_left(written, tmp_path, command, words):
    before = contents(tmp_path)
    result = written(*command)
    assert result.exit_code == 1, result.output
    assert words in result.stderr
    assert contents(tmp_path) == before


def test_a_pyproject_that_is_there_gets_a_line_and_keeps_the_rest(written, tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text(
        '[project]\nname = "mine"  # ours\n\n[tool.sluiceway.pipelines]\n# all of them\n\n[tool.x]\na = 1\n'
    )
    assert written("pipeline", "weekly", "--component", "clean").exit_code == 0
    assert path.read_text() == (
        '[project]\nname = "mine"  # ours\n\n[tool.sluiceway.pipelines]\nweekly = "mine.pipelines.weekly:weekly"\n'
        "# all of them\n\n[tool.x]\na = 1\n"
    )


def test_a_pipeline_begins_with_a_component_that_takes_parameters_only(written, tmp_path):
    face = tmp_path / "mine" / "components" / "clean" / "component.py"
    face.write_text(
        face.read_text().replace("    counts: dsl.Output", "    table: dsl.Input[dsl.Dataset],\n    counts: dsl.Output")
    )
    for name in [name for name in sys.modules if name.startswith("mine")]:
        del sys.modules[name]
    result = written("pipeline", "weekly", "--component", "clean")
    assert result.exit_code == 1
    assert "takes the artifact table" in result.stderr


def test_a_pipeline_that_is_not_where_pyproject_says_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.sluiceway.pipelines]\nweekly = "nowhere.weekly:weekly"\n')
    result = CliRunner().invoke(app, ["compile"])
    assert result.exit_code == 1
    assert "nowhere.weekly:weekly, which cannot be imported" in result.stderr
