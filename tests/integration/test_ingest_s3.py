"""s3:// against moto's server, with a proxy before it that misbehaves as real stores do."""

import base64
import gzip
import hashlib
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from components.errors import BadInput, Unreachable
from components.ingest.options import ReadOptions
from components.ingest.resolve import resolve
from components.ingest.run import run
from components.ingest.sources import s3, transfer
from components.ingest.sources.s3 import S3Source
from tests.fault_proxy import Cut, FaultProxy

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto.server")
loaders = pytest.importorskip("botocore.loaders")

TEXT = ("a,b\n" + "".join(f"{i},{i * 7}\n" for i in range(20_000))).encode()
_OWN = ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_ROLE_ARN")


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(scope="module")
def models() -> Any:
    """The service descriptions that a client begins with: the same ones for all, as each reading takes 0.3 s."""
    return loaders.create_loader()


@pytest.fixture
def proxy(store, models, monkeypatch, tmp_path) -> Iterator[FaultProxy]:
    monkeypatch.setattr(loaders, "create_loader", lambda paths=None: models)
    for name in _OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 6.0)
    with FaultProxy(store) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made


@pytest.fixture(scope="module")
def resource(store) -> Any:
    return boto3.resource(
        "s3", endpoint_url=store, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
    )


@pytest.fixture
def bucket(resource, proxy) -> Iterator[Any]:
    made = resource.Bucket("data")
    made.create()
    yield made
    made.object_versions.delete()
    made.objects.delete()
    made.delete()


def put(bucket, name: str, content: bytes | str, **more: Any) -> None:
    bucket.put_object(Key=name, Body=content, **more)


def upload_in_parts(bucket, monkeypatch, name: str, sizes: tuple[int, ...]) -> None:
    """Upload TEXT in parts of these sizes."""
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)  # it is 5 MiB elsewhere
    assert sum(sizes) == len(TEXT)
    upload = bucket.Object(name).initiate_multipart_upload()
    done, at = [], 0
    for number, size in enumerate(sizes, 1):
        etag = upload.Part(number).upload(Body=TEXT[at : at + size])["ETag"]
        done.append({"PartNumber": number, "ETag": etag})
        at += size
    upload.complete(MultipartUpload={"Parts": done})


def got(uri: str, tmp_path) -> tuple[Any, bytes]:
    source = S3Source(uri, ReadOptions())
    files = source.files()
    (path,) = source.fetch(files, tmp_path / "fetched")
    return files[0], path.read_bytes()


def refused(kind, uri, tmp_path) -> str:
    with pytest.raises(kind) as caught:
        run(uri, "", {}, tmp_path / "out" / "snapshot")
    assert not list((tmp_path / "out").glob("*")), "nothing half-written"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_object_is_known_by_the_md5_that_its_etag_is(bucket, tmp_path):
    put(bucket, "in/a.csv", TEXT)
    source = resolve("s3://data/in/a.csv", {})
    made = run("s3://data/in/a.csv", source.version, {}, tmp_path / "s")
    digest = hashlib.md5(TEXT).hexdigest()
    assert made.rows == 20_000
    assert [(f.name, f.digest, f.generation) for f in made.files] == [("a.csv", f"md5:{digest}", f'"{digest}"')]
    put(bucket, "in/a.csv", TEXT)
    assert resolve("s3://data/in/a.csv", {}).version == source.version


def test_a_versioned_object_is_read_as_it_was_listed(bucket, tmp_path):
    bucket.Versioning().enable()
    put(bucket, "a.csv", TEXT)
    source = S3Source("s3://data/a.csv", ReadOptions())
    files = source.files()
    put(bucket, "a.csv", "a\n1\n")
    assert files[0].generation == next(v.id for v in bucket.object_versions.all() if not v.is_latest)
    (path,) = source.fetch(files, tmp_path)
    assert path.read_bytes() == TEXT


def test_partitioned_folders_and_globs_are_read(bucket, tmp_path):
    for year in (2026, 2025):
        put(bucket, f"in/year={year}/x.csv", f"a\n{year * 2}\n")
    put(bucket, "in/_SUCCESS", "")
    put(bucket, "in/year=2026/_temporary/x.csv", "b\n")
    put(bucket, "in/", "")
    put(bucket, "inside/x.csv", "b\n1\n")
    for uri in ("s3://data/in", "s3://data/in/", "s3://data/in/*/*.csv", "s3://data/in/**"):
        assert [file.name for file in S3Source(uri, ReadOptions()).files()] == ["year=2025/x.csv", "year=2026/x.csv"]
    run("s3://data/in", "", {}, tmp_path / "s")
    assert duckdb.sql(f"SELECT a, year FROM '{tmp_path}/s/*.parquet'").fetchall() == [(4050, 2025), (4052, 2026)]


def test_a_listing_of_several_pages_is_read_to_its_end(bucket):
    for index in range(12):
        put(bucket, f"in/{index:02}.csv", "a\n1\n")
    source = S3Source("s3://data/in/", ReadOptions())
    page = source._client.ask

    async def small(operation, **arguments):
        return await page(operation, **arguments, **({"MaxKeys": 5} if operation == "list_objects_v2" else {}))

    source._client.ask = small
    assert len(source.files()) == 12


@pytest.mark.parametrize("sizes", [(90_000, 90_000, 53_019), (90_000, 100_000, 43_019)], ids=["alike", "unlike"])
def test_an_object_uploaded_in_parts_is_fetched_in_ranges_and_checked(bucket, tmp_path, monkeypatch, sizes):
    monkeypatch.setattr(s3, "RANGE", 64 * 1024)
    upload_in_parts(bucket, monkeypatch, "big.csv", sizes)
    (file, fetched) = got("s3://data/big.csv", tmp_path)
    assert fetched == TEXT
    assert file.digest.startswith("etag:")
    checksum = transfer.parts_checksum
    monkeypatch.setattr(transfer, "parts_checksum", lambda path, sizes: checksum(path, sizes).replace("-", "0-"))
    assert "another etag" in refused(BadInput, "s3://data/big.csv", tmp_path)


def test_a_stored_sha256_is_the_digest_where_the_etag_is_no_md5(bucket, tmp_path):
    put(bucket, "a.csv", TEXT, ChecksumAlgorithm="SHA256", ServerSideEncryption="aws:kms")
    file, content = got("s3://data/a.csv", tmp_path)
    assert (file.digest, content) == (f"sha256:{hashlib.sha256(TEXT).hexdigest()}", TEXT)


def test_a_compressed_object_behind_a_plain_name_is_read(bucket, tmp_path):
    put(bucket, "a.csv", gzip.compress(b"a\n1\n2\n"), ContentEncoding="gzip")
    assert run("s3://data/a.csv", "", {}, tmp_path / "s").rows == 2


def test_an_empty_object_is_refused_as_empty(bucket, tmp_path):
    put(bucket, "a.csv", "")
    assert "is empty" in refused(BadInput, "s3://data/a.csv", tmp_path)


@pytest.mark.parametrize("range_size", [2**24, 64 * 1024], ids=["whole", "ranges"])
def test_an_object_replaced_during_the_read_fails_the_step(bucket, tmp_path, monkeypatch, proxy, range_size):
    monkeypatch.setattr(s3, "RANGE", range_size)
    put(bucket, "a.csv", TEXT)

    left = ["once"]

    def replace_then(method, path, headers):
        if method == "GET" and path.startswith("/data/a.csv") and left:
            left.clear()
            put(bucket, "a.csv", TEXT.replace(b"7", b"8"))

    proxy.faults = replace_then
    assert "s3://data/a.csv changed" in refused(BadInput, "s3://data/a.csv", tmp_path)


def test_an_object_altered_on_the_way_fails_the_step(bucket, tmp_path, monkeypatch):
    put(bucket, "a.csv", TEXT)
    monkeypatch.setattr(transfer, "checksum", lambda path, algorithm: "0" * 32)
    assert "another md5" in refused(BadInput, "s3://data/a.csv", tmp_path)


def test_an_object_deleted_since_the_listing_fails_the_step(bucket, tmp_path):
    put(bucket, "a.csv", TEXT)
    source = S3Source("s3://data/a.csv", ReadOptions())
    files = source.files()
    bucket.Object("a.csv").delete()
    with pytest.raises(BadInput, match="changed since it was listed"):
        source.fetch(files, tmp_path)


def media(method: str, path: str) -> bool:
    return method == "GET" and path.startswith("/data/in/")


def listing(method: str, path: str) -> bool:
    return "list-type" in path


@pytest.mark.parametrize(
    ("where", "fault"),
    [(listing, 503), (media, 429), (media, 500), (media, Cut(100_000)), (media, Cut(100_000, reset=True))],
)
def test_what_may_pass_is_tried_again(bucket, tmp_path, proxy, where, fault):
    put(bucket, "in/big.csv", TEXT)
    proxy.fail(fault, where=where)
    assert got("s3://data/in/", tmp_path)[1] == TEXT
    asked = [headers for method, path, headers in proxy.seen if where(method, path)]
    assert len(asked) == 2
    if isinstance(fault, Cut):  # it goes on where it broke
        assert 0 < int(asked[1]["Range"][6:].split("-")[0]) <= 100_000


@pytest.mark.parametrize("where", [listing, media])
def test_denied_access_is_final_and_says_what_is_needed(bucket, tmp_path, proxy, where):
    put(bucket, "in/a.csv", TEXT)
    proxy.fail(*[403] * 9, where=where)
    assert "s3://data refuses access (403); grant this identity s3:GetObject" in refused(
        Unreachable, "s3://data/in/", tmp_path
    )
    assert len([path for method, path, _ in proxy.seen if where(method, path)]) == 1


def test_a_store_that_stays_down_is_unreachable(bucket, tmp_path, proxy, monkeypatch):
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 1.0)
    proxy.faults = lambda method, path, headers: 503
    assert "s3://data could not be read for 1 s (503)" in refused(Unreachable, "s3://data/a.csv", tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "could not be read for 1 s" in refused(Unreachable, "s3://data/a.csv", tmp_path)


def test_an_object_that_goes_on_breaking_off_leaves_nothing(bucket, tmp_path, proxy, monkeypatch):
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 1.0)
    put(bucket, "in/a.csv", TEXT)
    proxy.fail(*[Cut(0)] * 999, where=media)
    assert "could not be read for 1 s" in refused(Unreachable, "s3://data/in/a.csv", tmp_path)


def test_a_public_bucket_is_read_without_credentials(bucket, tmp_path, proxy, monkeypatch):
    put(bucket, "a.csv", TEXT, ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    proxy.seen.clear()
    assert got("s3://data/a.csv", tmp_path)[1] == TEXT
    assert not [headers for _, _, headers in proxy.seen if "Authorization" in headers]
    proxy.faults = lambda method, path, headers: 403
    assert "there are no AWS credentials" in refused(Unreachable, "s3://data/a.csv", tmp_path)


def test_a_pods_service_account_is_taken(bucket, tmp_path, proxy, monkeypatch):
    put(bucket, "a.csv", TEXT)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "token").write_text("a.b.c")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    assert got("s3://data/a.csv", tmp_path)[1] == TEXT
    signed = [headers["Authorization"] for method, _, headers in proxy.seen if method == "GET"]
    assert signed
    assert all("Credential=ASIA" in one for one in signed)


def test_a_bucket_that_does_not_exist_is_named(proxy, tmp_path):
    assert "Bucket s3://nowhere does not exist" in refused(Unreachable, "s3://nowhere/a.csv", tmp_path)


def test_a_name_or_an_endpoint_that_cannot_be_is_not_tried_again(proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 60.0)
    assert "cannot be asked (Parameter validation failed: Invalid bucket name" in refused(
        Unreachable, "s3://no bucket/a.csv", tmp_path
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio")
    assert "check the bucket's name, AWS_ENDPOINT_URL" in refused(Unreachable, "s3://data/a.csv", tmp_path)


def test_a_path_that_matches_nothing_is_refused(bucket, tmp_path):
    assert "Nothing matches s3://data/none/" in refused(BadInput, "s3://data/none/", tmp_path)


def test_checksums_are_computed_as_s3_writes_them(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"123456789")
    assert transfer.checksum(path, "crc32") == "cbf43926"
    assert transfer.checksum(path, "crc32c") == "e3069283"
    assert transfer.hexadecimal(base64.b64encode(bytes.fromhex("e3069283")).decode()) == "e3069283"
