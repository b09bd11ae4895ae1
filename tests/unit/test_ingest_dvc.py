"""The DVC pointer is what DVC itself writes."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from components.ingest import dvc
from components.ingest.run import run

# What DVC 3.67.1 wrote for `dvc add snapshot` over the files below.
GOLDEN = """\
outs:
- md5: 0b10d41cd51c7b3bea9b50a98a6f071c.dir
  size: 14
  nfiles: 3
  hash: md5
  path: snapshot
"""


def test_the_pointer_of_a_folder_is_byte_for_byte_dvcs(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "snapshot.json").write_text('{"a":1}\n')
    (tmp_path / "part-00000.parquet").write_text("hello")
    (tmp_path / "sub" / "é.bin").write_text("x")
    assert dvc.pointer(dvc.tracked(tmp_path), "snapshot") == GOLDEN


def made(tmp_path: Path) -> Path:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    out = tmp_path / "snap"
    run(str(tmp_path / "a.csv"), "", {}, out)
    return out


def test_a_snapshots_pointer_covers_everything_but_itself(tmp_path):
    out = made(tmp_path)
    text = (out / "snapshot.dvc").read_text()
    (out / "snapshot.dvc").unlink()
    files = dvc.tracked(out)
    assert sorted(file.relpath for file in files) == ["part-00000.parquet", "snapshot.json"]
    assert text == dvc.pointer(files, "snapshot")
    assert json.loads(dvc.directory(files))[0] == {"md5": files[0].md5, "relpath": files[0].relpath}


@pytest.mark.skipif(shutil.which("dvc") is None, reason="DVC is not installed")
def test_dvc_itself_accepts_the_pointer(tmp_path):
    out = made(tmp_path)
    repository = tmp_path / "repository"
    repository.mkdir()
    pointer = (out / "snapshot.dvc").read_text()
    (out / "snapshot.dvc").unlink()
    shutil.copytree(out, repository / "snapshot")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "add", "-q", "snapshot"]):
        subprocess.run(command, cwd=repository, check=True)
    assert (repository / "snapshot.dvc").read_text() == pointer
