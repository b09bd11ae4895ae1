"""gs:// against a real emulator, and refusals from a small server that speaks the JSON API."""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from components.errors import BadInput, Unreachable
from components.ingest.resolve import resolve
from components.ingest.run import run
from components.ingest.sources import gcs

storage = pytest.importorskip("google.cloud.storage")
emulator = pytest.importorskip("gcp_storage_emulator.server")


@pytest.fixture
def bucket(monkeypatch) -> Iterator[Any]:
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="data")
    server.start()
    port = server._api._httpd.server_address[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(gcs, "RETRY_SECONDS", 3.0)
    yield storage.Client.create_anonymous_client().bucket("data")
    server.stop()


def put(bucket, name: str, text: str) -> int:
    blob = bucket.blob(name)
    blob.upload_from_string(text)
    return blob.generation


def test_an_object_becomes_a_snapshot_with_its_generation(bucket, tmp_path):
    generation = put(bucket, "in/a.csv", "a,b\n1,x\n2,y\n")
    made = run("gs://data/in/a.csv", resolve("gs://data/in/a.csv", {}).version, {}, tmp_path / "s")
    assert made.rows == 2
    assert [(file.name, file.generation) for file in made.files] == [("a.csv", str(generation))]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("uri", ["gs://data/in", "gs://data/in/", "gs://data/in/**.csv"])
def test_a_prefix_and_a_glob_are_read_in_name_order(bucket, tmp_path, uri):
    for index in (1, 0, 2):
        put(bucket, f"in/p{index}.csv", f"a\n{index}\n")
    put(bucket, "in/_SUCCESS", "")
    put(bucket, "other/x.csv", "b\n1\n")
    made = run(uri, "", {}, tmp_path / "s")
    assert duckdb.sql(f"FROM '{tmp_path}/s/*.parquet'").fetchall() == [(0,), (1,), (2,)]
    assert len(made.files) == 3


def test_equal_bytes_uploaded_again_are_the_same_version_and_other_bytes_another(bucket):
    put(bucket, "a.csv", "a\n1\n")
    first = resolve("gs://data/a.csv", {}).version
    put(bucket, "a.csv", "a\n1\n")
    assert resolve("gs://data/a.csv", {}).version == first
    put(bucket, "a.csv", "a\n2\n")
    assert resolve("gs://data/a.csv", {}).version != first


def test_a_large_object_is_fetched_in_ranges_and_whole(bucket, tmp_path, monkeypatch):
    text = "a,b\n" + "".join(f"{i},{i * 7}\n" for i in range(60_000))
    put(bucket, "big.csv", text)
    whole = run("gs://data/big.csv", "", {}, tmp_path / "whole")
    monkeypatch.setattr(gcs, "CHUNKED_FROM", 100_000)
    monkeypatch.setattr(gcs, "CHUNK", 200_000)
    ranges = run("gs://data/big.csv", "", {}, tmp_path / "ranges")
    assert ranges.parts == whole.parts
    assert ranges.rows == 60_000


def test_an_object_replaced_during_the_read_fails_the_step(bucket, tmp_path, monkeypatch):
    put(bucket, "a.csv", "a\n1\n")
    download = gcs.GcsSource._download

    def disturbed(self, files, paths):
        put(bucket, "a.csv", "a\n2\n")
        download(self, files, paths)

    monkeypatch.setattr(gcs.GcsSource, "_download", disturbed)
    with pytest.raises(BadInput, match="changed"):
        run("gs://data/a.csv", "", {}, tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_an_object_changed_between_resolve_and_ingest_fails_the_step(bucket, tmp_path):
    put(bucket, "a.csv", "a\n1\n")
    version = resolve("gs://data/a.csv", {}).version
    put(bucket, "a.csv", "a\n2\n")
    with pytest.raises(BadInput, match="changed between resolve"):
        run("gs://data/a.csv", version, {}, tmp_path / "s")


def test_a_bucket_that_does_not_exist_is_named(bucket):
    with pytest.raises(Unreachable, match="gs://nowhere does not exist"):
        resolve("gs://nowhere/a.csv", {})


def test_a_path_that_matches_nothing_is_refused(bucket):
    with pytest.raises(BadInput, match="Nothing matches gs://data/none/"):
        resolve("gs://data/none/", {})


def answering(status: int, monkeypatch) -> None:
    """Serve one status to everything, as Google Cloud Storage would."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"error": {"code": status, "message": "no"}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(gcs, "RETRY_SECONDS", 2.0)


@pytest.mark.parametrize(("status", "says"), [(401, "no working Google credentials"), (403, "objectViewer")])
def test_a_bucket_that_refuses_access_says_what_is_needed(monkeypatch, status, says):
    answering(status, monkeypatch)
    with pytest.raises(Unreachable, match=f"gs://private refuses access.*{says}"):
        resolve("gs://private/a.csv", {})


def test_a_store_that_stays_down_is_unreachable(monkeypatch):
    answering(503, monkeypatch)
    with pytest.raises(Unreachable, match="could not be read for 2 s"):
        resolve("gs://data/a.csv", {})
