"""The load test against real HTTP servers whose service times are known."""

import asyncio
import itertools
import math
import threading
import time
from contextlib import contextmanager

import pytest

from components.errors import BadInput, Inconclusive, TooSlow
from components.rollout.traffic import Rows
from components.stage.load import LoadResult, arrivals, load_test, measure, parse_load

ROWS = Rows(tuple({"x": n} for n in range(5)), ((0.0,),) * 5)


@contextmanager
def server(answer, *, one_at_a_time=False):
    """A keep-alive HTTP server; ``answer(number)`` is a coroutine that gives the status of request number 0, 1, …"""
    loop, asked, queue = asyncio.new_event_loop(), iter(range(10**9)), asyncio.Lock()

    async def serve(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line[15:]) for line in head.splitlines() if line.lower().startswith(b"content-length")
                )
                await reader.readexactly(length)
                if one_at_a_time:
                    async with queue:
                        status = await answer(next(asked))
                else:
                    status = await answer(next(asked))
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    listening = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    listening.close()
    loop.close()


def taking(seconds):
    async def answer(_number):
        await asyncio.sleep(seconds)
        return 200

    return answer


def queued(dues, service):
    """Latency of each request at a server that takes them one by one (Lindley 1952)."""
    free, latencies = 0.0, []
    for due in dues:
        free = max(free, due) + service
        latencies.append(free - due)
    return latencies


def md1_quantile(share, arrival_rate, service):
    """Quantile of the time in an M/D/1 queue (Erlang 1909), by bisection."""
    load = arrival_rate * service

    def waits_at_most(t):
        terms = (
            (arrival_rate * (k * service - t)) ** k / math.factorial(k) * math.exp(-arrival_rate * (k * service - t))
            for k in range(int(t / service) + 1)
        )
        return (1 - load) * sum(terms)

    low, high = 0.0, 20 * service
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if waits_at_most(middle) >= share else (middle, high)
    return high + service


def test_a_server_that_is_fast_enough_passes_and_its_figures_are_what_it_took():
    with server(taking(0.03)) as url:
        result = load_test(url, "m", ROWS, parse_load({"requests_per_second": 40, "seconds": 1, "p99_ms": 200}))
    assert (result.finding, result.requests, result.failed, result.errors) == ("pass", 40, 0, {})
    assert 29 < result.p50_ms < 60
    assert result.p50_ms <= result.p95_ms <= result.p99_ms <= result.max_ms
    assert result.sent_per_second == pytest.approx(40, rel=0.1)
    assert result.answered_per_second == pytest.approx(40, rel=0.15)


def test_waiting_in_the_servers_queue_counts():
    rate, service = 60.0, 0.01  # the server is busy 60 % of the time
    with server(taking(service), one_at_a_time=True) as url:
        load = parse_load({"requests_per_second": rate, "seconds": 3, "warmup_seconds": 0})
        result = measure(url, "m", ROWS, load)
    waited = sorted(queued(arrivals(rate, 3), service + 0.0006))  # a sleep of 10 ms takes a little more
    assert 0.7 < result.p95_ms / (1000 * waited[int(0.95 * len(waited))]) < 3
    expected = 1000 * md1_quantile(0.99, rate, service)
    assert expected == pytest.approx(55.9, abs=1)  # the asymptote 0.746 exp(-94 t), plus the service
    assert 0.6 * expected < result.p99_ms < 3 * expected  # a busy machine only adds


def test_arrivals_come_at_the_rate_that_is_asked_and_bunch_as_those_of_strangers_do():
    dues = arrivals(200, 50)
    gaps = [b - a for a, b in itertools.pairwise(dues)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert len(dues) == 10_000
    assert mean == pytest.approx(1 / 200, rel=0.01)
    assert deviation / mean == pytest.approx(1, abs=0.05)  # exponential gaps
    assert arrivals(200, 50) == dues


def test_every_request_that_a_stall_hits_is_counted_not_only_the_one_that_saw_it_begin():
    async def stalls_once(number):
        if number == 30:
            time.sleep(0.6)  # the whole server
        return 200

    with server(stalls_once) as url:
        load = parse_load({"requests_per_second": 50, "seconds": 3, "warmup_seconds": 0})
        result = measure(url, "m", ROWS, load)
    assert result.p50_ms < 200
    assert result.p95_ms > 300  # 30 of 150 requests came due in the stall; a client that waits would have seen one
    assert result.max_ms > 550


def test_a_server_that_misses_the_slo_under_load_is_too_slow_though_one_request_is_fast():
    with server(taking(0.02), one_at_a_time=True) as url:  # at most 50 per second
        with pytest.raises(TooSlow, match=r"too slow at the expected load: p99 .* 100 ms allowed; give it more"):
            load_test(url, "m", ROWS, parse_load({"requests_per_second": 80, "seconds": 1, "p99_ms": 100}))
        assert (
            load_test(url, "m", ROWS, parse_load({"requests_per_second": 5, "seconds": 1, "p99_ms": 100})).failed == 0
        )


def test_failures_are_told_by_their_code():
    async def sometimes_fails(number):
        return (200, 503, 200, 429)[number % 4]

    load = {"requests_per_second": 40, "seconds": 1, "warmup_seconds": 0}
    with server(sometimes_fails) as url:
        with pytest.raises(TooSlow, match=r"20 of 40 requests .* failed \(10 429, 10 503\), 0.0% allowed"):
            load_test(url, "m", ROWS, parse_load(load))
        assert load_test(url, "m", ROWS, parse_load({**load, "error_rate": 0.5})).errors == {"503": 10, "429": 10}


def test_a_server_that_is_not_there_fails_every_request():
    with pytest.raises(TooSlow, match=r"10 of 10 requests .* \(10 ConnectError\)"):
        load_test("http://127.0.0.1:9", "m", ROWS, parse_load({"requests_per_second": 10, "seconds": 1}))


def test_a_client_that_cannot_keep_up_says_so_and_passes_nothing():
    load = parse_load({"requests_per_second": 5000, "seconds": 0.1, "warmup_seconds": 0, "p99_ms": 5000})
    with server(taking(0)) as url:
        with pytest.raises(
            Inconclusive, match=r"this client could not keep up: it sent \d+ of 5000 requests per second"
        ):
            load_test(url, "m", ROWS, load)
        report = load_test(url, "m", ROWS, load.model_copy(update={"p99_ms": 0.0}))
    assert report.finding == "inconclusive"
    assert report.late_ms > 10
    assert report.p99_ms >= report.late_ms  # latency counts from when a request was due


def test_warm_up_requests_are_sent_but_not_counted():
    seen = []

    async def slow_at_first(number):
        seen.append(number)
        await asyncio.sleep(0.2 if number < 20 else 0)
        return 200

    with server(slow_at_first) as url:
        load = {"requests_per_second": 40, "seconds": 0.5, "warmup_seconds": 0.5, "p99_ms": 150}
        result = load_test(url, "m", ROWS, parse_load(load))
    assert (len(seen), result.requests) == (40, 20)


def test_no_load_is_asked_for_with_a_rate_of_0():
    assert load_test("http://127.0.0.1:9", "m", ROWS, parse_load({"requests_per_second": 0})) == LoadResult()


def test_a_wrong_load_is_named():
    with pytest.raises(BadInput, match=r"The load is wrong at error_rate: .*less than or equal to 1"):
        parse_load({"error_rate": 2})
    with pytest.raises(BadInput, match="The load is wrong at rps: "):
        parse_load({"rps": 2})
