"""The load generator of the benchmarks: what it counts and what it calls a latency."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from tests.bench.load.closed import closed_loop
from tests.bench.load.connections import whole
from tests.bench.load.latency import Latencies
from tests.bench.load.opened import open_loop

REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_percentiles_of_the_histogram_are_right_within_a_hundredth():
    times = np.random.default_rng(0).lognormal(13, 1, 100_000).astype(np.uint64)
    latencies = Latencies()
    latencies.add(times[:50_000])
    latencies.add(times[50_000:])

    for percent in (50, 99, 99.9):
        assert latencies.percentile(percent) == pytest.approx(np.percentile(times, percent) / 1e6, rel=0.012)
    assert latencies.largest == times.max()


@pytest.mark.parametrize(
    ("reply", "is_whole"),
    [
        (REPLY, True),
        (REPLY[:-1], False),
        (REPLY[:20], False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
    ],
)
def test_a_reply_is_whole_when_its_length_is_there(reply, is_whole):
    assert whole(reply) is is_whole


@pytest.fixture
def serve():
    """Starts a server of one connection at a time that waits before some replies; gives its address."""
    listeners = []

    def start(wait):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer():
            connection, _ = listener.accept()
            count = 0
            with connection, contextlib.suppress(ConnectionError):  # the generator closes with a request under way
                while connection.recv(65_536):
                    time.sleep(wait(count))
                    connection.sendall(REPLY)
                    count += 1

        threading.Thread(target=answer, daemon=True).start()
        return listener.getsockname()

    yield start
    for one in listeners:
        one.close()


def test_a_closed_loop_counts_every_reply_by_status(serve):
    outcome = closed_loop(serve(lambda _: 0), [REQUEST], 1, warm=0, seconds=0, count=50)

    assert outcome.requests == 50
    assert set(outcome.statuses) == {(0, 200)}
    assert len(outcome.latencies) == 50


def test_time_that_requests_wait_behind_a_stall_counts_in_an_open_loop(serve):
    """One stall of 0.2 s at 500 requests per second holds up a hundred requests, not the one that was sent."""
    found = open_loop(serve(lambda count: 0.2 if count == 10 else 0), [REQUEST], 1, [(500.0, 0.5)])

    seconds = np.array(found["seconds"])
    assert len(seconds) == pytest.approx(250, abs=60)
    assert (seconds > 0.05).sum() > 40


def test_callers_that_were_too_many_leave_when_the_offered_rate_falls(serve):
    """One connection that serves 200 a second has a backlog of 2,000 a second: it is given up with the storm."""
    found = open_loop(serve(lambda count: 0.005), [REQUEST], 1, [(2000.0, 0.3), (20.0, 0.5)])

    due, status = np.array(found["due"]), np.array(found["status"])
    assert (status[due < 0.3] == 0).sum() > 300
    assert (status[due > 0.35] == 200).all()
