"""Tokens and certificates that change while the server runs; how many processors there are; what is served."""

import hashlib
import os

import pytest

from components.errors import BadBundle, BadInput
from serving.server import cpus
from serving.server.found import models
from serving.server.security import Certificate, Tokens
from tests.keys import write_certificate


def test_tokens_are_taken_in_plain_and_as_digests_and_nothing_else(tmp_path):
    digest = hashlib.sha256(b"second").hexdigest()
    (tmp_path / "tokens").write_text(f"# of the team\nfirst\n\nsha256:{digest}\n")
    tokens = Tokens(tmp_path / "tokens")
    for header in (b"Bearer first", b"bearer second", b"Bearer  first "):
        assert tokens.allows(header), header
    refused = (
        None,
        b"",
        b"first",
        b"Basic first",
        b"Bearer",
        b"Bearer ",
        b"Bearer firs",
        b"Bearer first2",
        b"Bearer #",
    )
    for header in (*refused, f"Bearer sha256:{digest}".encode(), b"Bearer # of the team"):
        assert not tokens.allows(header), header


def test_a_changed_file_of_tokens_is_read_again_and_a_broken_one_is_not(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("old\n")
    tokens = Tokens(path)
    replace(path, "new\n")
    tokens.read_again()
    assert (tokens.allows(b"Bearer old"), tokens.allows(b"Bearer new")) == (False, True)
    replace(path, "sha256:tooshort\n")
    tokens.read_again()
    assert tokens.allows(b"Bearer new")
    path.unlink()
    tokens.read_again()
    assert tokens.allows(b"Bearer new")
    path.write_text("")  # whoever empties it wants nobody in
    tokens.read_again()
    assert not tokens.allows(b"Bearer new")


@pytest.mark.parametrize("text", ["", "# nothing\n", "sha256:12\n"])
def test_a_file_without_a_token_is_an_error_at_the_start(tmp_path, text):
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(BadInput):
        Tokens(tmp_path / "tokens")


def replace(path, text):
    """As a Secret's mount does."""
    aside = path.with_suffix(".new")
    aside.write_text(text)
    os.replace(aside, path)


def test_a_certificate_without_its_key_is_not_taken(tmp_path):
    one, two = write_certificate(tmp_path, "one"), write_certificate(tmp_path, "two")
    with pytest.raises(BadInput, match="cannot be used"):
        Certificate(one[0], two[1])
    found = Certificate(*one)
    replace(one[0], two[0].read_text())  # half of a rotation
    found.read_again()
    assert not found.is_current()
    replace(one[1], two[1].read_text())
    found.read_again()
    assert found.is_current()


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_processors_are_those_that_the_cgroup_allows(tmp_path, files, wanted):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpus.available(tmp_path) == (wanted or len(os.sched_getaffinity(0)))


def test_a_folder_is_one_model_or_several(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "bundle.json").write_text("{}")
    (tmp_path / "all" / "lost+found").mkdir()
    (tmp_path / "all" / "link").symlink_to(tmp_path / "all" / "a")
    every = tmp_path / "all"
    assert models(every / "a") == ({"a": every / "a"}, None)
    assert models(every / "a", "churn") == ({"churn": every / "a"}, None)
    assert models(every) == ({"a": every / "a", "b": every / "b"}, every)
    with pytest.raises(BadBundle, match="holds none"):
        models(every / "lost+found")
    with pytest.raises(BadBundle, match="no folder"):
        models(every / "gone")
