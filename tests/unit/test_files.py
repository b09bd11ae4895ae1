"""Outputs appear whole or not at all."""

import resource
import subprocess
import sys

import pytest

from components.errors import StorageFull
from components.files import whole_file, whole_folder, write_text


def test_a_failed_write_leaves_the_last_good_file(tmp_path):
    path = tmp_path / "out.txt"
    write_text(path, "good")
    with pytest.raises(RuntimeError), whole_file(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "good"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_last_good_one(tmp_path):
    path = tmp_path / "out"
    with whole_folder(path) as aside:
        (aside / "a").write_text("good")
    with pytest.raises(RuntimeError), whole_folder(path) as aside:
        (aside / "b").write_text("half")
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_sentence_and_leaves_nothing(tmp_path):
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from components.files import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))\n"
        f"write_text(Path({str(tmp_path / 'out.txt')!r}), 'x' * 100_000)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert StorageFull.__name__ in ended.stderr
    assert "No space left while writing" in ended.stderr
    assert list(tmp_path.iterdir()) == []
