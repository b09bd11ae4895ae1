"""Checkpoints: whole or not at all, and only of the training that asks."""

import errno
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from components.errors import BadInput, StorageFull, Unreachable
from components.train.checkpoints import FILE, State, StoredCheckpoints


def state(fill=1.0):
    arrays = {
        "w": np.full((3, 2), fill, "float32"),
        "step": np.array(7, "int64"),
        "turned": np.arange(6.0).reshape(2, 3).T,
    }
    return State(arrays, {"epoch": 3, "history": [0.5, 0.4]})


def test_a_state_comes_back_as_it_was(tmp_path):
    kept = StoredCheckpoints(str(tmp_path), "a")
    assert kept.load() is None
    kept.save(state())
    found = StoredCheckpoints(str(tmp_path), "a").load()
    assert found.facts == state().facts
    for name, value in state().arrays.items():
        assert (found.arrays[name] == value).all()
        assert found.arrays[name].dtype == value.dtype


def test_an_ended_training_leaves_none_and_clears_no_other(tmp_path):
    kept = StoredCheckpoints(str(tmp_path), "a")
    kept.save(state())
    StoredCheckpoints(str(tmp_path), "b").clear()
    assert (tmp_path / FILE).exists()
    kept.clear()
    assert not (tmp_path / FILE).exists()


def test_a_checkpoint_of_another_model_is_refused_and_kept(tmp_path):
    StoredCheckpoints(str(tmp_path), "a" * 64).save(state())
    with pytest.raises(BadInput, match=r"is of another model \(recipe aaaaaaaaaaaa, this one is bbbbbbbbbbbb\)"):
        StoredCheckpoints(str(tmp_path), "b" * 64).load()
    assert (tmp_path / FILE).exists()


@pytest.mark.parametrize("damage", [lambda data: data[:40], lambda data: b"", lambda data: b"\x80\x04pickle" + data])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    StoredCheckpoints(str(tmp_path), "a").save(state())
    path = tmp_path / FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match=r"checkpoint .* is damaged .* remove it to train from the start"):
        StoredCheckpoints(str(tmp_path), "a").load()


def test_a_full_disk_keeps_the_last_whole_state(tmp_path, monkeypatch):
    kept = StoredCheckpoints(str(tmp_path), "a")
    kept.save(state(1.0))

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match=FILE):
        kept.save(state(2.0))
    assert (kept.load().arrays["w"] == 1.0).all()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_writer_killed_at_any_moment_leaves_a_whole_state(tmp_path):
    script = (
        "import sys, numpy as np\n"
        "from components.train.checkpoints import State, StoredCheckpoints\n"
        "kept = StoredCheckpoints(sys.argv[1], 'a')\n"
        "print('ready', flush=True)\n"
        "for n in range(100000):\n"
        "    kept.save(State({'w': np.full(300_000, float(n))}, {'n': n}))\n"
    )
    for moment in (0.05, 0.11, 0.23):
        writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        while not (tmp_path / FILE).exists():
            time.sleep(0.01)
        time.sleep(moment)
        writer.kill()
        writer.wait()
        found = StoredCheckpoints(str(tmp_path), "a").load()
        assert (found.arrays["w"] == found.facts["n"]).all()


def test_a_store_that_cannot_be_used_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((Unreachable, BadInput), match="cannot be"):
        StoredCheckpoints(str(tmp_path / "file" / "below"), "a").save(state())
    with pytest.raises(BadInput, match="cannot be kept at nowhere://x"):
        StoredCheckpoints("nowhere://x", "a").load()
