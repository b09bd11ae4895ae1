"""What a newcomer sees of make before anything is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder, *arguments):
    return subprocess.run(["make", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)


def test_the_default_target_lists_every_target_with_a_line(clone):
    listed = make(clone).stdout
    for target in ("run", "test", "demo", "bench", "compile", "lint", "clean", "stop"):
        assert f"make {target} " in listed


@pytest.mark.parametrize("python", ["", "/usr/bin/false", "/no/such/python"])
def test_a_missing_or_too_old_python_is_one_clear_line(clone, python):
    ended = make(clone, "--no-print-directory", "run", f"PYTHON={python}")
    assert ended.returncode != 0
    said = [line for line in ended.stderr.splitlines() if "Sluiceway needs Python 3.11 or newer" in line]
    assert len(said) == 1
    assert not (clone / ".venv").exists()


def test_stop_works_before_anything_was_set_up(clone):
    ended = make(clone, "stop")
    assert ended.returncode == 0
    assert "nothing was running" in ended.stdout
