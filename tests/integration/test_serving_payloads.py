"""Payload logging with a real writer, real HTTP sinks, real files and a GCS emulator."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import orjson
import pandas as pd
import pytest

from serving.payloads import PayloadLog
from serving.payloads.settings import Settings
from tests.payload_sink import Sink, sink
from tests.payloads import AT, exchange, v1_reply
from tests.prometheus import eventually
from tests.serving_bundle import schema
from tests.serving_process import ROW

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def http():
    with sink() as made:
        yield made


def one(number=0, **more):
    return exchange({"instances": [ROW]}, v1_reply(0.75), id=f"r{number}", **more)


def logged(settings, during, seconds=20.0):
    """Run ``during(log)``, a coroutine function, with a log that is started and closed; gives the counts."""

    async def run():
        log = PayloadLog(settings)
        log.know("ours", "r1", schema())
        await log.start()
        await during(log)
        await log.close(seconds)
        return log.counts()

    return asyncio.run(run())


async def until(is_so, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def balanced(counts, name):
    """Whether every exchange that was sampled has ended in one way."""
    ended = sum(number for key, number in counts.items() if name in key.split("."))
    return counts["sampled"] == counts["dropped.queue"] + ended


def test_events_are_those_of_kserves_logger(http):
    """Against pkg/logger (handler.go, worker.go) of kserve/kserve at v0.20.0-rc0-104-gaaac4e294, with sdk-go v2.16.2.

    Its events have these attributes and no others; ours have ``revision`` besides. One for the request, with the body
    as it came, and one for the reply of a request that was answered 200, both with the id of the request.
    """
    request, reply = orjson.dumps({"instances": [ROW]}), orjson.dumps(v1_reply(0.75))
    settings = Settings(url=http.url, source="ours-predictor-0", namespace="team", inference_service="churn")

    async def during(log):
        log.offer(exchange(request, reply, id="a-7"))
        log.offer(exchange(b"nothing", b'{"error": "..."}', id="a-8", status=400, request_type=""))

    began = time.time()
    counts = logged(settings, during)
    assert counts == counts | {"sampled": 2, "written.http": 2}

    by_type = {(event["id"], event["type"].rpartition(".")[2]): (event, raw, body) for event, raw, body in http.events}
    assert set(by_type) == {("a-7", "request"), ("a-7", "response"), ("a-8", "request")}
    times = {"request": "2023-11-14T22:13:20.25Z", "response": "2023-11-14T22:13:20.252Z"}
    for kind, expected in (("request", request), ("response", reply)):
        event, raw, body = by_type["a-7", kind]
        assert body == expected
        sent = {name: value for name, value in raw.items() if name.startswith("ce-")}
        recorded = pd.Timestamp(sent.pop("ce-recordedtime")).timestamp()
        assert began - 1 <= recorded <= time.time()
        assert sent == {
            "ce-specversion": "1.0",
            "ce-id": "a-7",
            "ce-type": f"org.kubeflow.serving.inference.{kind}",
            "ce-source": "ours-predictor-0",
            "ce-time": times[kind],
            "ce-inferenceservicename": "churn",
            "ce-namespace": "team",
            "ce-component": "predictor",
            "ce-endpoint": "",
            "ce-metadata": "{}",
            "ce-revision": "r1",
        }
        assert raw["content-type"] == "application/json"
        assert event.data == orjson.loads(body)
    assert "content-type" not in by_type["a-8", "request"][1]


def test_redacted_columns_leave_in_neither_way(http, tmp_path):
    settings = Settings(url=http.url, store=f"file://{tmp_path}", redact=("size",), raw=True)

    async def during(log):
        log.offer(one())
        log.offer(exchange(b'{"instances": [{"size": "large", ', status=400))

    counts = logged(settings, during)
    assert counts == counts | {"written.http": 1, "dropped.http.unreadable": 1, "written.store": 2}
    assert [body for event, _, body in http.events if b"large" in body or b"large" in repr(event).encode()] == []
    assert {event["type"].rpartition(".")[2] for event, _, _ in http.events} == {"request", "response"}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.parquet"))
    assert written
    assert b"large" not in written
    table = duckdb.sql(f"FROM '{tmp_path}/**/*.parquet' WHERE status = 200").df()
    assert table["size"].isna().all()
    assert table["mean_radius"].tolist() == [14.2]
    assert b"large" not in b"".join(table["request"])


def test_a_sink_that_fails_costs_its_events_and_nothing_else(http, tmp_path):
    http.status = 500
    settings = Settings(url=http.url, store=f"file://{tmp_path}", queue_bytes=100_000, roll_seconds=0.5)

    async def during(log):
        log.offer(one(0))
        await until(lambda: log.counts()["written.store"] == 1)
        for number in range(1, 400):
            began = time.perf_counter()
            log.offer(one(number))
            assert time.perf_counter() - began < 0.5
            await asyncio.sleep(0.001)
        await until(lambda: log.counts().get("dropped.http.failed"))
        http.status = 204
        await until(lambda: log.counts()["written.http"])

    counts = logged(settings, during)
    assert balanced(counts, "http")
    assert balanced(counts, "store")
    assert counts["dropped.http.queue"] > 0
    assert counts["written.store"] == 400 - counts["dropped.queue"]
    assert duckdb.sql(f"SELECT count(DISTINCT id) FROM '{tmp_path}/**/*.parquet'").fetchall() == [
        (counts["written.store"],)
    ]


@pytest.mark.parametrize("way", ["nobody listens", "it never answers"])
def test_shutting_down_takes_no_longer_than_it_may_whatever_the_sink_does(http, way, tmp_path):
    http.delay = 60.0
    url = http.url if way == "it never answers" else Sink().url

    async def during(log):
        for number in range(50):
            log.offer(one(number))
        await asyncio.sleep(0.3)

    began = time.monotonic()
    counts = logged(Settings(url=url, store=f"file://{tmp_path}"), during, seconds=2.5)
    assert time.monotonic() - began < 10
    assert balanced(counts, "http")
    assert counts["written.http"] == 0
    assert counts["dropped.http.closing"] > 0
    assert counts["written.store"] == 50


def test_what_does_not_fit_is_dropped_and_memory_stays_bounded(tmp_path):
    """Nothing runs but offers, as where the writer takes nothing: the queue takes its bytes and no more."""

    async def run():
        log = PayloadLog(Settings(store=f"file://{tmp_path}", queue_bytes=1_000_000))
        await log.start()
        for number in range(10_000):
            log.offer(one(number))
        return log.counts(), sum(waiting.bytes for waiting in log._queue), await log.close(20.0), log.counts()

    counts, held, _, after = asyncio.run(run())
    assert held <= 1_000_000
    assert counts["dropped.queue"] == 10_000 - held // one().bytes or counts["dropped.queue"] > 8_000
    assert balanced(after, "store")


def test_a_writer_that_is_killed_comes_back_and_only_what_it_held_is_lost(tmp_path):
    async def during(log):
        log.offer(one(0))
        await until(lambda: log.counts()["written.store"] == 1)
        log.offer(one(1))
        await asyncio.sleep(0.1)
        os.kill(log._writer.pid, signal.SIGKILL)
        await until(lambda: log.counts()["restarts"] == 1)
        log.offer(one(2))
        await until(lambda: log.counts()["written.store"] == 2)

    counts = logged(Settings(store=f"file://{tmp_path}", roll_seconds=0.5), during)
    assert counts == counts | {"sampled": 3, "written.store": 2, "dropped.store.writer": 1}
    ids = duckdb.sql(f"SELECT id FROM '{tmp_path}/**/*.parquet' ORDER BY id").fetchall()
    assert ids == [("r0",), ("r2",)]


_KILLED = """
import asyncio, os, signal, sys
from serving.payloads import PayloadLog
from tests.integration.test_serving_payloads import one, schema, Settings

async def run():
    log = PayloadLog(Settings(store=sys.argv[1], roll_seconds=600))
    log.know("ours", "r1", schema())
    await log.start()
    for number in range(100):
        log.offer(one(number))
    await asyncio.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(run())
"""


def test_of_a_server_that_is_killed_the_writer_still_writes_what_it_got(tmp_path):
    subprocess.run([sys.executable, "-c", _KILLED, f"file://{tmp_path}"], cwd=ROOT, check=False)
    eventually(lambda: list(tmp_path.rglob("*.parquet")), 20)
    assert duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/**/*.parquet'").fetchall() == [(100,)]


def test_parts_are_objects_by_hour_that_labels_can_be_joined_to(monkeypatch, tmp_path):
    storage = pytest.importorskip("google.cloud.storage")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="log")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server._api._httpd.server_address[1]}")
    try:

        async def during(log):
            log.offer(exchange({"instances": [ROW, {**ROW, "size": "small"}]}, v1_reply(0.75, 0.25), id="early"))
            log.offer(one(2, at=AT + 3600))

        counts = logged(Settings(store="gs://log/payloads"), during)
        assert counts["written.store"] == 2
        for blob in storage.Client.create_anonymous_client().bucket("log").list_blobs():
            path = tmp_path / blob.name
            path.parent.mkdir(parents=True, exist_ok=True)
            blob.download_to_filename(path)
    finally:
        server.stop()

    folders = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet"))
    day = "payloads/model=ours/revision=r1/date=2023-11-14"
    assert folders == [f"{day}/hour=22", f"{day}/hour=23"]

    (tmp_path / "labels.csv").write_text("id,index,outcome\nearly,0,Yes\nearly,1,Yes\nr2,0,Yes\n")
    page = (ROOT / "docs" / "payloads.md").read_text(encoding="utf-8")
    query = page.partition("```sql\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    assert duckdb.sql(query.replace("gs://BUCKET/payloads", "payloads")).fetchall() == [("r1", 3, pytest.approx(2 / 3))]
