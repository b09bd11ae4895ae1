"""What becomes of requests while the server ends, loses a worker, swaps a model or has too much to do."""

import asyncio
import json
import os
import shutil
import signal
import time

import httpx
import psutil
import pytest

from serving.bundle import load
from tests.prometheus import eventually
from tests.serving_bundle import rows, write_bundle
from tests.serving_load import Load, status_of
from tests.serving_process import ROW, Server


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "one")
    write_bundle(folder / "two", seed=9)
    write_bundle(folder / "slow", runtime="native")
    return folder


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(bundle, *options):
        server = Server(bundle, "ours-1", tmp_path / f"log-{len(servers)}", options=options)
        servers.append(server)
        server.start()
        server.wait()
        return server

    yield start
    for server in servers:
        server.kill()


def counted(server, metric):
    page = httpx.get(f"http://{server.address}/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(metric))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_loses_no_request(serve, bundles, workers):
    server = serve(bundles / "one", "--workers", workers)

    async def story():
        async with Load(server.port) as load:
            load.start(8)
            load.start(4, keep_alive=False)
            await asyncio.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            # No new traffic is to come, and yet what comes is answered.
            assert await status_of(server.port, "/v2/models/ours/ready") == 503
            code = await asyncio.to_thread(server.process.wait, 20)
        return load, code

    load, code = asyncio.run(story())
    assert code == 0
    assert load.lost == 0
    assert load.statuses == {200}
    assert load.outcomes[200] > 100


def test_a_model_swapped_under_load_loses_no_request_and_is_swapped_in_every_worker(serve, bundles, tmp_path):
    served = tmp_path / "served"
    shutil.copytree(bundles / "one", served)
    server = serve(served, "--workers", "2", "--model-control", "explicit")
    url = f"http://{server.address}/v2/repository/models/ours/load"
    old, new = (round(load(bundles / name).predict(rows(1))[0][0], 5) for name in ("one", "two"))
    assert old != new
    body = {"instances": json.loads(rows(1).to_json(orient="records"))}

    def seen():
        with httpx.Client(base_url=f"http://{server.address}", headers={"connection": "close"}) as client:
            replies = [client.post("/v1/models/ours:predict", json=body).json() for _ in range(16)]
        return {round(reply["predictions"][0]["probabilities"]["No"], 5) for reply in replies}

    async def story():
        async with Load(server.port) as load:
            load.start(6)
            load.start(2, keep_alive=False)
            assert await asyncio.to_thread(seen) == {old}
            shutil.rmtree(served)
            shutil.copytree(bundles / "two", served)
            reply = await asyncio.to_thread(httpx.post, url)
            assert reply.status_code == 200, reply.text
            assert await asyncio.to_thread(seen) == {new}
            (served / "MLmodel").write_text("altered")
            reply = await asyncio.to_thread(httpx.post, url)
            assert reply.status_code == 400
            assert "MLmodel is altered" in reply.json()["error"]
            assert await asyncio.to_thread(seen) == {new}  # it goes on
        return load

    found = asyncio.run(story())
    assert (found.lost, found.statuses) == (0, {200})


def test_a_worker_killed_under_load_comes_back_and_only_what_it_was_answering_fails(serve, bundles):
    server = serve(bundles / "one", "--workers", "2", "--drain-seconds", "0.3")
    children = psutil.Process(server.process.pid).children()

    async def story():
        async with Load(server.port) as load:
            load.start(8)
            load.start(4, keep_alive=False)
            await asyncio.sleep(0.5)
            before = await asyncio.to_thread(counted, server, 'sluiceway_requests_total{code="200"')
            os.kill(children[0].pid, signal.SIGKILL)
            await asyncio.sleep(1.2)
            killed = load.lost
            os.kill(children[1].pid, signal.SIGTERM)  # of one worker alone: the next takes over what waits
            await asyncio.sleep(1.5)
        return load, before, killed

    load, before, killed = asyncio.run(story())
    assert (load.statuses, load.outcomes["refused"]) == ({200}, 0)
    assert killed == load.lost <= 12  # one of each client at most, and none by the SIGTERM
    eventually(lambda: len(psutil.Process(server.process.pid).children()) == 2, 10)
    assert counted(server, "sluiceway_worker_restarts_total") == 2
    total = counted(server, 'sluiceway_requests_total{code="200"')
    assert total >= before  # its counts outlive it
    assert load.outcomes[200] - 1 <= total <= load.outcomes[200] + load.lost  # a reply is written, then counted


def test_overload_is_refused_cheaply_health_is_answered_meanwhile_and_it_is_over_at_once(serve, bundles):
    server = serve(bundles / "slow", "--max-waiting", "4")
    heavy = json.dumps({"instances": [ROW] * 500}).encode()

    async def story():
        health = []
        async with Load(server.port, heavy) as load:
            load.start(24)
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                began = time.perf_counter()
                assert await status_of(server.port, "/v2/health/live") == 200
                health.append(time.perf_counter() - began)
                await asyncio.sleep(0.05)
        began = time.perf_counter()
        reply = await asyncio.to_thread(server.send, 1)
        return load, sorted(health), reply, time.perf_counter() - began

    load, health, reply, seconds = asyncio.run(story())
    assert load.statuses == {200, 503}
    assert load.lost == 0
    assert b"retry-after: 1" in load.heads[503]
    assert len(load.seconds[503]) > 3 * len(load.seconds[200])
    assert (reply, seconds < 1.0) == ({200: 1}, True)
    assert health[len(health) // 2] < 0.5
