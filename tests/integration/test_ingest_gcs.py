"""gs:// against a real emulator, and refusals from a small server that speaks the JSON API."""

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from components.errors import BadInput, Unreachable
from components.ingest.options import ReadOptions
from components.ingest.resolve import resolve
from components.ingest.run import run
from components.ingest.sources import gcs, transfer
from tests.fault_proxy import Cut, FaultProxy

storage = pytest.importorskip("google.cloud.storage")
emulator = pytest.importorskip("gcp_storage_emulator.server")


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="data")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(store, monkeypatch) -> Any:
    store.wipe()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address(store))
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 6.0)
    made = storage.Client.create_anonymous_client().bucket("data")
    made.create()
    return made


@pytest.fixture
def proxy(store, bucket, monkeypatch) -> Iterator[FaultProxy]:
    with FaultProxy(address(store)) as made:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", made.url)
        yield made


def address(store) -> str:
    return f"http://127.0.0.1:{store._api._httpd.server_address[1]}"


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


@pytest.mark.parametrize("chunked_from", [2**20, 0], ids=["whole", "ranges"])
@pytest.mark.parametrize("new", ["a\n2\n", "a\n", "b\n1\n2\n"], ids=["other", "shorter", "longer"])
def test_an_object_replaced_during_the_read_fails_the_step(bucket, tmp_path, monkeypatch, chunked_from, new):
    monkeypatch.setattr(gcs, "CHUNKED_FROM", chunked_from)
    put(bucket, "a.csv", "a\n1\n")
    listed = gcs.GcsSource.files

    def disturbed(self):
        files = listed(self)
        put(bucket, "a.csv", new)
        return files

    monkeypatch.setattr(gcs.GcsSource, "files", disturbed)
    with pytest.raises(BadInput, match="changed"):
        run("gs://data/a.csv", "", {}, tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_an_object_that_the_store_would_decompress_is_kept_as_it_lies_there(bucket, tmp_path):
    blob = bucket.blob("a.csv")
    blob.upload_from_string(gzip.compress(b"a\n1\n2\n"))
    blob.content_encoding = "gzip"
    blob.patch()
    made = run("gs://data/a.csv", "", {}, tmp_path / "s")
    assert ([file.name for file in made.files], made.rows) == (["a.csv.gz"], 2)


def media(method: str, path: str) -> bool:
    return "/download/" in path


def listing(method: str, path: str) -> bool:
    return "prefix=" in path


@pytest.mark.parametrize(
    ("where", "fault"), [(listing, 503), (media, 429), (media, Cut(100_000)), (media, Cut(100_000, reset=True))]
)
@pytest.mark.parametrize("chunked_from", [2**20, 0], ids=["whole", "ranges"])
def test_what_may_pass_is_tried_again(proxy, bucket, tmp_path, monkeypatch, where, fault, chunked_from):
    monkeypatch.setattr(gcs, "CHUNKED_FROM", chunked_from)
    text = "a,b\n" + "".join(f"{i},{i * 7}\n" for i in range(20_000))
    monkeypatch.setattr(gcs, "CHUNK", len(text) // 2 + 1)
    put(bucket, "in/big.csv", text)
    proxy.fail(fault, where=where)
    source = gcs.GcsSource("gs://data/in/", ReadOptions())
    (path,) = source.fetch(source.files(), tmp_path)
    assert path.read_text() == text
    asked = [path for method, path, _ in proxy.seen if where(method, path)]
    assert len(asked) == (2 if where is media and chunked_from == 0 else 1) + 1


@pytest.mark.parametrize("where", [listing, media])
def test_a_refusal_is_final(proxy, bucket, tmp_path, where):
    put(bucket, "in/a.csv", "a\n1\n")
    proxy.fail(*[403] * 9, where=where)
    with pytest.raises(Unreachable, match="refuses access"):
        run("gs://data/in/", "", {}, tmp_path / "s")
    assert len([path for method, path, _ in proxy.seen if where(method, path)]) == 1
    assert not list(tmp_path.iterdir())


def test_an_object_that_goes_on_breaking_off_leaves_nothing(proxy, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 1.0)
    put(bucket, "a.csv", "a\n" + "1\n" * 100_000)
    proxy.fail(*[Cut(0)] * 99, where=media)
    with pytest.raises(Unreachable, match="could not be read for 1 s"):
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
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 2.0)


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "access.*no working Google credentials"), (403, "access.*objectViewer"), (400, "the request")],
)
def test_a_bucket_that_refuses_says_what_is_needed(monkeypatch, status, says):
    answering(status, monkeypatch)
    with pytest.raises(Unreachable, match=f"gs://private refuses {says}"):
        resolve("gs://private/a.csv", {})


def test_a_store_that_stays_down_is_unreachable(monkeypatch):
    answering(503, monkeypatch)
    with pytest.raises(Unreachable, match="could not be read for 2 s"):
        resolve("gs://data/a.csv", {})
