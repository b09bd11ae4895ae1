"""What lies in a folder beside files: pipes, devices, links in circles, what may not be read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import BadInput
from components.ingest.options import ReadOptions
from components.ingest.sources.local import LocalSource

NOBODY = 65534


def names(path: Path | str) -> list[str]:
    return [file.name for file in LocalSource(str(path), ReadOptions()).files()]


def refused(path: Path | str) -> str:
    with pytest.raises(BadInput) as caught:
        names(path)
    return str(caught.value)


def test_hidden_folders_and_files_are_left_out(tmp_path):
    for name in ("a.csv", ".b.csv", "_c.csv", ".git/d.csv", "_temporary/0/e.csv", "in/f.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a\n1\n")
    assert names(tmp_path) == ["a.csv", "in/f.csv"]


def test_a_mounted_config_map_is_read_through_its_links(tmp_path):
    (tmp_path / "mount" / "..2026").mkdir(parents=True)
    (tmp_path / "mount" / "..2026" / "a.csv").write_text("a\n1\n")
    (tmp_path / "mount" / "..data").symlink_to("..2026")
    (tmp_path / "mount" / "a.csv").symlink_to("..data/a.csv")
    assert names(tmp_path / "mount") == ["a.csv"]


def test_a_linked_folder_is_followed(tmp_path):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "b.csv").write_text("a\n1\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "year=2026").symlink_to(tmp_path / "else")
    assert names(tmp_path / "data") == ["year=2026/b.csv"]


def test_links_in_circles_are_named(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("a\n1\n")
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    assert f"{tmp_path}/in/up leads back to" in refused(tmp_path)
    (tmp_path / "in" / "up").unlink()
    (tmp_path / "in" / "b.csv").symlink_to("b.csv")
    assert "leads to itself" in refused(tmp_path)


def test_a_link_to_nothing_is_named_and_not_left_out(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "b.csv").symlink_to("gone.csv")
    assert "b.csv is a link to gone.csv, which does not exist" in refused(tmp_path)
    assert "link to gone.csv" in refused(tmp_path / "b.csv")


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    assert "a.csv is a named pipe" in refused(tmp_path / "a.csv")
    assert "a.csv is a named pipe" in refused(tmp_path)
    assert "a.csv is a named pipe" in refused(tmp_path / "*.csv")


def test_a_device_is_refused():
    assert "/dev/zero is a device" in refused("/dev/zero")


def test_a_file_whose_name_holds_a_globs_characters_is_a_file(tmp_path):
    (tmp_path / "a[1].csv").write_text("a\n1\n")
    assert names(tmp_path / "a[1].csv") == ["a[1].csv"]


AS_NOBODY = """
import os, sys
from components.errors import BadInput
from components.ingest.options import ReadOptions
from components.ingest.sources.local import LocalSource
if os.geteuid() == 0:
    os.setuid(int(sys.argv[2]))  # root may read everything
try:
    LocalSource(sys.argv[1], ReadOptions()).files()
except BadInput as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_read_is_named(tmp_path, what):
    inside = tmp_path / "in" / "a.csv"
    inside.parent.mkdir()
    inside.write_text("a\n1\n")
    for folder in (tmp_path, *(above for above in tmp_path.parents if "pytest-of-" in str(above))):
        folder.chmod(0o755)
    (inside if what == "file" else inside.parent).chmod(0)
    code = [sys.executable, "-c", AS_NOBODY, tmp_path, str(NOBODY)]
    said = subprocess.run(code, capture_output=True, text=True, check=True).stdout
    inside.parent.chmod(0o755)
    assert ("a.csv may not be read" if what == "file" else f"Folder {tmp_path}/in may not be listed") in said
