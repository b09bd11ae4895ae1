"""What part of a bucket a URI means, and where its objects go."""

import pytest

from components.errors import BadInput
from components.ingest.sources import SourceFile, open_source
from components.ingest.sources.transfer import Place, shown, targets


@pytest.mark.parametrize(
    ("path", "prefix", "members", "strangers"),
    [
        ("in/*.csv", "in/", {"in/a.csv": "a.csv"}, ["in/b/a.csv", "in/a.csv.gz"]),
        ("in/**/*.csv", "in/", {"in/a.csv": "a.csv", "in/b/c/a.csv": "b/c/a.csv"}, ["in/b/a.tsv"]),
        (
            "in/y=202[56]/p?.csv",
            "in/y=202",
            {"in/y=2025/p1.csv": "y=2025/p1.csv"},
            ["in/y=2024/p1.csv", "in/y=2025/p.csv"],
        ),
        ("in/[!_]*", "in/", {"in/a": "a"}, ["in/_a"]),
        ("a.b/*", "a.b/", {"a.b/(1)+": "(1)+"}, ["axb/c"]),
    ],
)
def test_a_glob_means_these_objects_and_no_others(path, prefix, members, strangers):
    place = Place.of(f"s3://bucket/{path}")
    assert place.prefix == prefix
    assert {key: place.relative(key) for key in members if place.matches(key)} == members
    assert not [key for key in strangers if place.matches(key)]


def test_a_prefix_is_a_folder_and_an_object_is_itself():
    assert Place.of("gs://bucket/in").prefix == Place.of("gs://bucket/in/").prefix == "in/"
    assert Place.of("gs://bucket").prefix == ""
    assert Place.of("gs://bucket/in/").relative("in/b/a.csv") == "b/a.csv"
    assert Place.of("gs://bucket/in/a.csv").relative("in/a.csv") == "a.csv"


@pytest.mark.parametrize("name", ["../a.csv", "in/../../a.csv", "/etc/a.csv"])
def test_an_object_whose_name_leads_out_of_the_folder_is_refused(tmp_path, name):
    with pytest.raises(BadInput, match="points outside"):
        targets(tmp_path / "in", [SourceFile(name, "md5:0", 1)])


def test_an_object_that_is_also_a_folder_is_refused(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(BadInput, match="one of its folders is an object"):
        targets(tmp_path, [SourceFile("a/b.csv", "md5:0", 1)])


def test_a_name_says_that_its_bytes_are_compressed():
    assert shown("a.csv", "gzip") == "a.csv.gz"
    assert shown("a.csv.gz", "gzip") == "a.csv.gz"
    assert shown("a.csv", None) == shown("a.csv", "identity") == "a.csv"


def test_a_uri_that_nothing_reads_is_told_what_is_read():
    with pytest.raises(
        BadInput, match=r"no source reads ftp:// URIs; use a local path, file://, gs://, s3://, https://"
    ):
        open_source("ftp://host/a.csv", None)
    with pytest.raises(BadInput, match="names no bucket; write s3://bucket/path"):
        open_source("s3:///a.csv", None)
